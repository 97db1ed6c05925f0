# For CPUs:  docker build --build-arg=UID=$(id -u) -t cyclegan_jax .
# For CUDA:  docker build --build-arg=UID=$(id -u) -t cyclegan_jax:cuda --target=cuda .
#
# docker run --rm -v "$PWD:/work" cyclegan_jax train --config=synthetic --workdir=runs/x
# docker run --rm -v "$PWD:/work" --gpus=all cyclegan_jax:cuda train --config=synthetic --workdir=runs/x
# The latter needs NVIDIA's driver and container toolkit; CUDA itself is in the image.

FROM python:3.12-slim AS wheel
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir=/wheel /source

FROM python:3.12-slim AS base
# First what changes least: the libraries, which are most of the image.
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir -r /requirements.txt
# What is written below /work is the user's who built the image. A user without a name will not do:
# the library that keeps compiled programs asks for it.
ARG UID=1000
RUN useradd --create-home --uid "$UID" user
WORKDIR /work
ENTRYPOINT ["cyclegan-jax"]

FROM base AS cuda
RUN pip install --no-cache-dir -r /requirements.txt "jax[cuda13]"
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --no-deps /wheel/*.whl
USER $UID

FROM base AS cpu
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --no-deps /wheel/*.whl
USER $UID
