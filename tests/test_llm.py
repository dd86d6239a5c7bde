"""`LLM`: streams, stop strings, log-probabilities, and refusal after a swap.

A byte-level stand-in tokenizer keeps these tests free of any model file.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infero.errors import ParameterError, PromptError, StalePiecesError
from infero.lab import swap
from infero.llm import LLM, StopStrings
from infero.model import random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config


class Letters:
    """Token i is the letter chr(i + 33): enough of a tokenizer for text in and text out."""

    def encode(self, text: str) -> list[int]:
        return [ord(c) - 33 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + 33) for i in ids)

    def stream(self) -> Letters:
        return self

    def push(self, token: int) -> str:
        return chr(token + 33)

    def flush(self) -> str:
        return ""

    def apply_chat_template(self, messages: list[dict]) -> str:
        return "".join(f"<{m['role'][0]}>{m['content']}" for m in messages) + "<a>"


@pytest.fixture
def llm() -> LLM:
    model = random_model(tiny_config(vocab_size=90), seed=1)
    model.tokenizer = Letters()  # type: ignore[assignment]
    return LLM(model)


GREEDY = SamplingParams(temperature=0, max_tokens=24)


def test_text_and_ids_give_the_same_output(llm: LLM) -> None:
    by_text, by_ids = llm.generate("hello", GREEDY)[0], llm.generate(llm.encode("hello"), GREEDY)[0]
    assert by_text.tokens == by_ids.tokens and by_text.text == by_ids.text
    assert by_text.text == llm.tokenizer.decode(by_text.tokens)
    assert by_text.completions[0].finish_reason == "length" and len(by_text.tokens) == 24
    assert by_ids.prompt is None and by_text.prompt == "hello"


def test_several_prompts_and_several_completions(llm: LLM) -> None:
    p = SamplingParams(seed=4, n=3, max_tokens=6)
    outs = llm.generate(["ab", "abc"], p)
    assert len(outs) == 2 and [c.index for c in outs[0].completions] == [0, 1, 2]
    assert len({tuple(c.tokens) for c in outs[0].completions}) == 3
    again = llm.generate("ab", dataclasses.replace(p, n=1, seed=5))[0]
    assert again.tokens == outs[0].completions[1].tokens


def test_the_stream_is_the_answer_in_pieces(llm: LLM) -> None:
    chunks = list(llm.stream("hello", GREEDY))
    whole = llm.generate("hello", GREEDY)[0]
    assert "".join(c.text for c in chunks) == whole.text
    assert [c.token for c in chunks if c.token is not None] == whole.tokens
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_stop_strings_cut_before_themselves(llm: LLM, width: int) -> None:
    whole = llm.generate("hello", GREEDY)[0].text
    stop = whole[7 : 7 + width]
    p = dataclasses.replace(GREEDY, stop=("never", stop))
    out = llm.generate("hello", p)[0]
    assert out.text == whole[: whole.index(stop)]
    assert out.completions[0].finish_reason == "stop"
    assert "".join(c.text for c in llm.stream("hello", p)) == out.text


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
       st.integers(1, 5))
def test_stop_strings_do_not_depend_on_how_text_arrives(text: str, stops: list[str], size: int
                                                        ) -> None:
    held, got = StopStrings(stops), ""
    for at in range(0, len(text), size):
        got += held.push(text[at : at + size])
        if held.found:
            break
    got += "" if held.found else held.flush()
    hits = [text.index(s) for s in stops if s in text]
    if size == 1 and hits:  # one character at a time: the stop that completes first wins
        ends = min(text.index(s) + len(s) for s in stops if s in text)
        assert got == text[: min(text[:ends].find(s) for s in stops if s in text[:ends])]
    elif hits:
        assert held.found and not any(s in got for s in stops)
        assert text.startswith(got)
    else:
        assert got == text


def test_a_request_ends_at_the_context(llm: LLM) -> None:
    out = llm.generate("x" * 120, SamplingParams(temperature=0, max_tokens=50))[0]
    assert len(out.tokens) == 8 and out.completions[0].finish_reason == "length"
    with pytest.raises(PromptError, match="context is 128"):
        llm.generate("x" * 128, GREEDY)


def test_end_of_sequence_says_stop(llm: LLM) -> None:
    token = llm.generate("hello", GREEDY)[0].tokens[5]
    p = dataclasses.replace(GREEDY, stop_token_ids=(token,))
    out = llm.generate("hello", p)[0]
    assert token not in out.tokens and out.completions[0].finish_reason == "stop"


def test_logprobs_are_of_the_raw_distribution(llm: LLM) -> None:
    p = SamplingParams(temperature=0.7, seed=1, max_tokens=5, logprobs=3, top_k=5)
    out = llm.generate("hello", p)[0].completions[0]
    assert out.logprobs is not None and [x.token for x in out.logprobs] == out.tokens
    for entry in out.logprobs:
        assert len(entry.top) == 3 and entry.logprob <= max(entry.top.values()) + 1e-6
    assert llm.generate("hello", GREEDY)[0].completions[0].logprobs is None


def test_metrics_count_every_token(llm: LLM) -> None:
    metrics = llm.generate("hello", GREEDY)[0].metrics
    assert metrics.prompt_tokens == 5 and len(metrics.token_times_s) == 24
    assert len(metrics.itl_s) == 23 and min(metrics.itl_s) >= 0
    assert metrics.ttft_s > 0 and metrics.decode_tokens_per_s > 0


def test_chat_goes_through_the_template(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert llm.chat_prompt(messages) == llm.encode("<u>hi<a>")
    assert "".join(c.text for c in llm.chat(messages, GREEDY)) == llm.generate(
        "<u>hi<a>", GREEDY)[0].text


def test_streams_carry_one_completion(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="n is 2"):
        llm.stream("a", SamplingParams(n=2))


def test_text_without_a_tokenizer_is_refused() -> None:
    bare = LLM(random_model(tiny_config()))
    assert len(bare.generate([1, 2, 3], GREEDY)[0].tokens) == 24
    assert bare.generate([1, 2, 3], GREEDY)[0].text == ""
    with pytest.raises(PromptError, match="no tokenizer"):
        bare.generate("text", GREEDY)


def test_an_llm_refuses_to_go_on_after_a_swap(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = llm.stream("hello", GREEDY)
    next(stream)
    later = swap.generation() + 1
    monkeypatch.setattr(swap, "generation", lambda: later)
    with pytest.raises(StalePiecesError, match="build a new LLM"):
        next(stream)
    with pytest.raises(StalePiecesError):
        llm.generate("hello", GREEDY)


def test_bfloat16_runs(llm: LLM) -> None:
    model = random_model(tiny_config(vocab_size=90), seed=1, dtype=torch.bfloat16)
    assert len(LLM(model).generate([1, 2], GREEDY)[0].tokens) == 24
