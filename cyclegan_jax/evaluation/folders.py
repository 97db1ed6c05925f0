"""Folders of pictures, or of label maps, one against the other."""

import collections
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cyclegan_jax.data import clips, synthetic
from cyclegan_jax.data.sources import Folder
from cyclegan_jax.errors import UserError, check_at_least, check_choice
from cyclegan_jax.evaluation import (
    feature_network,
    inception_weights,
    labels,
    paired,
    report,
    scores,
)
from cyclegan_jax.evaluation.direction import Direction, Extractor, load_features, save_features
from cyclegan_jax.evaluation.measures import View, as_they_are

PathLike = str | os.PathLike


def evaluate_folders(
    fake: PathLike,
    real: PathLike | None = None,
    *,
    other_real: PathLike | None = None,
    input: PathLike | None = None,
    truth: PathLike | None = None,
    metrics: str | Iterable[str] | None = None,
    inception: PathLike | None = None,
    features: str | None = None,
    batch_size: int = 16,
    save_real: PathLike | None = None,
) -> dict:
    """Scores the pictures of a folder against those of another. A video is a folder of its frames.

    Args:
      fake: translations.
      real: real pictures of the target domain, or a file that `save_real` has made of them; needed
        by distances.
      other_real: more of them, for the floor (by default of halves of `real`).
      input: what was translated, for the ceiling.
      truth: the right translations.
      metrics: names of `scores.METRICS`; those computed by default for None. What cannot be
        computed is left out, and said so.
      inception: the FID network's weights; None: what the environment variable names.
      features: a network of one's own, see `feature_network.load`.
      batch_size: images in a call of a network.
      save_real: keeps the features of `real` there (.npz), to be used in its place.

    Returns:
      A `report.record`, and 'not_computed', {metric: why}; 'protocol'.

    Raises:
      UserError: folders that are empty or do not match, or no score that can be computed.
    """
    check_at_least('batch_size', batch_size, 1)
    wanted = scores.parse(metrics, others=feature_network.load(features))
    weights = inception_weights.find(inception, scores.needs_weights(wanted))
    paths = {'fake': fake, 'real': real, 'other_real': other_real, 'input': input, 'truth': truth}
    kind = Numbered if any(scores.FRAMES in metric.needs for metric in wanted) else Folder
    folders = {
        name: _open(name, path, kind)
        for name, path in paths.items()
        if path and not (name == 'real' and Path(path).suffix == '.npz')
    }
    known = load_features(real, weights.sha256) if real and 'real' not in folders else None
    sizes = {name: _sizes(folder) for name, folder in folders.items()}
    one_size = len(set().union(*sizes.values())) == 1
    reasons = {
        scores.WEIGHTS: weights.missing,
        scores.ONE_SIZE: '' if one_size else 'needs pictures of one size',
        scores.REAL: '' if 'real' in folders else 'needs the pictures of --real',
        scores.FRAMES: _lacking_frames(sizes),
        scores.TRUTH: '' if 'truth' in folders else 'needs --truth',
        scores.CLASSES: 'needs --predictions',
        scores.CYCLE: 'needs --workdir',
    }
    left_out = scores.lacking(wanted, reasons)
    for metric in wanted:
        if not real and metric.features:
            left_out[metric.name] = 'needs --real'
        if known is not None and metric.features and metric.features.name not in known:
            left_out[metric.name] = 'not in the file of --real'
    scores.check_some(wanted, left_out)
    computed = [metric for metric in wanted if metric.name not in left_out]

    fake_pictures = folders['fake']
    direction = Direction(
        Extractor(weights.params, batch_size),
        computed,
        count=len(fake_pictures),
        real=known or folders.get('real', ()),
        inputs=_partners(folders, 'input'),
        truth=_partners(folders, 'truth'),
        other=folders.get('other_real'),
    )
    recorded = report.record(direction, direction.score(as_they_are(fake_pictures)))
    recorded['warnings'] += _warnings(fake_pictures, sizes)
    if save_real:
        save_features(save_real, direction, weights.sha256)
    protocol = {
        'real': real and str(real),
        'folders': {
            name: {
                'path': str(paths[name]),
                'images': len(folder),
                'sizes': sizes[name],
                'formats': _formats(folder),
            }
            for name, folder in folders.items()
        },
        'scored_files': _names(fake_pictures),
        **report.protocol(computed, weights.sha256),
    }
    return recorded | {'not_computed': left_out, 'protocol': protocol}


