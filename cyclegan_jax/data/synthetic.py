"""Two small unpaired data sets whose true translation is known, drawn by numpy.

`stripes` is horse2zebra in small: brown animals in A, black and white ones in B, on the same
grass and sky. The stripes lie on a fixed grid of period 4, so that the translation has one right
answer, and one that a generator of stride 4 can see. `labels` turns flat class colours (A) into a
"photo" (B) that is a deterministic function of the class map.

Lengths are in units of the image's height; y points down. Colours keep 5 % headroom from 0 and
255, so that shading never clips.
"""

import numpy as np

NAMES = ('stripes', 'labels')
NUM_IMAGES = {'train': 512, 'test': 64}
# A and B never share a training scene; test image i of A and of B show the same one.
FIRST_SCENE = {
    ('a', 'train'): 0,
    ('b', 'train'): 10**6,
    ('a', 'test'): 2 * 10**6,
    ('b', 'test'): 2 * 10**6,
}
CLASSES = {
    'stripes': ('sky', 'grass', 'animal'),
    'labels': ('sky', 'tree', 'building', 'road', 'car', 'grass'),
}
SKY, TREE, BUILDING, ROAD, CAR, GRASS = range(6)
# Domain A's colour of each class, by which the nearest colour tells the class: uint8 (classes, 3).
# `labels` shows exactly these colours, `stripes` shades them.
PALETTES = {
    'stripes': np.array([(164, 196, 224), (96, 136, 62), (126, 71, 36)], np.uint8),
    'labels': np.array(
        [
            (70, 130, 180),
            (107, 142, 35),
            (70, 70, 70),
            (128, 64, 128),
            (20, 24, 142),
            (152, 236, 152),
        ],
        np.uint8,
    ),
}
PHOTO = np.array(
    [(150, 192, 226), (52, 96, 44), (176, 138, 108), (108, 108, 114), (184, 44, 36), (112, 150, 70)]
)
# Brightness patterns of period 4, one for each class of `labels`: leaves, windows, asphalt, blades.
_flat = np.zeros((4, 4))
TEXTURES = np.stack(
    [
        _flat,
        [[14, -10, 4, -16], [-14, 8, -12, 16], [8, -16, 14, -6], [-10, 12, -14, 10]],
        [[16, 16, 16, 16], [16, -44, -44, 16], [16, -44, -44, 16], [16, 16, 16, 16]],
        [[6, -6, 2, -4], [-4, 4, -6, 6], [2, -6, 6, -4], [-4, 6, -4, 4]],
        _flat,
        [[14, -8, 4, -8], [-6, -8, 14, -8], [10, -6, -8, 2], [-8, 8, -8, 12]],
    ]
)

# An animal that faces right, as capsules (x0, y0, radius0, x1, y1, radius1) in body lengths.
ANIMAL = np.array(
    [
        (-0.48, 0.00, 0.25, 0.36, -0.02, 0.22),  # trunk
        (0.38, -0.08, 0.17, 0.66, -0.46, 0.10),  # neck
        (0.66, -0.50, 0.11, 0.92, -0.34, 0.07),  # head
        (0.60, -0.56, 0.05, 0.58, -0.72, 0.02),  # ear
        (-0.58, 0.05, 0.11, -0.62, 0.70, 0.05),  # legs
        (-0.38, 0.10, 0.09, -0.34, 0.70, 0.05),
        (0.24, 0.10, 0.09, 0.20, 0.70, 0.05),
        (0.42, 0.05, 0.10, 0.46, 0.70, 0.05),
        (-0.70, -0.10, 0.04, -0.84, 0.36, 0.03),  # tail
    ]
)
FEET, REACH = 0.73, 1.0  # from the middle of the trunk: down to the ground, and to the muzzle


