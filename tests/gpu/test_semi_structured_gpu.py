"""2:4 weights on the sparse tensor cores."""

from __future__ import annotations

import pytest
import torch

from infero.compress import magnitude, semi_structured
from infero.llm import LLM
from infero.model import ModelConfig, random_model
from infero.sampling import SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]


def needs_sparse_cores() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("sparse tensor cores need compute capability 8.0")


@pytest.mark.parametrize("backend", semi_structured.BACKENDS)
@pytest.mark.parametrize("tokens", [1, 7, 64, 300])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_product(backend: str, tokens: int, dtype: torch.dtype) -> None:
    needs_sparse_cores()
    g = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(192, 256, device="cuda", generator=g).to(dtype) / 16
    weight = magnitude.prune(weight, pattern=(2, 4))
    stored = semi_structured.native(weight, backend)
    if stored is None:
        pytest.skip(f"this build of PyTorch has no {backend}")
    x = torch.randn(tokens, 256, device="cuda", generator=g).to(dtype)
    bias = torch.randn(192, device="cuda", generator=g).to(dtype)
    want = x.double() @ weight.double().T
    torch.testing.assert_close(stored.multiply(x).double(), want, rtol=2e-2, atol=2e-2)
    with torch.inference_mode():
        torch.testing.assert_close(stored.multiply(x, bias).double(), want + bias.double(),
                                   rtol=2e-2, atol=2e-2)
    assert stored.nbytes <= weight.nbytes * 5 // 8
    assert torch.equal(stored.dequantize(), weight)


def test_the_engine_runs_2_of_4() -> None:
    needs_sparse_cores()
    config = ModelConfig("llama", 512, 256, 512, 2, 4, 2, 64, 512)
    model = random_model(config, dtype=torch.bfloat16, device="cuda")
    for layer in model.layers:
        for name in semi_structured.MATRICES:
            setattr(layer, name, magnitude.prune(getattr(layer, name), pattern=(2, 4)))
    smaller = semi_structured.sparsify(model)
    assert smaller.parameter_bytes() < model.parameter_bytes()
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, logprobs=5)
    prompt = list(range(1, 40))
    want = LLM(model, max_num_seqs=2).generate(prompt, params)[0].completions[0]
    got = LLM(smaller, max_num_seqs=2).generate(prompt, params)[0].completions[0]
    assert got.logprobs is not None and want.logprobs is not None
    assert got.tokens[0] in want.logprobs[0].top
