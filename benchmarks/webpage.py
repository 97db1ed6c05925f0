"""Weight of an exported page, and times of a translation in it, in Chromium without a window.

    python benchmarks/webpage.py [--size=256] [--backend=wasm]

The default generator, or that of --width and --blocks, with random weights, served from this
machine. `first` is from the address to the first translation of a picture that is given at once:
page, runtime and model are fetched and made ready. `next` is another one of that size. `cpu` is
time of the processor, which tells more where other programs run beside.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import jax
import measure
import numpy as np
import psutil
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / 'tests'))
from browser import CHROMIUM, open_page, serve

from cyclegan_jax import interop
from cyclegan_jax.inference.exporting import export

_DONE = "document.querySelector('#status').textContent.startsWith('Done')"


def main() -> int:
    parser = measure.parser(__doc__)
    add, number = parser.add_argument, measure.whole_number
    add('--size', type=measure.whole_numbers, default='256', metavar='N,...', help='side in pixels')
    add('--width', type=number, default='64', metavar='N', help='channels of the first layer')
    add('--blocks', type=number, default='9', metavar='N', help='residual blocks')
    add('--repeats', type=number, default='3', metavar='N', help='translations after the first')
    add('--backend', default='wasm', choices=('wasm', 'webgpu'), help='runs the generator')
    add('--threads', action='store_true', help='send the headers that allow as many as cores')
    args = parser.parse_args()
    if CHROMIUM is None:
        sys.exit('error: Chromium is not installed.')
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _export(folder, args)
        for size in args.size:
            result = {'size': size, **_weights(folder, args.backend), **_times(folder, size, args)}
            print(', '.join(f'{k}: {v:.4g}' for k, v in result.items()), flush=True)
            results.append(result)
    measure.save(args.json, 'webpage', measure.command(), results)
    return 0


def _export(folder: Path, args: argparse.Namespace) -> None:
    spec = interop.full_spec('generator', {'width': args.width, 'num_blocks': args.blocks})
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
    shapes = interop.param_shapes('generator', spec, (3, 3))
    params = jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    network = interop.Network('generator', spec, (3, 3), params)
    print(export({'a2b': network}, folder / 'page', 'web', domains={'a': 'A', 'b': 'B'}))


def _weights(folder: Path, backend: str) -> dict[str, float]:
    """MB that a visitor fetches for the model, and for all the rest."""
    page = folder / 'page'
    names = ['ort.webgpu.min.js', 'ort-wasm-simd-threaded.asyncify.js']
    if backend == 'wasm':
        names = ['ort.wasm.min.js', 'ort-wasm-simd-threaded.js']
    runtime = [page / 'runtime' / n for n in (*names, names[1].replace('.js', '.wasm'))]
    rest = [page / n for n in ('index.html', 'page.css', 'page.js', 'worker.js', 'model.json')]
    sizes = [path.stat().st_size for path in (*runtime, *rest)]
    return {'model_MB': (page / 'a2b.onnx').stat().st_size / 1e6, 'rest_MB': sum(sizes) / 1e6}


def _times(folder: Path, size: int, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of the first translation, and least and median of the next; and of the processor."""
    picture = folder / 'picture.png'
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(picture)
    headers = {'Opener': 'same-origin', 'Embedder': 'require-corp'} if args.threads else {}
    headers = {f'Cross-Origin-{name}-Policy': value for name, value in headers.items()}
    seconds, work = [], []
    with (
        serve(folder / 'page', headers) as url,
        open_page(f'{url}?backend={args.backend}', profile=folder / f'profile_{size}') as page,
    ):
        start = time.perf_counter()
        page.wait("document.querySelector('#status')?.textContent == 'Choose a picture.'")
        for _ in range(1 + args.repeats):
            page.run("document.querySelector('#status').textContent = ''")
            page.choose('#file', picture)
            page.wait(_DONE, 600)
            seconds.append(time.perf_counter() - start)
            work.append(_work(page.process.pid))
            start = time.perf_counter()
    first, *rest = seconds
    return {
        'first_s': first,
        'next_min_s': min(rest),
        'next_median_s': float(np.median(rest)),
        'first_cpu_s': work[0],
        'next_cpu_s': float(np.median(np.diff(work))),
    }


def _work(pid: int) -> float:
    """Seconds of the processor that a process and those below it have had."""
    browser = psutil.Process(pid)
    times = [process.cpu_times() for process in (browser, *browser.children(recursive=True))]
    return sum(t.user + t.system for t in times)


if __name__ == '__main__':
    sys.exit(main())
