"""The one place where a form is chosen: by the platform that a program is compiled for."""

import functools
from collections.abc import Callable

import jax
from jax import lax


def by_platform(default: Callable, *arrays: jax.Array, static: dict, **forms: Callable):
    """Calls `default`, or the form for 'cpu', 'cuda' or 'tpu', on `arrays`, **static."""
    forms = {name: functools.partial(form, **static) for name, form in forms.items()}
    return lax.platform_dependent(*arrays, default=functools.partial(default, **static), **forms)
