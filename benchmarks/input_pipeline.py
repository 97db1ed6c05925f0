"""What feeds the step, without a model: decoding, batches, the way to the device, the loop's wait.

    python benchmarks/input_pipeline.py [--size=256] [--batch=1,4,8] [--step-ms=20,50,100]

Random smooth pictures are written as JPEG to a temporary folder and read by cyclegan_jax.data with
its defaults: resized to 286/256 of their size, cropped, mirrored. An image is one of either domain,
a batch of n has n of each, and one device is used. Tables:

decoding  decoding and resizing by one thread, which is one core, and by one thread for each core.
batches   images kept in memory: batches as quick as they come, and putting one on the device.
wait      percent of its time that the loop of cyclegan_jax/train.py waits for the next batch. On an
          accelerator matrix products of --step-ms stand for the step. On a CPU a sleep does, which
          leaves the cores to the input, as an accelerator would.
ahead     the same at the largest batch and the middle --step-ms, by the batches read ahead.
decoded   the same for images decoded anew each time, by threads and by the batches read ahead.
"""

import contextlib
import functools
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np
from PIL import Image

THREADS, PREFETCH = (1, 2, 4, 8), (1, 2, 4)  # of the last tables; PREFETCH counts for each thread


def main():
    parser = measure.parser(__doc__)
    add, number, numbers = parser.add_argument, measure.whole_number, measure.whole_numbers
    add('--size', type=number, default='256', metavar='N', help='side of the images')
    add('--batch', type=numbers, default='1,4,8', metavar='N,...', help='images of each domain')
    add('--step-ms', type=numbers, default='20,50,100', metavar='N,...', help='length of a step')
    add('--images', type=number, default='500', metavar='N', help='files of each domain')
    add('--seconds', type=number, default='2', metavar='N', help='that a figure is measured for')
    args = parser.parse_args()
    largest, middle = max(args.batch), args.step_ms[len(args.step_ms) // 2]
    if args.images < largest:
        parser.error(f'--images is {args.images}, fewer than --batch={largest} needs; raise it')

    # Imported here, so that --help is answered at once.
    import jax

    from cyclegan_jax import data, process, sharding
    from cyclegan_jax.data import pipeline

    process.set_up()
    device = jax.devices()[0]
    put = functools.partial(sharding.put_batch, sharding.make_mesh(1, [device]))
    load_size = round(args.size * 286 / 256)
    seconds, results = args.seconds, []

    def report(table: str, **row) -> None:
        if not results or table != results[-1]['table']:
            print(f'\n{table}\n{"  ".join(row)}')
        cells = (f'{value:>{len(name)}.{6 if value > 999 else 3}g}' for name, value in row.items())
        print('  '.join(cells), flush=True)
        results.append({'table': table, 'device': device.device_kind, **row})

    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder), args.size, args.images)
        kib = statistics.mean(path.stat().st_size for path in paths) / 1024
        print(f'{len(paths)} JPEG files of {args.size}x{args.size}, {kib:.0f} KiB on average')
        for threads in dict.fromkeys((1, measure.machine()['cores'])):
            speed = decoding_speed(paths, load_size, threads, seconds)
            report('decoding', threads=threads, images_per_second=speed)

        options = {'path': folder, 'load_size': load_size, 'crop_size': args.size, 'seed': 0}
        kept = data.load(**options, batch_size=largest, cache=math.inf)
        anew = data.load(**options, batch_size=largest, cache=0)
        for batch in args.batch:
            report('batches', batch=batch, **batches(replace(kept, batch_size=batch), put, seconds))

        print(f'\nA step is {"a sleep" if device.platform == "cpu" else "matrix products"}.')
        steps = {ms: stand_in(device, ms / 1e3) for ms in args.step_ms}
        for batch, ms in itertools.product(args.batch, args.step_ms):
            percent = wait_percent(replace(kept, batch_size=batch), put, *steps[ms], seconds)
            report('wait', batch=batch, step_ms=ms, wait_percent=percent)

        for pipeline.PREFETCH in PREFETCH:  # images in memory are read by one thread
            percent = wait_percent(kept, put, *steps[middle], seconds)
            report('ahead', batches_ahead=pipeline.PREFETCH, wait_percent=percent)
        for threads, pipeline.PREFETCH in itertools.product(THREADS, PREFETCH):
            percent = wait_percent(replace(anew, num_threads=threads), put, *steps[middle], seconds)
            ahead = threads * pipeline.PREFETCH
            report('decoded', threads=threads, batches_ahead=ahead, wait_percent=percent)
    measure.save(args.json, 'input_pipeline', measure.command(), results)


