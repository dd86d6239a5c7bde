"""What Lab 13 demands of its five pieces: sectors counted, and four kernels of one row a program.

A kernel is run watched (`infero.lab.kernels.call`), on small random inputs whose widths are no
powers of two, against an oracle in float64. Chapter 13 explains the pieces.
"""

from __future__ import annotations

import torch

from infero.lab import kernels
from infero.lab.checking import Check


def rms_norm(c: Check) -> None:
    """Rows with tails, three dtypes, a weight that is not one."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for shape, eps in [((3, 70), 0.3), ((2, 3, 33), 1e-5), ((1, 130), 0.05)]:
            x = torch.randn(shape, generator=g) + 0.5
            w = torch.rand(shape[-1], generator=g) + 0.5
            d, wd = x.double(), w.double()
            ms = d.square().mean(-1, keepdim=True)
            axes = ("token", "head", "column") if len(shape) == 3 else ("row", "column")
            c.expect_close(kernels.call(c, x, w, eps), wd * d / (ms + eps).sqrt(), axes=axes,
                           dtype=torch.float32, atol=2e-5, rtol=2e-5)
