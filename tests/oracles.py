"""The packages that others compute FID and KID with, where they are installed.

pip install --no-deps pytorch-fid==0.3.0 torch-fidelity==0.4.0 clean-fid==0.1.35 torchvision
"""

import importlib
import types

import pytest

_kept = []


def oracle(name: str) -> types.ModuleType:
    """Imports a module of these packages, or skips the test."""
    torch = pytest.importorskip('torch')
    scipy = pytest.importorskip('scipy')
    if tuple(map(int, scipy.__version__.split('.')[:2])) >= (1, 18):
        pytest.skip(f'scipy {scipy.__version__} has no sqrtm(disp=), which {name} needs')
    # They import torchvision. Its usual wheel, beside a torch for CPUs, lacks these operators.
    if not _kept:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for operator in ('nms', 'qnms'):
            if not hasattr(torch.ops.torchvision, operator):
                arguments = 'Tensor dets, Tensor scores, float iou_threshold'
                library.define(f'{operator}({arguments}) -> Tensor')
        _kept.append(library)
    pytest.importorskip(name.partition('.')[0])
    return importlib.import_module(name)
