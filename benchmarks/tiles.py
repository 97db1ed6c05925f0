"""How far a translation in tiles is from the whole picture's, by the side of the tiles.

    python benchmarks/tiles.py --model=runs/horse2zebra --input=photo.jpg --size=1024,2048

In levels of 255: `mean` of all differences, and `drift`, that of the means of 64x64 squares, which
the eye sees as other colours. `each` are tiles that are normalised each by itself, as onnxruntime
has them, blended the same way.
"""

import sys
from pathlib import Path

import measure
import numpy as np
from PIL import Image

from cyclegan_jax.inference import Translator

SQUARE = 64


def main() -> int:
    parser = measure.parser(__doc__)
    add = parser.add_argument
    add('--model', required=True, help='workdir, export, PyTorch file or hub id')
    add('--direction', default='a2b', choices=('a2b', 'b2a'))
    add('--input', type=Path, required=True, metavar='FILE', help='a picture, made square')
    add('--size', type=measure.whole_numbers, default='1024', metavar='N,...', help='its sides')
    add('--tile', type=measure.whole_numbers, default='256,512', metavar='N,...')
    args = parser.parse_args()
    if wrong := [size for size in args.size if size % SQUARE]:
        parser.error(f'--size is {wrong[0]}; it must be a multiple of {SQUARE}')
    ways = {
        way: Translator.from_pretrained(args.model, args.direction, runtime=runtime)
        for way, runtime in {'agreeing': 'jax', 'each': 'onnxruntime'}.items()
    }
    results = []
    for size in args.size:
        with Image.open(args.input) as opened:
            picture = opened.convert('RGB').resize((size, size), Image.BICUBIC)
        image = np.asarray(picture, np.float32) / 127.5 - 1
        whole = ways['agreeing'](image)
        for tile in args.tile:
            for way, translator in ways.items():
                result = {'size': size, 'tile': tile, 'way': way}
                result |= differences(translator(image, tile=tile) - whole)
                print(', '.join(f'{k}: {v}' for k, v in result.items()), flush=True)
                results.append(result)
    measure.save(args.json, 'tiles', measure.command(), results)
    return 0


def differences(difference: np.ndarray) -> dict[str, float]:
    """Of one translation less another, (n, n, c) in [-1, 1]."""
    levels = 127.5 * difference
    n = len(levels)
    squares = levels.reshape(n // SQUARE, SQUARE, n // SQUARE, SQUARE, -1).mean((1, 3))
    found = {'mean': np.abs(levels).mean(), 'drift': np.abs(squares).mean()}
    return {name: round(float(value), 2) for name, value in found.items()}


if __name__ == '__main__':
    sys.exit(main())
