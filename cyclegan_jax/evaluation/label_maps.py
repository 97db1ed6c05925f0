"""Folders of label maps: what each pixel shows, as the number of its class or as a colour."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cyclegan_jax.data import images, synthetic
from cyclegan_jax.data.sources import Folder
from cyclegan_jax.evaluation import labels, pairing, report
from cyclegan_jax.evaluation.folders import open_folder

# Cityscapes' colours of what is not scored; in the truth, pixels nearest to these are void.
CITYSCAPES_VOID = np.array(
    [
        (0, 0, 0),  # unlabelled, ego vehicle, out of the region of interest, static
        (111, 74, 0),  # dynamic
        (81, 0, 81),  # ground
        (250, 170, 160),  # parking
        (230, 150, 140),  # rail track
        (180, 165, 180),  # guard rail
        (150, 100, 100),  # bridge
        (150, 120, 90),  # tunnel
        (0, 0, 90),  # caravan
        (0, 0, 110),  # trailer
    ],
    np.uint8,
)


class LabelMaps:
    """Label maps of a folder. A file of one channel or with a colour table holds class numbers.

    Args:
      folder: where the files are.
      palette: uint8 (classes, 3). Files in colour mean the class of the nearest of these.
      void: uint8 (n, 3), colours that mean no class.
      label_ids: class numbers are Cityscapes' labelIds, as in GTA5, not train ids.
    """

    def __init__(
        self,
        folder: Folder,
        palette: np.ndarray,
        *,
        void: np.ndarray | None = None,
        label_ids: bool = False,
    ):
        self.names = [folder.name(i) for i in range(len(folder))]
        self._classes, self._label_ids = len(palette), label_ids
        self._palette = palette if void is None else np.concatenate([palette, void])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> np.ndarray:
        """uint8 (h, w); 255 is void.

        Raises:
          images.ImageError: not a label map.
        """
        path = self.names[number]
        images.read_size(path)  # refuses what is no image before Pillow decodes it
        with Image.open(path, formats=images.FORMATS) as image:
            if image.mode not in ('1', 'L', 'P', 'I;16', 'I'):
                classes = labels.decode(images.decode(path), self._palette)
                classes[classes >= self._classes] = labels.VOID
                return classes
            if image.format == 'JPEG':
                raise images.ImageError(path, 'JPEG changes class numbers; write label maps as PNG')
            classes = np.asarray(image)
        if classes.max() > labels.VOID:
            raise images.ImageError(path, f'{classes.max()} is not the number of a class')
        classes = classes.astype(np.uint8)
        return labels.to_train_ids(classes) if self._label_ids else classes


def confusion(truth: LabelMaps, predictions: LabelMaps, classes: int) -> np.ndarray:
    """One confusion matrix, see `labels.confusion`, of all files of two folders, paired by name.

    Raises:
      ValueError: names or sizes that do not match, or classes that do not exist; it names the file.
    """
    partners = pairing.match(truth.names, predictions.names, '--labels and the predictions')
    counts = np.zeros((classes, classes), np.int64)
    for number, partner in enumerate(tqdm(partners, 'label maps', leave=False, disable=None)):
        try:
            counts += labels.confusion(truth[number], predictions[partner], classes)
        except images.ImageError:
            raise
        except ValueError as error:
            raise ValueError(f'{predictions.names[partner]}: {error}') from error
    return counts


def evaluate(args: argparse.Namespace) -> None:
    """Scores the label maps of `args.predictions`, prints a table, writes `args.output`.

    Raises:
      ValueError: folders that are empty or do not match, or a palette that does not exist.
    """
    if not args.labels:
        raise ValueError('--predictions=DIR wants --labels=DIR, the true label maps')
    classes, palette, void = _palette(args.palette)
    truth = LabelMaps(
        open_folder('labels', args.labels), palette, void=void, label_ids=args.label_ids
    )
    scores, ious = {}, {}
    for name in ('untranslated', 'predictions', 'oracle'):
        if path := getattr(args, name):
            predicted = LabelMaps(open_folder(name, path), palette, label_ids=args.label_ids)
            counts = confusion(truth, predicted, len(palette))
            scores[name] = labels.scores(counts, args.legacy)
            ious[name] = dict(zip(classes, labels.class_ious(counts).tolist(), strict=True))
    closed = {}
    if len(scores) == 3:
        closed = {
            score: labels.gap_closed(value, scores['untranslated'][score], scores['oracle'][score])
            for score, value in scores['predictions'].items()
            if score != 'classes_present'
        }
    columns = list(scores['predictions'])
    rows = [['', *columns], *([name, *_row(found, columns)] for name, found in scores.items())]
    if closed:
        rows.append(['gap closed', *_row(closed, columns)])
    print(f'{len(truth)} label maps of {len(classes)} classes\n{report.aligned(rows)}')
    if args.output:
        contents = {
            'scores': scores,
            'class_iou': ious,
            'gap_closed': closed,
            'label_maps': len(truth),
            'protocol': {
                'formula': 'legacy' if args.legacy else 'means over the classes in the truth',
                'palette': args.palette,
                'label_ids': args.label_ids,
                'labels': args.labels,
                **{name: getattr(args, name) for name in scores},
                'scored_files': truth.names,
                **report.protocol((), None),
            },
        }
        report.write(Path(args.output), contents)


def _palette(name: str) -> tuple[Sequence[str], np.ndarray, np.ndarray | None]:
    """Names of classes, their colours, and colours that are void."""
    if name == 'cityscapes':
        colours = np.array(list(labels.CITYSCAPES.values()), np.uint8)
        return list(labels.CITYSCAPES), colours, CITYSCAPES_VOID
    if name in synthetic.NAMES:
        return synthetic.CLASSES[name], synthetic.PALETTES[name], None
    choices = ', '.join(('cityscapes', *synthetic.NAMES))
    raise ValueError(f'--palette is {name!r}; choose from {choices}')


def _row(scores: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f'{scores[column]:.4g}' if column in scores else '' for column in columns]
