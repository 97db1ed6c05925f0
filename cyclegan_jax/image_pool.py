"""A history of generated images for the discriminators (Shrivastava et al. 2017), as a pure buffer.

The images are spread over the slots of the batch: slot i of a batch has a history of its own, that
is ceil(size / batch) images long. At batch 1 that is the reference's pool. At any other an image
stays in the history for about as many later images, and since a slot never looks at another one,
the pool is sharded with the batch and needs no communication.
"""

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class ImagePool:
    """images: (batch, capacity, h, w, c) float32; count: int32, how many a slot has stored."""

    images: Array
    count: Array

    @classmethod
    def create(cls, size: int, batch_shape: tuple[int, int, int, int]) -> 'ImagePool':
        """An empty pool for batches of shape (n, h, w, c); `size` is rounded up to n's multiple."""
        capacity = -(-size // batch_shape[0])
        images = jnp.zeros((batch_shape[0], capacity, *batch_shape[1:]), jnp.float32)
        return cls(images, jnp.zeros((), jnp.int32))

    def query(self, images: Array, key: Array) -> tuple['ImagePool', Array]:
        """Returns the next pool, and for each image either itself or one from the history.

        Until it is full, a slot stores the image and returns it. From then on, with probability
        one half, it returns a stored image, drawn uniformly, and puts the new one in its place;
        otherwise it returns the new image and does not store it.

        Args:
          images: (n, h, w, c) float32, generated just now.
          key: a fresh random key.
        """
        capacity = self.images.shape[1]
        filling = self.count < capacity
        swap_key, index_key = jax.random.split(key)
        swap = jax.random.bernoulli(swap_key, 0.5, images.shape[:1])
        drawn = jax.random.randint(index_key, images.shape[:1], 0, capacity)

        def query_slot(history, image, swap, drawn):
            index = jnp.where(filling, self.count, drawn)
            stored = history[index]
            history = history.at[index].set(jnp.where(filling | swap, image, stored))
            return history, jnp.where(swap & ~filling, stored, image)

        history, images = jax.vmap(query_slot)(self.images, images, swap, drawn)
        return ImagePool(history, jnp.minimum(self.count + 1, capacity)), images
