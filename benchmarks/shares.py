"""What one of N hosts reads at the start, and what it keeps as epochs go by.

    python benchmarks/shares.py [--images=20000] [--size=64] [--processes=1,8] [--epochs=10]

As many JPEG files, half of each domain, are written to a temporary folder, resized when read to
286/256 of --size, and cropped to it. For each number of processes a process of its own opens the
set with cyclegan_jax.data as the first of so many: the others are not run, and what they would
tell (that all of their images are sound) is not waited for. So this is the work of a host whose
cores are its own, with the disk's cache warm. Then it makes its part of the batches, eight pairs
in all, of some epochs. Columns:

seconds   until the set is open: headers of all, and decoding its share.
decoded   images kept then, of both domains.
epoch_1   images kept after so many epochs; ...
mib       what these take in the end, of pixels; rss_mib: by how much the process has grown since
          its imports.
"""

import contextlib
import itertools
import math
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import measure
from input_pipeline import write_pictures

BATCH = 8


def main():
    parser = measure.parser(__doc__)
    add, number = parser.add_argument, measure.whole_number
    add('--images', type=number, default='20000', metavar='N', help='files of both domains')
    add('--size', type=number, default='64', metavar='N', help='side of the images')
    add('--processes', type=measure.whole_numbers, default='1,8', metavar='N,...', help='of a run')
    add('--epochs', type=number, default='10', metavar='N', help='that are shown in the end')
    args = parser.parse_args()
    if any(BATCH % count for count in args.processes):
        parser.error(f'--processes is {args.processes}; each must divide the batch of {BATCH}')
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), args.size, args.images // 2)
        # In new processes, whose memory is their own. The first only reads the files once.
        for count in (args.processes[0], *args.processes):
            with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
                row = pool.submit(share, folder, args.size, count, args.epochs).result()
            results.append({'processes': count, **row})
    results = results[1:]
    print('  '.join(results[0]))
    for row in results:
        print('  '.join(f'{value:>{len(name)}.5g}' for name, value in row.items()))
    measure.save(args.json, 'shares', measure.command(), results)


def share(folder: str, size: int, count: int, epochs: int) -> dict[str, float]:
    from cyclegan_jax import data

    def kept() -> int:
        return sum(image is not None for image in images())

    def images():
        return itertools.chain.from_iterable(split.kept for split in dataset.train.values())

    before, began = resident(), time.perf_counter()
    dataset = data.load(
        path=folder,
        load_size=round(size * 286 / 256),
        crop_size=size,
        cache=math.inf,
        seed=0,
        batch_size=BATCH,
        process_count=count,
    )
    row = {'seconds': time.perf_counter() - began, 'decoded': kept()}
    with contextlib.closing(dataset.batches()) as batches:
        for epoch in range(1, epochs + 1):
            for _ in range(dataset.epoch_length // BATCH):
                next(batches)
            if epoch in (1, epochs):
                row[f'epoch_{epoch}'] = kept()
    row['mib'] = sum(image.nbytes for image in images() if image is not None) / 2**20
    return row | {'rss_mib': (resident() - before) / 2**20}


def resident() -> int:
    """Bytes of memory of this process, as Linux tells."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


if __name__ == '__main__':
    main()
