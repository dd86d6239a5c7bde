"""What chapter 1 says about the default model and its tokenizer, in prose and tables, is so."""

from __future__ import annotations

import pytest

from infero.cache import contiguous
from infero.model import Model


@pytest.fixture
def model(smollm2: Model) -> Model:
    return smollm2


def test_the_table_of_tokens(model: Model) -> None:
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("Tokenization isn't free: 1234")
    assert ids == [20855, 1237, 3247, 982, 1904, 42, 216, 33, 34, 35, 36]


@pytest.mark.parametrize(("text", "tokens"), [(" strawberry", 1), ("strawberry", 3), ("Ω", 2)])
def test_how_many_tokens(model: Model, text: str, tokens: int) -> None:
    assert model.tokenizer is not None
    assert len(model.tokenizer.encode(text)) == tokens


def test_a_short_question_is_36_tokens(model: Model) -> None:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    chat = [{"role": "user", "content": "Why is the sky blue?"}]
    assert len(tokenizer.encode(tokenizer.apply_chat_template(chat))) == 36


def test_parameters(model: Model) -> None:
    layer = model.layers[0]
    assert layer.qkv.numel() == 552_960
    assert layer.o.numel() == 331_776
    assert layer.gate_up.numel() == 1_769_472
    assert layer.down.numel() == 884_736
    assert model.head is model.embedding
    assert model.parameter_bytes() // model.embedding.element_size() == 134_515_008


def test_cache_bytes_per_token(model: Model) -> None:
    cache = contiguous.allocate(model.config, 1, 10, model.dtype, "cpu")
    assert cache.bytes // 10 * 2 // cache.k.element_size() == 23_040  # as bfloat16
