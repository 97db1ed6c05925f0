"""Label scores: which class each pixel shows, against which it should show.

Formulas of the Cityscapes evaluation of pytorch-CycleGAN-and-pix2pix (scripts/eval_cityscapes): one
confusion matrix for the whole test set, rows are the truth, void pixels dropped.
"""

import numpy as np
from PIL import Image
from tqdm import tqdm

from cyclegan_jax.data import images
from cyclegan_jax.data.sources import Folder
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import paired

VOID = 255

# The 19 classes that Cityscapes is scored on, in the order of their train ids.
CITYSCAPES = {
    'road': (128, 64, 128),
    'sidewalk': (244, 35, 232),
    'building': (70, 70, 70),
    'wall': (102, 102, 156),
    'fence': (190, 153, 153),
    'pole': (153, 153, 153),
    'traffic light': (250, 170, 30),
    'traffic sign': (220, 220, 0),
    'vegetation': (107, 142, 35),
    'terrain': (152, 251, 152),
    'sky': (70, 130, 180),
    'person': (220, 20, 60),
    'rider': (255, 0, 0),
    'car': (0, 0, 142),
    'truck': (0, 0, 70),
    'bus': (0, 60, 100),
    'train': (0, 80, 100),
    'motorcycle': (0, 0, 230),
    'bicycle': (119, 11, 32),
}
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
# Files named labelIds, and those of GTA5, number all classes: these become train ids 0 to 18.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def decode(image: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The class whose colour is nearest to each pixel's (Euclid, RGB).

    Args:
      image: uint8 (..., 3).
      palette: uint8 (classes, 3).

    Returns:
      uint8 (...). Of two colours at the same distance the first counts.
    """
    # Row by row of the palette: a pixel holds one distance at a time, not one for each class.
    nearest = np.full(image.shape[:-1], np.iinfo(np.int32).max)
    classes = np.zeros(image.shape[:-1], np.uint8)
    for number, colour in enumerate(palette.astype(np.int32)):
        distance = ((image - colour) ** 2).sum(axis=-1)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        classes[closer] = number
    return classes


def to_train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Cityscapes' labelIds as the 19 train ids; everything that is not scored becomes void."""
    table = np.full(256, VOID, np.uint8)
    table[list(CITYSCAPES_LABEL_IDS)] = np.arange(len(CITYSCAPES_LABEL_IDS))
    return table[label_ids]


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts of pixels by true class (rows) and predicted class (columns).

    Args:
      truth: uint8, of any shape; 255 is void and not counted.
      predicted: uint8, of the same shape.

    Returns:
      int64 (classes, classes).

    Raises:
      UserError: shapes that differ, or a class that does not exist.
    """
    if truth.shape != predicted.shape:
        raise UserError(f'labels are {truth.shape} but their predictions {predicted.shape}')
    counted = truth != VOID
    truth, predicted = truth[counted], predicted[counted]
    for name, values in (('labels', truth), ('predictions', predicted)):
        if values.size and values.max() >= classes:
            raise UserError(
                f'{name} contain class {values.max()}; there are classes 0 to {classes - 1}, and '
                f'{VOID} for void labels'
            )
    cells = classes * truth.astype(np.int64) + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


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
                classes = decode(images.decode(path), self._palette)
                classes[classes >= self._classes] = VOID
                return classes
            if image.format == 'JPEG':
                raise images.ImageError(path, 'JPEG changes class numbers; write label maps as PNG')
            classes = np.asarray(image)
        if classes.max() > VOID:
            raise images.ImageError(path, f'{classes.max()} is not the number of a class')
        classes = classes.astype(np.uint8)
        return to_train_ids(classes) if self._label_ids else classes


def confusion_of_files(truth: LabelMaps, predictions: LabelMaps, classes: int) -> np.ndarray:
    """One confusion matrix, see `confusion`, of all files of two folders, paired by name.

    Raises:
      UserError: names or sizes that do not match, or classes that do not exist; it names the file.
    """
    partners = paired.match(truth.names, predictions.names, '--labels and the predictions')
    counts = np.zeros((classes, classes), np.int64)
    for number, partner in enumerate(tqdm(partners, 'label maps', leave=False, disable=None)):
        try:
            counts += confusion(truth[number], predictions[partner], classes)
        except images.ImageError:
            raise
        except UserError as error:
            raise UserError(f'{predictions.names[partner]}: {error}') from error
    return counts


def scores(counts: np.ndarray, legacy: bool = False) -> dict[str, float]:
    """Scores of a confusion matrix, all in [0, 1].

    Means are over the classes that the truth contains. `legacy` is the paper's own script: an
    absent class scores 0 and enters the means. On all of Cityscapes both are the same.

    Args:
      counts: (classes, classes), rows are the truth.

    Returns:
      pixel_accuracy, class_accuracy, class_iou, weighted_iou (IoU by how often a class occurs) and
      classes_present.

    Raises:
      UserError: there is not one labelled pixel.
    """
    if not counts.sum():
        raise UserError('no pixel has a label: all are void; there is nothing to score')
    correct, true = np.diag(counts), counts.sum(axis=1)
    present = true > 0
    accuracy, iou = correct / np.maximum(true, 1), class_ious(counts)
    averaged = slice(None) if legacy else present
    return {
        'pixel_accuracy': float(correct.sum() / counts.sum()),
        'class_accuracy': float(accuracy[averaged].mean()),
        'class_iou': float(iou[averaged].mean()),
        'weighted_iou': float((true / counts.sum() * iou).sum()),
        'classes_present': int(present.sum()),
    }


def class_ious(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; 0 for one that occurs nowhere."""
    correct = np.diag(counts)
    union = counts.sum(axis=1) + counts.sum(axis=0) - correct
    return correct / np.maximum(union, 1)


def gap_closed(score: float, untranslated: float, oracle: float) -> float:
    """How much of the way from `untranslated` to `oracle` a score has come: 0 none, 1 all.

    The oracle has learnt from real images with labels (tables of CyCADA, Hoffman et al. 2018). NaN
    where there is no gap.
    """
    gap = oracle - untranslated
    return (score - untranslated) / gap if gap else float('nan')
