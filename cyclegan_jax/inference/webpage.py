"""A folder that any web server shows: a page that translates pictures in the visitor's browser.

The page is in `web/`; it reads what it serves from model.json, and runs the generators' ONNX files
by onnxruntime-web, whose files are put beside it.
"""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_jax.errors import UserError
from cyclegan_jax.interop import Network
from cyclegan_jax.storage import parse_json, write_bytes, write_json

_SOURCE = Path(__file__).parent / 'web'
_MARK = 'content="cyclegan_jax"'  # of our own index.html

# That the network computes in, for each channel of its first layer: a ResNet of 64 took 1,031 bytes
# a pixel in Chromium, one of 16 took 254. A U-Net takes less.
_BYTES_PER_PIXEL = 17

PACKAGE = 'onnxruntime-web'
VERSION = '1.30.0'  # the one that this was tested with, and which is fetched
# Of its archive, as npm's lock files have it.
_SHA512 = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='
# Name there: name here. Some web servers do not know that .mjs are scripts, and all browsers mind.
_RUNTIME = {
    'ort.wasm.min.mjs': 'ort.wasm.min.js',
    'ort-wasm-simd-threaded.mjs': 'ort-wasm-simd-threaded.js',
    'ort-wasm-simd-threaded.wasm': 'ort-wasm-simd-threaded.wasm',
    'ort.webgpu.min.mjs': 'ort.webgpu.min.js',
    'ort-wasm-simd-threaded.asyncify.mjs': 'ort-wasm-simd-threaded.asyncify.js',
    'ort-wasm-simd-threaded.asyncify.wasm': 'ort-wasm-simd-threaded.asyncify.wasm',
}


def check_folder(folder: Path) -> None:
    """Raises UserError if the folder has an index.html that is not of such a page."""
    page = folder / 'index.html'
    if page.exists() and _MARK not in page.read_text(encoding='utf-8', errors='replace'):
        raise UserError(f'{page} is not of an export, and is not replaced; name another --output.')


def write(
    folder: Path,
    models: Mapping[str, bytes],
    networks: Mapping[str, Network],
    domains: Mapping[str, str],
    runtime: Mapping[str, bytes],
) -> None:
    """Writes the page.

    Args:
      models: ONNX files by direction, 'a2b' first.
      networks: the generators that they hold.
      domains: what 'a' and 'b' are called.
      runtime: of `find_runtime`.
    """
    names = {direction: [domains[end] for end in direction.split('2')] for direction in models}
    source, target = next(iter(names.values()))
    described = {
        'title': f'{source} to {target}' if len(models) == 1 else f'{source} and {target}',
        'about': 'A CycleGAN, exported by cyclegan_jax.',
        'runtime': parse_json(runtime['package.json'].decode(), PACKAGE)['version'],
        'generators': [
            _describe(name, networks[name], models[name], names[name]) for name in models
        ],
    }
    (folder / 'runtime').mkdir(exist_ok=True)
    for theirs, ours in _RUNTIME.items():
        write_bytes(folder / 'runtime' / ours, runtime[theirs])
    for name, content in models.items():
        write_bytes(folder / f'{name}.onnx', content)
    write_json(folder / 'model.json', described)
    for path in sorted(_SOURCE.iterdir()):
        write_bytes(folder / path.name, path.read_bytes())


def _describe(name: str, network: Network, model: bytes, ends: Sequence[str]) -> dict[str, Any]:
    module = network.module()
    return {
        'name': name,
        'source': ends[0],
        'target': ends[1],
        # Another model has another address, so that no browser shows an old one from its cache.
        'file': f'{name}.onnx?{hashlib.sha256(model).hexdigest()[:8]}',
        'bytes': len(model),
        'input_channels': network.channels[0],
        'output_channels': network.channels[1],
        'size_multiple': module.size_multiple,
        'bytes_per_pixel': _BYTES_PER_PIXEL * network.spec.get('width', 64),
    }


def find_runtime(given: Path | None) -> dict[str, bytes]:
    """The files of onnxruntime-web that the page needs, by name, and its package.json.

    Args:
      given: folder or archive (.tgz) of the npm package. None: node_modules here or in a folder
        above; else npm fetches VERSION, whose hash is known.

    Raises:
      UserError: it is not there, not whole, and cannot be fetched.
    """
    if given is not None:
        files = _unpack(given.read_bytes()) if given.is_file() else _read(given)
    else:
        above = [Path.cwd(), *Path.cwd().parents]
        found = (place / 'node_modules' / PACKAGE for place in above)
        local = next((place for place in found if place.is_dir()), None)
        files = _read(local) if local else _unpack(_fetch())
    if missing := [name for name in (*_RUNTIME, 'package.json') if name not in files]:
        raise UserError(
            f'{given or local or "the archive"} has no {missing[0]}; it must be the npm package '
            f'{PACKAGE}, {VERSION} or near it: npm install {PACKAGE}@{VERSION}'
        )
    return files


def _read(folder: Path) -> dict[str, bytes]:
    # Given may also be the folder in which `npm install` was run.
    inner = folder / 'node_modules' / PACKAGE
    root = inner if inner.is_dir() else folder
    paths = {name: root / 'dist' / name for name in _RUNTIME} | {
        'package.json': root / 'package.json'
    }
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def _unpack(archive: bytes) -> dict[str, bytes]:
    wanted = {f'package/dist/{name}': name for name in _RUNTIME}
    wanted['package/package.json'] = 'package.json'
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return {
                wanted[member.name]: tar.extractfile(member).read()
                for member in tar
                if member.name in wanted and member.isfile()
            }
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f'the archive of {PACKAGE} cannot be read: {error}.') from error


def _fetch() -> bytes:
    """The archive of VERSION, by npm, which knows the user's registry and keeps a cache."""
    advice = (
        f'Where there is a connection, run npm install {PACKAGE}@{VERSION}, and give its folder as '
        f'--onnxruntime-web=node_modules/{PACKAGE}.'
    )
    npm = shutil.which('npm')
    if npm is None:
        raise UserError(
            f'--format=web needs {PACKAGE}, and npm, to fetch it, is not here. {advice}'
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                [npm, 'pack', f'{PACKAGE}@{VERSION}', '--ignore-scripts', '--fetch-retries=1'],
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
                timeout=600,
            )
        except (subprocess.SubprocessError, OSError) as error:
            lines = (getattr(error, 'stderr', None) or str(error)).strip().splitlines()
            reason = next((line for line in lines if 'code' not in line), str(error))
            raise UserError(f'npm cannot fetch {PACKAGE} {VERSION} ({reason}). {advice}') from error
        archive = next(Path(folder).glob('*.tgz')).read_bytes()
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != _SHA512:
        raise UserError(f'what npm fetched is not {PACKAGE} {VERSION}: its hash differs. {advice}')
    return archive


def photographs(channels: int) -> Iterator[np.ndarray]:
    """Images to compare models on, (1, 256, 256, channels) in [-1, 1]: of every roughness.

    Noise whose spectrum falls as that of photographs (1/f), rougher, and smoother.
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    frequency[0, 0] = 1
    for power in (0, 1, 1.5):
        spectrum = np.fft.rfft2(rng.normal(size=(channels, 256, 256))) / frequency**power
        noise = np.fft.irfft2(spectrum)
        noise /= 2 * noise.std(axis=(1, 2), keepdims=True)
        yield np.clip(noise, -1, 1).astype(np.float32).transpose(1, 2, 0)[None]