def render(name: str, scene: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Draws one scene as both domains see it.

    Args:
      name: 'stripes' or 'labels'.
      scene: number of the scene, which alone decides what is in it.
      size: (height, width) in pixels.

    Returns:
      Image of domain A and of domain B, uint8 (height, width, 3), and the class of each pixel,
      uint8 (height, width), an index into `CLASSES[name]`.
    """
    a, b, labels = draw(name, scene, size)
    return _to_uint8(a), _to_uint8(b), labels


def draw(name: str, scene: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """As `render`, but for the images, which are not rounded: float64, of the same range."""
    height, width = size
    # RandomState's streams are frozen, those of numpy's newer generators are not.
    random = np.random.RandomState(scene)
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None] + 0.5) / height
    a, b, labels = {'stripes': _stripes, 'labels': _labels}[name](random, y, x)
    return np.asarray(a, float), b, labels.astype(np.uint8)


def in_bands(image: np.ndarray, channels: int) -> np.ndarray:
    """Colours (height, width, 3) as so many bands, from red over green to blue; green, if one."""
    places = np.linspace(0, 2, channels) if channels > 1 else np.ones(1)
    mix = np.maximum(0, 1 - np.abs(places - np.arange(3)[:, None]))
    return image @ mix


def _stripes(random: np.random.RandomState, y: np.ndarray, x: np.ndarray):
    horizon = random.uniform(0.28, 0.42) + 0.02 * _waves(random, 0 * y, x, 1.5)
    clouds = np.clip(_waves(random, 3 * y, x, 1.2), 0, 1)
    sky = _mix((112, 162, 216), (196, 216, 230), y / horizon)
    sky = _mix(sky, (236, 238, 240), 0.8 * clouds)
    depth = (y - horizon) / (1 - horizon)
    grass = _mix((128, 160, 84), (72, 122, 46), depth)
    grass = grass * (1 + 0.07 * _waves(random, 2 * y, x, 4.0))[..., None]
    on_grass = np.clip((y - horizon) * len(y) + 0.5, 0, 1)
    a = _mix(sky, grass, on_grass)
    labels = (on_grass > 0.5).astype(int)
    b = a.copy()

    count = random.randint(1, 4)
    length = random.uniform(0.41, 0.46, count) / np.sqrt(count)
    ground = np.sort(random.uniform(0.62, 0.95, count))  # the nearest is drawn last
    middle = (np.arange(count) + random.uniform(0.3, 0.7, count)) / count * x[0, -1]
    random.shuffle(middle)
    facing = random.choice((-1, 1), count)
    # Mirrored about the middle of its period, so that a horizontal flip keeps the phase.
    coat_b = np.where(np.arange(x.size) % 4 % 3 == 0, 240, 18)[None, :, None]
    for i in range(count):
        up = ground[i] - FEET * length[i]
        rows = _span(y[:, 0], up, 0.95 * length[i])
        columns = _span(x[0], middle[i], (REACH + 0.05) * length[i])
        local_y = (y[rows] - up) / length[i]
        local_x = (x[:, columns] - middle[i]) / length[i] * facing[i]
        shadow = 1 - (local_x / 0.8) ** 2 - ((local_y - FEET) / 0.12) ** 2
        shadow = 1 - 0.4 * np.clip(shadow, 0, 1)[..., None]
        inside = np.clip(0.5 - _distance(local_y, local_x) * length[i] * len(y), 0, 1)
        light = np.clip(1.0 - 0.24 * local_y, 0.8, 1)[..., None]
        for image, coat in ((a, (132, 74, 36)), (b, coat_b[:, columns])):
            patch = np.maximum(image[rows, columns] * shadow, 12.5)  # of a black coat, too
            image[rows, columns] = _mix(patch, np.maximum(coat * light, 13), inside)
        labels[rows, columns][inside > 0.5] = 2
    return a, b, labels


def _labels(random: np.random.RandomState, y: np.ndarray, x: np.ndarray):
    width = x[0, -1]
    horizon = random.uniform(0.42, 0.56)
    labels = np.where(y + 0 * x < horizon, SKY, GRASS)

    def box(kind, top, bottom, left, right):
        labels[(y >= top) & (y < bottom) & (x >= left) & (x < right)] = kind

    for _ in range(random.randint(2, 5)):
        left, top = random.uniform(-0.1, width), horizon - random.uniform(0.1, 0.36)
        box(BUILDING, top, horizon + 0.03, left, left + random.uniform(0.16, 0.32))
    vanishing, slant = random.uniform(0.3, 0.7) * width, random.uniform(-0.5, 0.5)
    below = y - horizon
    middle = vanishing + slant * below
    labels[(below > 0) & (np.abs(x - middle) < 0.03 + random.uniform(0.4, 0.7) * below)] = ROAD
    for _ in range(random.randint(2, 5)):
        stem, foot = random.uniform(0, width), horizon + random.uniform(0.02, 0.2)
        radius = random.uniform(0.08, 0.15)
        crown = foot - 2.2 * radius
        box(TREE, crown, foot, stem - 0.025, stem + 0.025)
        labels[(y - crown) ** 2 + (x - stem) ** 2 < radius**2] = TREE
    for foot in np.sort(random.uniform(horizon + 0.14, 0.96, random.randint(1, 3))):
        length = 0.5 * (foot - horizon) + 0.08
        left = vanishing + slant * (foot - horizon) - length * random.uniform(0.2, 0.8)
        box(CAR, foot - 0.35 * length, foot, left, left + length)
        box(CAR, foot - 0.62 * length, foot, left + 0.2 * length, left + 0.8 * length)

    rows, columns = np.arange(y.size)[:, None] % 4, np.arange(x.size)[None] % 4
    flat = PHOTO[labels]
    b = 0.5 * flat + 0.5 * _box_mean(flat) + TEXTURES[labels, rows, columns][..., None]
    return PALETTES['labels'][labels], b, labels


def _distance(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Signed distance to the animal, negative inside; all in body lengths."""
    x0, y0, r0, x1, y1, r1 = ANIMAL.T[:, :, None, None]
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx**2 + dy**2), 0, 1)
    gap = np.sqrt((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    return (gap - r0 - along * (r1 - r0)).min(axis=0)


def _span(coordinates: np.ndarray, middle: float, reach: float) -> slice:
    start, stop = np.searchsorted(coordinates, (middle - reach, middle + reach))
    return slice(start, stop)


def _waves(random: np.random.RandomState, y: np.ndarray, x: np.ndarray, frequency: float):
    """Smooth noise in [-1, 1]: the mean of three plane waves, in waves per unit length."""
    fy, fx, phase = 2 * np.pi * random.uniform(-1, 1, (3, 3, 1, 1))
    along_y, along_x = frequency * fy * y + phase, frequency * fx * x
    # sin(along_y + along_x), by sines of rows and columns alone: 64 times fewer.
    waves = np.sin(along_y) * np.cos(along_x) + np.cos(along_y) * np.sin(along_x)
    return waves.mean(axis=0)


def _mix(first, second, share: np.ndarray) -> np.ndarray:
    """Colours between `first` (share 0) and `second` (share 1)."""
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(first) * (1 - share) + np.asarray(second) * share


def _box_mean(image: np.ndarray) -> np.ndarray:
    """Mean over 5 x 5 pixels: soft borders."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='edge')
    columns = sum(padded[:, i : i + width] for i in range(5))
    return sum(columns[i : i + height] for i in range(5)) / 25


def _to_uint8(image: np.ndarray) -> np.ndarray:
    assert image.min() >= 12 and image.max() <= 243, 'a palette without headroom'
    return np.rint(image).astype(np.uint8)
