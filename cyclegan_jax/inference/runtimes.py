"""Running a generator on stored images; programs other than JAX: by ONNX, on the CPU, any size."""

import functools
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network
from cyclegan_jax.sharding import check_memory

Generator = Callable[[np.ndarray], np.ndarray]  # (n, h, w, c) float32 in [-1, 1] to the same

DTYPES = ('float32', 'bfloat16')


def through(generator: Callable, batch: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Translations, of the type of `batch`, and for each whether all of it is finite.

    Args:
      generator: from (n, h, w, c) float32 in [-1, 1] to the same.
      batch: an array of numpy or JAX, which `xp` is.
    """
    half = half_range(batch.dtype)
    x = batch if half is None else batch.astype(xp.float32) / half - 1
    y = generator(x)
    finite = xp.isfinite(y).all(axis=(1, 2, 3))
    return y if half is None else xp.round((y + 1) * half).astype(batch.dtype), finite


def half_range(dtype: np.dtype) -> float | None:
    """Half of the largest value of an integer type; None for floating point, already in [-1, 1]."""
    return np.iinfo(dtype).max / 2 if np.issubdtype(dtype, np.integer) else None


def load(runtime: str, network: Network, name: str, dtype: str) -> Generator:
    """A generator as a function of images; raises MemoryError for more than fit into memory.

    Args:
      runtime: one of RUNTIMES but 'jax'.
      name: what errors call the network.
      dtype: what convolutions are computed in, one of DTYPES.

    Raises:
      UserError: a package is not installed, or the runtime has no such network or type.
    """
    start, layers = _RUNTIMES[runtime]
    try:
        from cyclegan_jax.inference.onnx_graph import to_onnx

        generator = start(to_onnx(network, name).SerializeToString(), dtype)
    except ImportError as error:
        raise UserError(
            f"--runtime={runtime} needs {runtime} and onnx: pip install 'cyclegan_jax[{runtime}]'"
        ) from error
    pixel = 4 * network.spec['width'] * layers

    def checked(images: np.ndarray) -> np.ndarray:
        check_memory(math.prod(images.shape[:3]) * pixel)
        return generator(images)

    return checked


def with_onnxruntime(model: bytes, dtype: str = 'float32') -> Generator:
    """Raises UserError for bfloat16, of which onnxruntime has no convolution on CPUs."""
    import onnxruntime

    if dtype != 'float32':
        raise UserError(
            f'--runtime=onnxruntime computes in float32, not in {dtype}; take --runtime=openvino, '
            'or leave out --dtype.'
        )
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return _channels_last(lambda images: session.run(None, {'image': images})[0])


def with_openvino(model: bytes, dtype: str) -> Generator:
    """Where the processor has no arithmetic in bfloat16, OpenVINO computes in float32."""
    # Without a hint it takes bfloat16 wherever that is fast.
    hint = {'INFERENCE_PRECISION_HINT': {'float32': 'f32', 'bfloat16': 'bf16'}[dtype]}
    core = openvino_core()
    request = core.compile_model(core.read_model(model), 'CPU', hint).create_infer_request()
    return _channels_last(lambda images: request.infer({'image': images})['translation'])


@functools.cache
def openvino_core() -> Any:
    """The one openvino.Core of this process.

    Each has its own plug-in, which sets the stack that signals are handled on, and at its end sets
    back what it had found: the stack of another plug-in, which may be freed by then. The next
    signal, such as Ctrl-C, would end the process without a word (OpenVINO 2026.4).
    """
    # Where this package is, each import is told to the makers, unasked, from a forked process.
    sys.modules.setdefault('openvino_telemetry', None)
    import openvino

    return openvino.Core()


# Each with the memory that it takes, in outputs of the first convolution. Measured with the default
# generator at 512x512 and 1024x1024: 6.9 to 8.8 and 1.2 to 2.3.
_RUNTIMES = {'onnxruntime': (with_onnxruntime, 9), 'openvino': (with_openvino, 2.5)}
RUNTIMES = ('jax', *_RUNTIMES)


def _channels_last(call: Generator) -> Generator:
    """From a function of (n, c, h, w) to one of (n, h, w, c)."""
    return lambda images: call(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
