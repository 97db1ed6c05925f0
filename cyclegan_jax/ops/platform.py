"""The one place where a form is chosen: by the platform that a program is for."""

import functools
from collections.abc import Callable

import jax
from jax import lax

# 'cpu', 'gpu' or 'tpu': a program for that platform is traced. 'every': one for all of them, which
# chooses where it is compiled. '': the platform that JAX computes on; tracing the forms of all for
# it would take twice the time.
target = jax.make_user_context('')

# How many devices a batch is split over: where a form is for few images, a device's share counts.
devices = jax.make_user_context(1)


def platform() -> str:
    """What is traced for: 'cpu', 'gpu', 'tpu' or 'every'."""
    return target.value or jax.default_backend()


def by_platform(default: Callable, *arrays: jax.Array, static: dict, **forms: Callable):
    """Calls `default`, or the form for 'cpu', 'cuda' or 'tpu', on `arrays`, **static."""
    if platform() != 'every':
        form = forms.get('cuda' if platform() == 'gpu' else platform(), default)
        return form(*arrays, **static)
    forms = {name: functools.partial(form, **static) for name, form in forms.items()}
    return lax.platform_dependent(*arrays, default=functools.partial(default, **static), **forms)


def after(earlier, later):
    """The tree of floats `later`, which wait until all arrays of the tree `earlier` are known.

    What is needed for the one and what is needed for the other are then not in memory together.
    """
    return by_platform(_behind_barrier, later, earlier, cpu=_behind_sum, static={})


def _behind_barrier(later, earlier):
    return lax.optimization_barrier((later, earlier))[0]


def _behind_sum(later, earlier):
    # XLA's CPU backend drops barriers, but not a sum, though it is of zeros.
    nothing = 0 * sum(leaf.ravel()[0] for leaf in jax.tree.leaves(earlier))
    return jax.tree.map(lambda x: x + nothing, later)
