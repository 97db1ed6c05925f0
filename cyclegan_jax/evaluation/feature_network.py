"""A feature network of the user's choice, such as DINOv2, CLIP or MobileNet, as an ONNX file.

Sets of images are compared by its features as FID compares them by Inception's: by the Frechet and
the kernel distance, frechet_<name> and kid_<name>. That is not FID. A score says something only
beside others of the same file and preprocessing, which the protocol names.
"""

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_jax.errors import UserError, check_choice, describe
from cyclegan_jax.evaluation.metric import Features, Metric, frechet, kernel
from cyclegan_jax.evaluation.scores import METRICS, OF_NETWORK

_FIELDS = ('name', 'size', 'mean', 'std', 'layout', 'resize', 'output')
_FILTERS = {f.name.lower(): f for f in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)}


def load(given: str | None) -> list[Metric]:
    """The two metrics of a file: 'FILE.onnx', or 'FILE.onnx:size=224:mean=0.5:std=0.5'; [] of none.

    What is not given there is looked for in the file's metadata_props, and then in the shapes of
    its input and output.

    name: what the scores are called by; the file's own name if nothing else is said.
    size: pixels, n or height x width; pictures are resized to it, whatever their ratio.
    mean, std: one number, or one for each channel of RGB, of pictures in [0, 1]. Never guessed.
    layout: of its input, 'NCHW' or 'NHWC'.
    resize: 'bicubic' or 'bilinear', antialiased (Pillow).
    output: the name of the one with a row of features for each picture.

    Raises:
      UserError: onnxruntime is not installed, no such network, or its preprocessing is not known.
    """
    if not given:
        return []
    path, *options = re.split(r':(?=\w+=)', given)
    options = dict(option.split('=', 1) for option in options)
    for option in options:
        check_choice(f'an option of the feature network {path}', option, _FIELDS)
    session, sha256 = _open(path)
    fields = {**session.get_modelmeta().custom_metadata_map, **options}
    stem = re.sub(r'[^a-z0-9.]+', '-', Path(path).stem.lower()).strip('-')
    source, output = session.get_inputs()[0], _output(session, fields.get('output'), path)
    layout, size = _shape(source.shape, fields, path)
    mean, std = (_numbers(fields, name, path) for name in ('mean', 'std'))
    if not (std > 0).all():
        raise UserError(f'{path}: std is {std.tolist()}; it must be positive.')
    kind = fields.get('resize', 'bicubic')
    check_choice(f'resize of {path}', kind, list(_FILTERS))

    def features(image: np.ndarray, *_: int) -> np.ndarray:
        """uint8 (h, w, 3) to float32 (features,)."""
        resized = np.asarray(Image.fromarray(image).resize(size[::-1], _FILTERS[kind]))
        x = ((resized / np.float32(255) - mean) / std)[None]
        x = x.transpose(0, 3, 1, 2) if layout == 'NCHW' else x
        x = x.astype(np.float16 if 'float16' in source.type else np.float32)
        [found] = session.run([output], {source.name: x})[0]
        if not np.isfinite(found).all():
            raise UserError(f'{path} gives features that are not finite; it cannot score pictures.')
        return found.astype(np.float32)

    described = (
        f'{size[0]} x {size[1]} {kind}, antialiased (Pillow); (x / 255 - mean) / std, '
        f'mean {mean.tolist()}, std {std.tolist()}; output {output}'
    )
    # Features that --save-real keeps are of this file, this preprocessing and no other.
    kept = hashlib.sha256(f'{sha256} {described}'.encode()).hexdigest()[:16]
    name = fields.get('name', stem)
    found = Features(f'{name}-{kept}', prepare=features, resize=described, sha256=sha256)
    metrics = [frechet(f'frechet_{name}', found), kernel(f'kid_{name}', found)]
    if any(m.name in METRICS or not OF_NETWORK.fullmatch(m.name) for m in metrics):
        raise UserError(
            f'{path} is called {name!r}, which cannot be the name of a score; give it another, of '
            f'small letters, digits, - and dots: --features={path}:name=NAME.'
        )
    return metrics


def _open(path: str) -> tuple:
    """An onnxruntime session, and the file's sha256."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"{path} needs onnxruntime: pip install 'cyclegan_jax[onnxruntime]'"
        ) from error
    content = Path(path).expanduser().read_bytes()
    try:
        # From bytes, so that nothing outside of the file, and of its hash, can take part.
        session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    except Exception as error:  # of which onnxruntime has many kinds
        raise UserError(
            f'{path} is not a whole ONNX file that onnxruntime can run ({describe(error)}); '
            'weights must be in the file itself.'
        ) from error
    if len(session.get_inputs()) != 1:
        names = ', '.join(source.name for source in session.get_inputs())
        raise UserError(f'{path} has the inputs {names}; a feature network has one, of images.')
    return session, hashlib.sha256(content).hexdigest()


def _output(session, name: str | None, path: str) -> str:
    shapes = {output.name: output.shape for output in session.get_outputs()}
    rows = [output for output, shape in shapes.items() if len(shape) == 2]
    chosen = [name] if name else rows
    if len(chosen) != 1 or chosen[0] not in rows:
        asked = f'{name!r} is asked for' if name else f'{len(rows)} are'
        raise UserError(
            f'{path} has the outputs {shapes}, of which one with a row of features for each '
            f'picture is wanted, and {asked}; name it: --features={path}:output=NAME.'
        )
    return chosen[0]


def _shape(shape: Sequence, fields: Mapping[str, str], path: str) -> tuple[str, tuple[int, int]]:
    """The layout, and (height, width), of an input of which some sides may be open."""
    if len(shape) != 4:
        raise UserError(f'{path} takes arrays of shape {shape}, not images (n, 3, h, w).')
    guess = {(True, False): 'NCHW', (False, True): 'NHWC'}.get((shape[1] == 3, shape[3] == 3))
    layout = _field(fields, 'layout', path, guess)
    check_choice(f'layout of {path}', layout, ('NCHW', 'NHWC'))
    sides = shape[2:] if layout == 'NCHW' else shape[1:3]
    closed = 'x'.join(map(str, sides)) if all(isinstance(side, int) for side in sides) else None
    text = _field(fields, 'size', path, closed)
    match = re.fullmatch(r'(\d+)(?:\s*x\s*(\d+))?', text)
    size = match and (int(match[1]), int(match[2] or match[1]))
    fits = size and all(s == n or not isinstance(s, int) for s, n in zip(sides, size, strict=True))
    if not fits or 0 in size:
        raise UserError(f'{path} takes images of {sides}, and size is {text!r}; they do not fit.')
    return layout, size


def _numbers(fields: Mapping[str, str], name: str, path: str) -> np.ndarray:
    """float32 (1,) or (3,)."""
    text = _field(fields, name, path)
    try:
        found = np.atleast_1d(np.asarray(ast.literal_eval(text.strip()), np.float32))
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f'{path}: {name} is {text!r}, which cannot be read.') from error
    if found.shape not in ((1,), (3,)) or not np.isfinite(found).all():
        raise UserError(f'{path}: {name} is {text!r}; wanted one number, or three.')
    return found


def _field(fields: Mapping[str, str], name: str, path: str, default: str | None = None) -> str:
    text = fields.get(name, default)
    if text is None:
        raise UserError(
            f"{path} does not say its {name}; give it, as the network's authors do: "
            f'--features={path}:{name}=...'
        )
    return text
