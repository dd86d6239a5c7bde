"""A rounding tried out: the model it gives is the one that the formats give."""

from __future__ import annotations

import torch

from infero.lab.configurations import tiny_model
from infero.llm import LLM
from infero.quant import affine, int8, simulate
from infero.quant.fold import MATRICES
from infero.sampling import SamplingParams


def tokens(model):
    params = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
    return LLM(model, kv_memory_bytes=1 << 20).generate([3, 1, 4], params)[0].tokens


def test_replacing_by_the_same_changes_nothing():
    model = tiny_model()
    asked = []

    def same(index, name, weight):
        asked.append((index, name))
        return simulate.Rounded(weight, lambda x: x)

    copy = simulate.replaced(model, same)
    assert asked == [(i, name) for i in range(2) for name in MATRICES]
    assert tokens(copy) == tokens(model)
    assert isinstance(model.layers[0].qkv, torch.Tensor), "the model itself is left alone"


def test_it_is_what_the_real_product_computes():
    x, weight = torch.randn(5, 32), torch.randn(7, 32)
    codes = affine.rtn(weight, 8)
    values = (codes.values.int() - 128).to(torch.int8)
    tried = simulate.Rounded(codes.dequantize(),
                             lambda x: affine.fake_quantize(x, 8, granularity="token"))
    assert tried.shape == (7, 32) and tried.dtype == torch.float32
    assert torch.allclose(tried.multiply(x), int8.linear_w8a8(x, values, codes.scales[:, 0]),
                          atol=1e-4)
