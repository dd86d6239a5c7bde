"""Bytes times bytes, compiled: the tests of tests/kernels once more on a GPU, and larger ones."""

from __future__ import annotations

import pytest
import torch

from infero.kernels import formats_dynamic, products
from tests.kernels import test_formats_dynamic as shared
from tests.kernels.test_formats_dynamic import (  # noqa: F401
    test_a_learners_product_is_called,
    test_bytes_times_bytes,
    test_neighbours_of_the_product,
    test_outliers_stay_as_they_are,
    test_the_kernel_rounds_as_pytorch_does,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]


@pytest.mark.parametrize("tokens", [1, 16, 64, 300])
@pytest.mark.parametrize(("out", "inputs"), [(6144, 4096), (4096, 14336)])
def test_the_products_of_8b(out: int, inputs: int, tokens: int) -> None:
    x = shared.rand(tokens, inputs, seed=1, dtype=torch.bfloat16)
    weight = formats_dynamic.quantize_w8a8(shared.rand(out, inputs, seed=2, dtype=torch.bfloat16))
    first = products.linear(x, weight)
    want = shared.exact(x, weight.values, weight.scales)
    assert (first.double() - want).norm() < 3e-3 * want.norm()
    assert torch.equal(first, products.linear(x, weight))
