"""Constraints: automata against the grammars they stand for, their bits, and clear errors."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from infero import grammar
from infero.errors import MissingPackage, ParameterError
from infero.sampling import SamplingParams

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level vocabulary of 300 entries made here; ids 300 and 301 end a text."""
    pytest.importorskip("llguidance")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    from infero.tokenizer import Tokenizer as Wrapped

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(['{"name": "Ann", "age": 31, "tags": ["a", "b"]}'] * 3, trainer)
    assert backend.get_vocab_size() <= 300
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    return Wrapped(backend)


VOCAB = 310  # a few rows more than the tokenizer has, as in real models


def eos_of(tokenizer: Any) -> int:
    return tokenizer.backend.token_to_id("<|end|>")


def make(tokenizer: Any, **constraint: Any) -> grammar.GrammarMatcher:
    return grammar.compile(tokenizer, VOCAB, [eos_of(tokenizer)], **constraint)


def allowed(row: torch.Tensor) -> list[int]:
    return [t for t in range(len(row) * 32) if int(row[t // 32]) >> (t % 32) & 1]


def walk(matcher: grammar.GrammarMatcher, eos: int, seed: int, limit: int = 400) -> list[int]:
    """Output of a model that likes all tokens alike, without the end-of-sequence token."""
    rng, out = random.Random(seed), []
    while len(out) < limit:
        token = rng.choice(allowed(matcher.bitmask()))
        if token == eos:
            assert matcher.may_end
            return out
        matcher.accept(token)
        out.append(token)
    raise AssertionError("the walk did not end")


@pytest.mark.parametrize("seed", range(12))
def test_every_walk_through_a_schema_is_a_valid_document(tokenizer, seed) -> None:
    import jsonschema

    tokens = walk(make(tokenizer, json_schema=PERSON), eos_of(tokenizer), seed)
    document = json.loads(tokenizer.decode(tokens))
    jsonschema.validate(document, PERSON)
    assert list(document) == list(PERSON["properties"])  # in the order of the schema


@pytest.mark.parametrize("pattern", [r"[0-9]{3}(-[0-9]{2})?", r"(yes|no|maybe)!?", r"[a-c]*d"])
def test_every_walk_through_a_regex_matches_it(tokenizer, pattern) -> None:
    for seed in range(6):
        tokens = walk(make(tokenizer, regex=pattern), eos_of(tokenizer), seed, 4000)
        assert re.fullmatch(pattern, tokenizer.decode(tokens))


def test_a_lark_grammar_counts_brackets(tokenizer) -> None:
    nested = make(tokenizer, grammar='start: "x" | "(" start ")"')
    for token in tokenizer.encode("((x)"):
        nested.accept(token)
    assert not nested.may_end
    assert {tokenizer.decode([t]) for t in allowed(nested.bitmask())} == {")"}


def test_the_end_is_allowed_exactly_where_the_grammar_may_end(tokenizer) -> None:
    matcher, eos = make(tokenizer, regex="ab?"), eos_of(tokenizer)
    assert eos not in allowed(matcher.bitmask()) and not matcher.may_end
    matcher.accept(tokenizer.encode("a")[0])
    assert eos in allowed(matcher.bitmask()) and matcher.may_end and not matcher.finished
    matcher.accept(tokenizer.encode("b")[0])
    assert allowed(matcher.bitmask()) == [eos] and matcher.finished
    matcher.accept(eos)
    assert matcher.finished
    matcher.rollback(2)
    assert matcher.may_end and not matcher.finished


def test_every_end_of_sequence_token_may_end(tokenizer) -> None:
    ends = [eos_of(tokenizer), VOCAB - 1]
    matcher = grammar.compile(tokenizer, VOCAB, ends, regex="ab?")
    assert not set(ends) & set(allowed(matcher.bitmask()))
    matcher.accept(tokenizer.encode("a")[0])
    assert set(ends) < set(allowed(matcher.bitmask()))
    matcher.accept(ends[1])
    assert matcher.finished and allowed(matcher.bitmask()) == ends


def test_rollback_and_follow_reach_the_same_state_as_a_fresh_matcher(tokenizer) -> None:
    rng = random.Random(5)
    eos, one = eos_of(tokenizer), make(tokenizer, json_schema=PERSON)
    full = walk(make(tokenizer, json_schema=PERSON), eos, 3) + [eos]
    other = walk(make(tokenizer, json_schema=PERSON), eos, 4)
    for _ in range(30):
        path = rng.choice([full, other])
        prefix = path[: rng.randint(0, len(path))]
        one.follow(prefix)
        fresh = make(tokenizer, json_schema=PERSON)
        for token in prefix:
            fresh.accept(token)
        assert torch.equal(one.bitmask(), fresh.bitmask())


def test_forced_tokens_are_the_only_way_on(tokenizer) -> None:
    matcher = make(tokenizer, json_schema=PERSON)
    ahead = matcher.forced()
    assert tokenizer.decode(ahead).startswith('{"nam')
    for token in ahead:
        assert len(allowed(matcher.bitmask())) >= 1
        matcher.accept(token)
    matcher.rollback(len(ahead))
    assert matcher.forced() == ahead


def test_a_grammar_is_compiled_once_and_matchers_do_not_share_state(tokenizer) -> None:
    first = make(tokenizer, regex="ab|cd")
    second = make(tokenizer, regex="ab|cd")
    first.accept(tokenizer.encode("a")[0])
    assert len(allowed(second.bitmask())) >= 2
    assert list(tokenizer.__dict__["_grammars"]._automata)[-1] == ("regex", "ab|cd")


@pytest.mark.parametrize(("constraint", "word"), [
    ({"json_schema": {"type": "objekt"}}, "objekt"),
    ({"json_schema": "{not json"}, "json_schema"),
    ({"json_schema": {"a": {1, 2}}}, "not JSON"),
    ({"json_schema": {"$ref": "#/$defs/nobody"}}, "nobody"),
    ({"regex": "(a"}, "regex"),
    ({"grammar": "start: nobody"}, "nobody"),
    ({}, "exactly one"),
    ({"regex": "a", "grammar": 'start: "a"'}, "exactly one"),
])
def test_what_is_not_valid_is_said_before_anything_runs(tokenizer, constraint, word) -> None:
    with pytest.raises(ParameterError, match=re.escape(word)):
        make(tokenizer, **constraint)


def test_a_token_against_the_grammar_is_an_error(tokenizer) -> None:
    matcher = make(tokenizer, regex="[0-9]+")
    with pytest.raises(ParameterError, match="follow the 0 tokens"):
        matcher.accept(tokenizer.encode("x")[0])
    with pytest.raises(ParameterError, match="take back 3"):
        make(tokenizer, regex="a").rollback(3)


def test_a_grammar_that_gives_up_ends_its_own_request_only(tokenizer, caplog) -> None:
    matcher, eos = make(tokenizer, regex="[0-9]+"), eos_of(tokenizer)
    matcher.follow([*tokenizer.encode("7"), *tokenizer.encode("x")])  # cannot happen in the engine
    assert matcher.error and matcher.finished and allowed(matcher.bitmask()) == [eos]
    assert "ends early" in caplog.text


# ------------------------------------------------ without the library


def test_fixed_sets_need_no_library_and_no_tokenizer() -> None:
    for vocab in (1, 31, 32, 33, 100):
        tokens = sorted({0, vocab // 2, vocab - 1})
        row = grammar.pack_bits(tokens, vocab)
        assert row.dtype == torch.int32 and len(row) == grammar.words(vocab)
        assert allowed(row) == tokens
    one = grammar.matcher(SamplingParams(allowed_token_ids=[3, 31]), None, 40, [])
    assert one is not None and allowed(one.bitmask()) == [3, 31] and not one.finished
    assert grammar.matcher(SamplingParams(), None, 40, []) is None
    with pytest.raises(ParameterError, match="holds 40"):
        grammar.matcher(SamplingParams(allowed_token_ids=[40]), None, 40, [])
    with pytest.raises(ParameterError, match="no tokenizer"):
        grammar.matcher(SamplingParams(regex="a"), None, 40, [2])


def test_the_engine_imports_without_the_library() -> None:
    code = ("import sys; sys.modules['llguidance'] = None; import infero.llm, infero.grammar; "
            "from infero.sampling import SamplingParams; SamplingParams(regex='a')")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_is_named_with_the_command(tokenizer, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.delitem(tokenizer.__dict__, "_grammars", raising=False)
    with pytest.raises(MissingPackage, match="pip install 'llguidance"):
        make(tokenizer, regex="a")


@pytest.mark.parametrize(("fields", "word"), [
    ({"regex": "a", "json_schema": {}}, "json_schema and regex"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
    ({"regex": "a", "ignore_eos": True}, "ignore_eos"),
])
def test_parameters_refuse_what_contradicts_itself(fields, word) -> None:
    with pytest.raises(ParameterError, match=word):
        SamplingParams(**fields)


def test_response_format() -> None:
    schema = {"type": "array"}
    made = grammar.from_response_format
    assert made({"type": "text"}) == {}
    assert made({"type": "json_object"}) == {"json_schema": {"type": "object"}}
    whole = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert made(whole) == {"json_schema": schema}
    for bad in ({}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema",
                                                               "json_schema": {"schema": 3}}):
        with pytest.raises(ParameterError):
            made(bad)
