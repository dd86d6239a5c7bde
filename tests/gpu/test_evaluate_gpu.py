"""Quality measured on a GPU is the quality measured on a CPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from infero import evaluate, kernels, multiple_choice
from infero.kernels import formats
from infero.model import Model, random_model
from tests.conftest import tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
GPU = "cuda"


class Letters:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return [b % 211 for b in text.encode()]


def model_on(device: str, seed: int = 1, dtype: torch.dtype = torch.float32) -> Model:
    """The same random model wherever it is."""
    config = tiny_config(hidden_size=64, num_heads=4, head_dim=16, intermediate_size=96)
    model = random_model(config, seed=seed)

    def there(t: torch.Tensor | None) -> torch.Tensor | None:
        return None if t is None else t.to(device, dtype)

    layers = [dataclasses.replace(layer, **{k: there(t) for k, t in vars(layer).items()})
              for layer in model.layers]
    moved = {k: there(getattr(model, k)) for k in ("embedding", "head", "final_norm")}
    return dataclasses.replace(model, layers=layers, inv_freq=model.inv_freq.to(device), **moved)


@pytest.mark.parametrize(("length", "batch"), [(16, 3), (100, 1), (33, 8)])
def test_scores_are_the_cpu_s(length: int, batch: int) -> None:
    ids = torch.randint(0, 211, (150,), generator=torch.Generator().manual_seed(0))
    want = evaluate.evaluate(model_on("cpu"), ids, model_on("cpu", 2), length=length)
    models = model_on(GPU), model_on(GPU, 2)
    kept = evaluate.reference(models[1], ids, length=length, batch=batch)
    assert kept.logprobs.is_cuda
    for reference in (models[1], kept):
        got = evaluate.evaluate(models[0], ids, reference, length=length, batch=batch)
        for name in ("nll", "kl", "top1", "nll_change", "kl_error"):
            assert getattr(got, name) == pytest.approx(getattr(want, name), abs=5e-4), name


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantized_models_run(kind: formats.Kind, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 211, (90,), generator=torch.Generator().manual_seed(0))
    model = model_on(GPU, dtype=dtype)
    small = formats.quantize_model(model, kind, group=32)
    score = evaluate.evaluate(small, ids, model, length=40, batch=2)
    assert 0 < score.kl < 0.3


def test_answers_are_the_cpu_s() -> None:
    found = []
    with kernels.using(kernels="auto"):
        for device in ("cpu", GPU):
            model = model_on(device)
            model.tokenizer = Letters()  # type: ignore[assignment]
            found.append(multiple_choice.answer(model, multiple_choice.questions()[:12], batch=5))
    torch.testing.assert_close(torch.tensor(found[0].margins), torch.tensor(found[1].margins),
                               atol=1e-3, rtol=1e-3)
