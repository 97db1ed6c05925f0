"""How long the demo takes from its command to its page, and how large the page is.

    python benchmarks/demo.py [--repeats=5]

The model is the default generator, or that of --width and --blocks, with random weights. `start` is
until the command says where the page is; `cpu` the processor's time until then, which tells more
where other programs run beside; `page` is what a browser fetches before a picture is chosen.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import measure
import psutil

sys.path.append(str(Path(__file__).parents[1] / 'tests'))
from browser import CHROMIUM, open_page
from translate_fixtures import random_network

from cyclegan_jax import interop


def main() -> int:
    parser = measure.parser(__doc__)
    add, number = parser.add_argument, measure.whole_number
    add('--width', type=number, default='64', metavar='N', help='channels of the first layer')
    add('--blocks', type=number, default='9', metavar='N', help='residual blocks')
    add('--port', type=number, default='7869', metavar='N')
    add('--repeats', type=number, default='5', metavar='N', help='starts')
    args = parser.parse_args()
    if CHROMIUM is None:
        sys.exit('error: Chromium is not installed.')
    spec = interop.full_spec('generator', {'width': args.width, 'num_blocks': args.blocks})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        interop.save_pretrained(folder / 'model', {'a2b': random_network(spec=spec)})
        starts = [start(folder, args) for _ in range(args.repeats)]
    result = {key: statistics.median(one[key] for one in starts) for key in starts[0]}
    print(', '.join(f'{key}: {value:.4g}' for key, value in result.items()))
    measure.save(args.json, 'demo', measure.command(), [result | {'starts': starts}])
    return 0


def start(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Starts and ends a demo once: seconds, seconds of the processor, bytes."""
    command = [sys.executable, '-m', 'cyclegan_jax.demo', f'--model={folder / "model"}']
    begun = time.monotonic()
    process = subprocess.Popen([*command, f'--port={args.port}'], stdout=subprocess.PIPE, text=True)
    try:
        if not (line := process.stdout.readline()):
            sys.exit('error: the demo has ended; see above.')
        seconds = time.monotonic() - begun
        times = psutil.Process(process.pid).cpu_times()
        address = line.split()[4]
        with open_page(address, folder / 'profile') as page:
            page.wait("!!document.querySelector('#picture input[type=file]')")
            fetched = {url for url in page.requests if url.startswith('http')}
        size = sum(len(urllib.request.urlopen(url).read()) for url in fetched)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
    return {'start': seconds, 'cpu': times.user + times.system, 'page': size}


if __name__ == '__main__':
    sys.exit(main())