def evaluate_label_maps(
    predictions: PathLike,
    truth: PathLike,
    *,
    untranslated: PathLike | None = None,
    oracle: PathLike | None = None,
    palette: str = 'cityscapes',
    label_ids: bool = False,
    legacy: bool = False,
) -> dict:
    """Scores folders of predicted label maps, paired by name with the true ones.

    Args:
      predictions: of a segmentation network, from translations.
      untranslated, oracle: of the same without translation, and after training on real labels.
      palette: 'cityscapes', or the name of a rendered set.
      label_ids: whether class numbers are Cityscapes' and GTA5's labelIds.
      legacy: the paper's formula, see `labels.scores`.

    Returns:
      'scores' and 'class_iou' by folder; 'gap_closed' where all three are there; 'label_maps', how
      many; 'protocol'.

    Raises:
      UserError: folders that are empty or do not match, or a palette that does not exist.
    """
    classes, colours, void = _palette(palette)
    true_maps = labels.LabelMaps(_open('labels', truth), colours, void=void, label_ids=label_ids)
    folders = {'untranslated': untranslated, 'predictions': predictions, 'oracle': oracle}
    folders = {name: path for name, path in folders.items() if path}
    found, ious, closed = {}, {}, {}
    for name, path in folders.items():
        predicted = labels.LabelMaps(_open(name, path), colours, label_ids=label_ids)
        counts = labels.confusion_of_files(true_maps, predicted, len(colours))
        found[name] = labels.scores(counts, legacy)
        ious[name] = dict(zip(classes, labels.class_ious(counts).tolist(), strict=True))
    if len(found) == 3:
        closed = {
            score: labels.gap_closed(value, found['untranslated'][score], found['oracle'][score])
            for score, value in found['predictions'].items()
            if scores.SCORES[score].better
        }
    return {
        'scores': found,
        'class_iou': ious,
        'gap_closed': closed,
        'label_maps': len(true_maps),
        'protocol': {
            'formula': 'legacy' if legacy else 'means over the classes in the truth',
            'palette': palette,
            'label_ids': label_ids,
            'labels': str(truth),
            **{name: str(path) for name, path in folders.items()},
            'scored_files': true_maps.names,
            **report.protocol((), None),
        },
    }


class Numbered(Folder):
    """The pictures of a folder in the order of the numbers in their names: 2 before 10."""

    def __init__(self, *args):
        super().__init__(*args)
        parts = {path: re.split(r'(\d+)', str(path)) for path in self._paths}
        self._paths.sort(key=lambda path: [int(p) if p.isdigit() else p for p in parts[path]])


def _palette(name: str) -> tuple[Sequence[str], np.ndarray, np.ndarray | None]:
    """Names of classes, their colours, and colours that are void."""
    check_choice('--palette', name, ('cityscapes', *synthetic.NAMES))
    if name != 'cityscapes':
        return synthetic.CLASSES[name], synthetic.PALETTES[name], None
    colours = np.array(list(labels.CITYSCAPES.values()), np.uint8)
    return list(labels.CITYSCAPES), colours, labels.CITYSCAPES_VOID


def _lacking_frames(sizes: Mapping[str, Mapping[str, int]]) -> str:
    """Why frames of these sizes, {folder: {size: how many}}, cannot be scored; '' if they can."""
    if 'input' not in sizes:
        return 'needs --input, the frames that were translated'
    if any(len(sizes[name]) > 1 for name in ('fake', 'input')):
        return 'needs frames of one size'
    return '' if sum(sizes['fake'].values()) > 1 else 'needs two frames at least'


def _partners(folders: Mapping[str, Folder], name: str) -> View | None:
    """The pictures of another folder that belong to those of --fake, in their order."""
    if name not in folders:
        return None
    other = folders[name]
    places = paired.match(_names(folders['fake']), _names(other), f'--fake and --{name}')
    return View(other.__getitem__, places)


def _open(flag: str, path: PathLike, kind: type[Folder] = Folder) -> Folder | clips.Frames:
    """The pictures of a folder, or the frames of a video, that a flag names.

    Raises:
      UserError: no such folder, or no picture in it.
    """
    flag = f'--{flag.replace("_", "-")}'
    if clips.is_clip(path) and Path(path).is_file():
        return clips.Frames(path)
    if not Path(path).is_dir():
        raise UserError(f'{flag}={path} is not a folder')
    return kind(str(path), '', 3)


def _names(folder: Folder) -> list[str]:
    return [folder.name(i) for i in range(len(folder))]


def _sizes(folder: Folder) -> dict[str, int]:
    """How many pictures there are of each size, 'height x width'."""
    sizes = (folder.size(i) for i in range(len(folder)))
    return dict(collections.Counter(f'{height} x {width}' for height, width in sizes))


def _formats(folder: Folder) -> dict[str, int]:
    return dict(collections.Counter(Path(name).suffix.lower() for name in _names(folder)))


def _warnings(fake: Folder, sizes: Mapping[str, Mapping[str, int]]) -> list[str]:
    found = []
    if len({size for name in ('fake', 'real') for size in sizes.get(name, ())}) > 1:
        found.append('pictures differ in size: how sharp they are is scored too')
    if _formats(fake).keys() & {'.jpg', '.jpeg'}:
        found.append('--fake has JPEG files, whose artefacts are scored too: write PNG')
    if _formats(fake).keys() & set(clips.SUFFIXES):
        found.append('--fake is a video, whose compression is scored too')
    return found
