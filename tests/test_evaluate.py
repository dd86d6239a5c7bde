"""Perplexity, KL and agreement against a float64 model of its own, and what must not change them.

The questions with four answers are tested here too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infero import evaluate as e
from infero import multiple_choice as mc
from infero.errors import ConfigError, LoadError, ParameterError
from infero.kernels import formats
from infero.model import Model, random_model
from tests.conftest import tiny_config

DATA = Path(e.__file__).parent / "data"


# ---------------------------------------------------------------- a model in float64


def oracle(model: Model, ids: list[int]) -> Tensor:
    """Log-probabilities [tokens, vocab] after each token of one window, in float64, by hand."""
    c = model.config
    x = model.embedding[ids].double()
    angles = torch.arange(len(ids)).double()[:, None] * model.inv_freq.double()
    hidden = torch.ones(len(ids), len(ids)).triu(1).bool()

    def norm(t: Tensor, weight: Tensor) -> Tensor:
        return t / (t.pow(2).mean(-1, keepdim=True) + c.norm_eps).sqrt() * weight.double()

    def turned(t: Tensor) -> Tensor:
        a, b = t.chunk(2, -1)
        return torch.cat((a * angles.cos() - b * angles.sin(),
                          b * angles.cos() + a * angles.sin()), -1)

    for layer in model.layers:
        heads = (norm(x, layer.input_norm) @ layer.qkv.double().T).view(len(ids), -1, c.head_dim)
        mixed = []
        for h in range(c.num_heads):
            kv = c.num_heads + h // (c.num_heads // c.num_kv_heads)
            q, k, v = turned(heads[:, h]), turned(heads[:, kv]), heads[:, kv + c.num_kv_heads]
            scores = (q @ k.T / math.sqrt(c.head_dim)).masked_fill(hidden, -math.inf)
            mixed.append(scores.softmax(-1) @ v)
        x = x + torch.cat(mixed, -1) @ layer.o.double().T
        gate, up = (norm(x, layer.post_norm) @ layer.gate_up.double().T).chunk(2, -1)
        x = x + (gate / (1 + (-gate).exp()) * up) @ layer.down.double().T
    return (norm(x, model.final_norm) @ model.head.double().T).log_softmax(-1)


def by_hand(model: Model, ids: list[int], length: int, other: Model | None = None
            ) -> tuple[Tensor, Tensor, Tensor]:
    """(nll, KL(other || model), whether both are of one mind), each [tokens - 1]."""
    nll, kl, same = [], [], []
    for start in range(0, len(ids) - 1, length):
        window = ids[start : start + length + 1]
        logp = oracle(model, window[:-1])
        nll += [-float(logp[i, t]) for i, t in enumerate(window[1:])]
        if other is not None:
            p = oracle(other, window[:-1])
            kl += (p.exp() * (p - logp)).sum(-1).tolist()
            same += (p.argmax(-1) == logp.argmax(-1)).tolist()
    return torch.tensor(nll), torch.tensor(kl), torch.tensor(same)


def some_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 211, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def near(model: Model, size: float = 0.1, seed: int = 3) -> Model:
    """The model with its weights moved a little."""
    generator = torch.Generator().manual_seed(seed)

    def moved(t: Tensor | None) -> Tensor | None:
        return None if t is None else t + size * t.std() * torch.randn(t.shape, generator=generator)

    return dataclasses.replace(model, layers=[
        dataclasses.replace(layer, **{k: moved(t) for k, t in vars(layer).items()})
        for layer in model.layers])


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize(("count", "length"), [(2, 1), (2, 64), (40, 7), (41, 8), (42, 8), (43, 8),
                                               (33, 32), (34, 32), (130, 64)])
def test_score_against_float64(tiny_model: Model, count: int, length: int) -> None:
    ids, other = some_ids(count), near(tiny_model)
    nll, kl, same = by_hand(other, ids, length, tiny_model)
    assert len(nll) == count - 1  # every token but the first, once
    score = e.evaluate(other, ids, tiny_model, length=length, batch=3)
    assert score.tokens == count - 1
    assert score.nll == pytest.approx(float(nll.mean()), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.nll))
    assert score.kl == pytest.approx(float(kl.mean()), abs=1e-5) and score.kl >= 0
    assert score.top1 == pytest.approx(float(same.double().mean()))
    base, _, _ = by_hand(tiny_model, ids, length)
    assert score.nll_change == pytest.approx(float((nll - base).mean()), abs=1e-5)
    assert score.perplexity_ratio == pytest.approx(math.exp(score.nll_change))


def test_batches_and_rows_change_nothing(tiny_model: Model,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    ids, other = some_ids(101), near(tiny_model)
    want = e.evaluate(other, ids, tiny_model, length=16, batch=1)
    for batch, rows in ((2, 256), (5, 1), (7, 3), (100, 16)):
        monkeypatch.setattr(e, "ROWS", rows)
        got = e.evaluate(other, torch.tensor(ids), tiny_model, length=16, batch=batch)
        for name, value in vars(want).items():
            assert getattr(got, name) == pytest.approx(value, abs=2e-6), name


def test_a_kept_reference_is_as_good_as_the_model(tiny_model: Model, tmp_path: Path) -> None:
    ids, other = some_ids(90), near(tiny_model)
    want = e.evaluate(other, ids, tiny_model, length=32)
    for folder in (None, tmp_path):
        kept = e.reference(tiny_model, ids, length=32, batch=1, folder=folder)
        assert kept.logprobs.shape == (89, 211) and kept.logprobs.dtype == torch.float16
        assert not list(tmp_path.iterdir())  # the file has no name any more
        got = e.evaluate(other, ids, kept, length=32, batch=2)
        assert got.kl == pytest.approx(want.kl, abs=1e-5)
        assert (got.top1, got.nll) == (want.top1, pytest.approx(want.nll, abs=1e-6))
        assert kept.score().nll == pytest.approx(e.evaluate(tiny_model, ids, length=32).nll)
        assert kept.score().kl is None


def test_a_model_beside_itself(tiny_model: Model) -> None:
    score = e.evaluate(tiny_model, some_ids(50), tiny_model, length=16)
    assert (score.kl, score.top1, score.nll_change, score.kl_error) == (0, 1, 0, 0)
    alone = e.evaluate(tiny_model, some_ids(50), length=16)
    assert alone.nll == score.nll and alone.kl is alone.top1 is alone.perplexity_ratio is None
    assert alone.perplexity_error == pytest.approx(alone.perplexity * alone.nll_error)


@pytest.mark.parametrize("kind", ["int8", "int4", "fp8"])
def test_a_quantized_model_is_scored_as_its_unpacked_weights(kind: Any) -> None:
    model = random_model(tiny_config(hidden_size=64, head_dim=16, num_heads=4), seed=2)
    small = formats.quantize_model(model, kind, group=32)
    plain = dataclasses.replace(small, head=small.head.dequantize(), layers=[
        dataclasses.replace(layer, **{k: getattr(layer, k).dequantize()
                                      for k in ("qkv", "o", "gate_up", "down")})
        for layer in small.layers])
    ids = some_ids(60)
    got, want = (e.evaluate(m, ids, model, length=20) for m in (small, plain))
    assert got.kl == pytest.approx(want.kl, rel=1e-3) and got.kl > 0


def test_standard_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    column = torch.randn(64_000, generator=generator)
    mean, error = e._mean(column)
    assert mean == pytest.approx(float(column.mean()))
    assert error == pytest.approx(1 / math.sqrt(64_000), rel=0.1)
    alike = column[:1000].repeat_interleave(64)  # a thousand samples, each of them 64 times
    want = float(column[:1000].std()) / math.sqrt(1000)
    assert e._mean(alike)[1] == pytest.approx(want, rel=0.01)
    assert e._mean(torch.tensor([1.0, 3.0])) == (2.0, 1.0)
    assert math.isnan(e._mean(torch.tensor([2.0]))[1])


def test_kl_divergence() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    q = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    got = e.kl_divergence(p.log(), q.log())
    torch.testing.assert_close(got, torch.tensor([math.log(2), 0.0]))


def test_progress_counts_tokens(tiny_model: Model) -> None:
    seen: list[tuple[int, int]] = []
    e.evaluate(tiny_model, some_ids(30), length=8, batch=2,
               progress=lambda done, total: seen.append((done, total)))
    assert seen == [(16, 29), (29, 29)]


def test_mistakes_are_named(tiny_model: Model) -> None:
    ids = some_ids(20)
    for bad, words in ((ids[:1], "1 tokens predicts nothing"), ([1, 500], "token 500")):
        with pytest.raises(ParameterError, match=words):
            e.evaluate(tiny_model, bad, length=8)
    for options, words in (({"length": 0}, "length is 0"), ({"length": 129}, "1 to 128"),
                           ({"length": 8, "batch": 0}, "batch is 0")):
        with pytest.raises(ParameterError, match=words):
            e.evaluate(tiny_model, ids, **options)
    kept = e.reference(tiny_model, ids, length=8)
    for options, tokens in (({"length": 9}, ids), ({"length": 8}, ids[:-1])):
        with pytest.raises(ParameterError, match="same text"):
            e.evaluate(tiny_model, tokens, kept, **options)
    wider = random_model(tiny_config(vocab_size=300))
    for other in (tiny_model, kept):
        with pytest.raises(ParameterError, match="one vocabulary"):
            e.evaluate(wider, ids, other, length=8)
    with pytest.raises(ConfigError, match="no tokenizer"):
        e.token_ids(None)
    with pytest.raises(ParameterError, match="no text 'train'"):
        e.text("train")  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is shipped


def test_the_text_is_the_one_that_was_frozen() -> None:
    source = json.loads((DATA / "text" / "source.json").read_text())
    assert source["licence"] == "CC-BY-4.0" and len(source["commit"]) == 40
    for split in e.SPLITS:
        found = source["files"][f"{split}.txt"]
        assert hashlib.sha256(e.text(split).encode()).hexdigest() == found["sha256"]


def test_calibration_and_evaluation_share_nothing() -> None:
    parts = [set(e.text(split).split("\n\n")) for split in e.SPLITS]
    long = [{p for p in part if len(p.split()) > 8} for part in parts]
    assert not long[0] & long[1] and min(map(len, long)) > 300
    for sentence in (s for p in long[0] for s in p.split(". ") if len(s.split()) > 12):
        assert sentence not in e.text("evaluation")


@pytest.mark.usefixtures("smollm2")
def test_the_text_is_long_enough(smollm2: Model) -> None:
    counts = [len(e.token_ids(smollm2.tokenizer, split)) for split in e.SPLITS]
    assert sum(counts) >= 60_000 and min(counts) >= 20_000
    assert e.token_ids(smollm2.tokenizer, "evaluation", 5) == \
        e.token_ids(smollm2.tokenizer, "evaluation")[:5]
    with pytest.raises(ParameterError, match="1 to that many"):
        e.token_ids(smollm2.tokenizer, "evaluation", 10**6)


# ---------------------------------------------------------------- questions


class Letters:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return [b % 211 for b in text.encode()]


def test_the_questions_are_sound() -> None:
    asked = mc.questions()
    assert len(asked) == 150 and len({q.text for q in asked}) == 150
    for question in asked:
        assert len(set(question.options)) == mc.OPTIONS, question
        assert question.text.endswith(("?", "."))


def test_answers_against_one_option_at_a_time(tiny_model: Model) -> None:
    tiny_model.tokenizer = Letters()  # type: ignore[assignment]
    asked = mc.questions()[:3]
    got = mc.answer(tiny_model, asked, batch=2)
    for i, question in enumerate(asked):
        prompt, scores = Letters().encode(question.prompt), []
        for option in question.options:
            ids = Letters().encode(" " + option)
            logp = oracle(tiny_model, (prompt + ids)[:-1])[len(prompt) - 1 :]
            total = sum(float(logp[j, t]) for j, t in enumerate(ids))
            scores.append(total / len(option.encode()))
        assert got.picks[i] == max(range(4), key=scores.__getitem__)
        assert got.margins[i] == pytest.approx(scores[0] - max(scores[1:]), abs=1e-5)
    assert got.agreement(mc.answer(tiny_model, asked, batch=3)) == 1


def test_accuracy_is_a_proportion() -> None:
    choices = mc.Choices([0, 0, 0, 2], [1.0, 1.0, 1.0, -1.0])
    assert choices.accuracy == 0.75 and choices.margin == 0.5
    assert choices.accuracy_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert choices.agreement(mc.Choices([0, 1, 0, 2], [0.0] * 4)) == 0.75


def test_questions_that_cannot_be_asked(tiny_model: Model, monkeypatch: pytest.MonkeyPatch,
                                        tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        mc.answer(tiny_model)
    with pytest.raises(ParameterError, match="0 questions"):
        mc.answer(tiny_model, [])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "questions.txt").write_text("# note\nWhat? | this | that\n")
    monkeypatch.setattr(mc, "__file__", str(tmp_path / "multiple_choice.py"))
    mc.questions.cache_clear()
    with pytest.raises(LoadError, match="line 2: 2 answers"):
        mc.questions()
    mc.questions.cache_clear()


@pytest.mark.usefixtures("smollm2")
def test_the_real_model_knows_more_than_chance(smollm2: Model) -> None:
    found = mc.answer(smollm2, mc.questions()[::10])
    assert found.accuracy > 2 * mc.CHANCE  # all 150: 69 %
