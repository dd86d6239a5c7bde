"""The lab's quantized products and the grouped matmul, compiled, at real sizes."""

from __future__ import annotations

import pytest
import torch

from infero import grouped
from infero.kernels.steps import matmul as steps
from tests.kernels.test_steps_matmul import case, check_int4, check_int8

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]


@pytest.mark.parametrize(("tokens", "dtype"), [(1, torch.bfloat16), (33, torch.bfloat16),
                                                (7, torch.float16)])
def test_int4(tokens: int, dtype: torch.dtype) -> None:
    c = case(tokens, 1000, 4096, 128, dtype, "cuda")
    for function in (steps.int4_matvec, steps.int4_matmul, steps.int4_once,
                     steps.int4_split):
        check_int4(function, c)
    assert torch.equal(steps.unpack_nibbles(c.weight.words).cpu(), c.values.half())


def test_int4_with_tails_in_float32() -> None:
    check_int4(steps.int4_matmul, case(7, 130, 1152, 64, torch.float32, "cuda"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_int8(dtype: torch.dtype) -> None:
    check_int8(4, 1001, 2051, dtype, "cuda")


@pytest.mark.parametrize("tokens", [1, 200])
def test_grouped_without_waiting(tokens: int) -> None:
    g = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, 512, generator=g).bfloat16().cuda()
    weights = (torch.randn(8, 768, 512, generator=g) / 16).bfloat16().cuda()
    picks = torch.rand(tokens, 8, generator=g).topk(2).indices.cuda()
    grouped.grouped_matmul(x, weights, grouped.route(picks, 8))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        routing = grouped.route(picks, 8)
        got = grouped.grouped_matmul(x, weights, routing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    want = grouped.grouped_reference(x.double(), weights.double(), routing)
    torch.testing.assert_close(got.double(), want, rtol=2e-2, atol=2e-2)
