"""What discriminators see is disturbed at random, so that they learn few pictures less by heart.

Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738): the same on real and on generated
images, also where the generators learn from the answer, so that no disturbance is ever worth
imitating. Each image draws its own. The paper's cutout is left out: the part that it hides is as
large as the whole field of view of a discriminator of patches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from cyclegan_jax.errors import check_choice

Array = jax.Array

_SHIFT = 8  # a shift is at most one eighth of a side


def brightness(images: Array, key: Array) -> Array:
    """Adds the same to all values of an image: U(-0.5, 0.5), a quarter of the range at most."""
    return images + _draw(images, key, -0.5, 0.5)


def saturation(images: Array, key: Array) -> Array:
    """Stretches the colours of each pixel about its grey: times U(0, 2)."""
    return _stretch(images, _draw(images, key, 0.0, 2.0), axis=3)


def contrast(images: Array, key: Array) -> Array:
    """Stretches the values of an image about their mean: times U(0.5, 1.5)."""
    return _stretch(images, _draw(images, key, 0.5, 1.5), axis=(1, 2, 3))


def shift(images: Array, key: Array) -> Array:
    """Moves an image by up to an eighth of its height and of its width; what comes in is 0."""
    most = [side // _SHIFT for side in images.shape[1:3]]
    padded = jnp.pad(images, ((0, 0), *((side, side) for side in most), (0, 0)))
    starts = [
        jax.random.randint(each, images.shape[:1], 0, 2 * side + 1)
        for each, side in zip(jax.random.split(key), most, strict=True)
    ]

    def cut(image, top, left):
        return lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(cut)(padded, *starts)


# In the order in which they are applied.
KINDS = {'brightness': brightness, 'saturation': saturation, 'contrast': contrast, 'shift': shift}


def make_augmentation(names: str) -> Callable[[Array, Array], Array]:
    """Builds (images, key) -> images: (n, h, w, c) in [-1, 1] to the same shape, in a wider range.

    Args:
      names: of KINDS, comma-separated; '' leaves images as they are.

    Raises:
      UserError: a kind that does not exist.
    """
    chosen = [name.strip() for name in names.split(',') if name.strip()]
    for name in chosen:
        check_choice('augment', name, list(KINDS))

    def augment(images: Array, key: Array) -> Array:
        for number, (name, disturb) in enumerate(KINDS.items()):
            if name in chosen:
                images = disturb(images, jax.random.fold_in(key, number))
        return images

    return augment


def _draw(images: Array, key: Array, low: float, high: float) -> Array:
    """A number for each image, (n, 1, 1, 1)."""
    return jax.random.uniform(key, (images.shape[0], 1, 1, 1), minval=low, maxval=high)


def _stretch(images: Array, factor: Array, axis: int | tuple[int, ...]) -> Array:
    mean = jnp.mean(images, axis=axis, keepdims=True)
    return mean + factor * (images - mean)