def write_pictures(folder: Path, size: int, count: int) -> list[Path]:
    """Noise enlarged eight times, which as JPEG is about as large as photos are."""
    random = np.random.default_rng(0)
    paths = [folder / f'train{domain}' / f'{i}.jpg' for domain in 'AB' for i in range(count)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        noise = random.integers(256, size=(-(-size // 8), -(-size // 8), 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(path, quality=90)
    return paths


def decoding_speed(paths: list[Path], load_size: int, threads: int, seconds: float) -> float:
    from cyclegan_jax import data

    def read(path: Path) -> np.ndarray:
        return data.resize(data.decode(path), (load_size, load_size))

    def read_some() -> int:
        return len(list(pool.map(read, itertools.islice(endless, 32 * threads))))

    endless = itertools.cycle(paths)
    with ThreadPoolExecutor(threads) as pool:
        return rate(read_some, seconds)


def batches(dataset, put: Callable, seconds: float) -> dict[str, float]:
    import jax

    with contextlib.closing(dataset.batches()) as source:
        batch = next(source)
        speed = rate(lambda: sum(map(len, next(source).values())), seconds)
    placed = put(batch).values()
    assert all(images.dtype == np.uint8 for images in placed), placed
    puts = rate(lambda: len(jax.block_until_ready([put(batch)])), seconds)
    return {
        'images_per_second': speed,
        'put_ms': 1e3 / puts,
        'bytes_per_image': sum(images.nbytes for images in placed) / sum(map(len, placed)),
    }


def wait_percent(
    dataset, put: Callable, start: Callable, finish: Callable, seconds: float
) -> float:
    """Runs the loop for so many seconds, with the step of `stand_in`."""
    from cyclegan_jax.observer import Stopwatch

    with contextlib.closing(dataset.batches(place=put)) as source:
        running = start(next(source))  # nothing can have read the first batch ahead
        stopwatch, elapsed, share = Stopwatch(), 0.0, 0.0
        while elapsed < seconds:
            with stopwatch.waiting():
                batch = next(source)
            running, last = start(batch), running
            finish(last)  # one step ahead, as in training
            elapsed, share = stopwatch.read()
        finish(running)
    return 100 * share


def stand_in(device, seconds: float) -> tuple[Callable, Callable]:
    """A step of so many seconds, as two functions: start(batch) -> running, finish(running)."""
    import jax
    import jax.numpy as jnp

    if device.platform == 'cpu':
        # Clock and sleep alone: a thread of Python would take turns with the one that reads.
        free = 0.0  # when the device is done with all that was started

        def start(_) -> float:
            nonlocal free
            free = max(free, time.perf_counter()) + seconds
            return free

        return start, lambda end: time.sleep(max(0, end - time.perf_counter()))

    @functools.partial(jax.jit, static_argnums=1)
    def multiply(batch: dict, count: int):
        matrix = jnp.full((4096, 4096), batch['a'][0, 0, 0, 0], jnp.bfloat16)
        return jax.lax.fori_loop(0, count, lambda _, product: product @ matrix, matrix)

    batch = {'a': jax.device_put(np.zeros((1, 1, 1, 1), np.uint8), device)}
    multiply(batch, 100).block_until_ready()
    trials = rate(lambda: len(jax.block_until_ready([multiply(batch, 100)])), 0.5)
    count = round(100 * trials * seconds)
    return lambda batch: multiply(batch, count), jax.block_until_ready


def rate(work: Callable[[], int], seconds: float) -> float:
    """Calls `work`, which returns how much it did, for so many seconds; the sum by the time."""
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        done += work()
    return done / elapsed


if __name__ == '__main__':
    main()
