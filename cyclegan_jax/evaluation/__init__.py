"""How good are the translations: scores of a run, of folders, of label maps, as plain results.

    from cyclegan_jax.evaluation import evaluate_folders
    evaluate_folders('fake', 'real', metrics=['swd'])['scores']['swd']

Imported on first use, since they bring JAX.
"""

import importlib

_ROOMS = {
    'evaluate_run': 'training_run',
    'evaluate_folders': 'folders',
    'evaluate_label_maps': 'folders',
}
__all__ = list(_ROOMS)


def __getattr__(name: str):
    if name in _ROOMS:
        return getattr(importlib.import_module(f'{__name__}.{_ROOMS[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
