"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

The image is cut into tiles of 6x6 pixels that overlap by two. In a transformed space a tile's 4x4
results are its product with the kernel, entry by entry, which sums over channels to 36 matrix
products (Lavin and Gray 2016, section 4.3, has the matrices). All three transforms are linear, so
the gradients are the same products between transposed transforms. Rounding errors are near 1e-5 of
the largest value, where the direct sum has 1e-6; TF32 has 1e-3. All of it is float32, whatever the
type of the images.

A large array is only ever read in slices and summed entry by entry, or multiplied by a small matrix
from the left: what XLA's CPU backend is good at.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)


def convolve(x: Array, kernel: Array) -> Array:
    """Convolution without padding: (n, h + 2, w + 2, i), (3, 3, i, o) to (n, h, w, o)."""
    n, height, width = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
    tiles_y, tiles_x = -(-height // 4), -(-width // 4)
    products = jnp.einsum('pti,pio->pto', _input(x), _kernel(kernel))
    y = np.kron(_OUTPUT, _OUTPUT) @ products.reshape(36, -1)
    y = y.reshape(4, 4, n, tiles_y, tiles_x, -1).transpose(2, 3, 0, 4, 1, 5)
    y = y.reshape(n, 4 * tiles_y, 4 * tiles_x, -1)[:, :height, :width]
    return y.astype(x.dtype)


def gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """From the gradient of `convolve`'s output to those of its input and of its kernel."""
    (n, height, width, features), inputs = gradient.shape, x.shape[-1]
    tiles_y, tiles_x = -(-height // 4), -(-width // 4)
    y = jnp.pad(gradient, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
    y = y.reshape(n, tiles_y, 4, tiles_x, 4, features).transpose(2, 4, 0, 1, 3, 5)
    products = np.kron(_OUTPUT, _OUTPUT).T @ y.reshape(16, -1)
    products = products.reshape(36, -1, features)

    kernel_gradient = jnp.einsum('pti,pto->pio', _input(x), products)
    kernel_gradient = np.kron(_KERNEL, _KERNEL).T @ kernel_gradient.reshape(36, -1)

    tiles = jnp.einsum('pto,pio->pti', products, _kernel(kernel))
    tiles = np.kron(_INPUT, _INPUT).T @ tiles.reshape(36, -1)
    tiles = tiles.reshape(6, 6, n, tiles_y, tiles_x, inputs)
    tiles = _add_overlaps(_add_overlaps(tiles, entry=0, tile=3), entry=1, tile=4)
    x_gradient = tiles.transpose(2, 3, 0, 4, 1, 5)
    x_gradient = x_gradient.reshape(n, 4 * tiles_y + 4, 4 * tiles_x + 4, inputs)
    x_gradient = x_gradient[:, : height + 2, : width + 2].astype(x.dtype)
    return x_gradient, kernel_gradient.reshape(kernel.shape).astype(kernel.dtype)


def _input(x: Array) -> Array:
    """(n, h + 2, w + 2, i) to (36, tiles, i)."""
    x = jnp.pad(x, ((0, 0), (0, (2 - x.shape[1]) % 4), (0, (2 - x.shape[2]) % 4), (0, 0)))
    columns = _transform(x, axis=2)  # (6, n, h + 2, tiles_x, i)
    return _transform(columns, axis=2).reshape(36, -1, x.shape[-1])


def _transform(x: Array, axis: int) -> Array:
    """_INPUT, applied to all tiles along an axis; its six results come first."""
    last = x.shape[axis] - 6
    entries = [lax.slice_in_dim(x, i, i + last + 1, 4, axis) for i in range(6)]
    # Written as sums, since half of the matrix is 0: twice as quick as the product.
    return jnp.stack(
        [sum(w * entry for w, entry in zip(row, entries, strict=True) if w) for row in _INPUT]
    )


def _kernel(kernel: Array) -> Array:
    """(3, 3, i, o) to (36, i, o)."""
    product = np.kron(_KERNEL, _KERNEL) @ kernel.reshape(9, -1)
    return product.reshape(36, *kernel.shape[2:])


def _add_overlaps(tiles: Array, *, entry: int, tile: int) -> Array:
    """Adds entries 4 and 5 of each tile to 0 and 1 of the next, along the axes `entry`, `tile`.

    Six entries become four, and there is one tile more.
    """
    own = lax.slice_in_dim(tiles, 0, 4, axis=entry)
    following = lax.slice_in_dim(tiles, 4, 6, axis=entry)
    own_pads, following_pads = [(0, 0)] * tiles.ndim, [(0, 0)] * tiles.ndim
    own_pads[tile], following_pads[tile], following_pads[entry] = (0, 1), (1, 0), (0, 2)
    return jnp.pad(own, own_pads) + jnp.pad(following, following_pads)
