"""Constrained requests in the engine: valid output, undisturbed neighbours, any way of running."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infero.errors import ParameterError
from infero.llm import LLM
from infero.sampling import SamplingParams

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "people": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
        "coast": {"type": "boolean"},
    },
    "required": ["city", "people", "coast"],
    "additionalProperties": False,
}
QUESTION = "Describe Lisbon as JSON:\n"


@pytest.fixture(scope="module")
def llm(smollm2: Any) -> LLM:
    pytest.importorskip("llguidance")
    return LLM(smollm2, kv_memory_bytes=64 << 20)


def params(seed: int, **more: Any) -> SamplingParams:
    return SamplingParams(**({"temperature": 1.0, "seed": seed, "max_tokens": 60} | more))


def test_output_always_parses_and_obeys_its_schema(llm: LLM) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    asked = [params(seed, json_schema=SCHEMA) for seed in range(5)]
    for output in llm.generate([QUESTION] * 5, asked):
        assert output.completions[0].finish_reason == "stop"
        jsonschema.validate(json.loads(output.text), SCHEMA)
    assert llm.engine is not None
    llm.engine.check_integrity()


def test_a_regex_is_matched_whole(llm: LLM) -> None:
    pattern = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]"
    asked = [params(seed, regex=pattern) for seed in range(4)]
    for output in llm.generate(["The date was "] * 4, asked):
        assert re.fullmatch(pattern, output.text), output.text


def test_neighbours_of_a_constrained_request_draw_the_same_tokens(llm: LLM, smollm2: Any) -> None:
    prompts = ["Once upon a time", QUESTION, "The sea is", "Yes or no? "]
    asked = [params(1, max_tokens=12), params(2, json_schema=SCHEMA), params(3, max_tokens=9),
             params(4, regex="yes|no", logprobs=2)]
    together = llm.generate(prompts, asked)
    alone = [llm.generate(p, q)[0] for p, q in zip(prompts, asked, strict=True)]
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    plain = LLM(smollm2, paged=False).generate(prompts, asked)
    assert [o.text for o in plain] == [o.text for o in alone]
    assert together[3].text in ("yes", "no")


def test_a_preempted_constrained_request_goes_on_where_it_was(smollm2: Any, llm: LLM) -> None:
    prompts = [f"{QUESTION}{i}. " for i in range(3)]
    asked = [params(seed, json_schema=SCHEMA) for seed in range(3)]
    tight = LLM(smollm2, num_blocks=14, block_size=4, max_num_seqs=4, prefix_caching=False)
    outputs = tight.generate(prompts, asked)
    assert tight.engine is not None and tight.engine.stats.preemptions > 0
    roomy = llm.generate(prompts, asked)
    assert [o.tokens for o in outputs] == [o.tokens for o in roomy]
    for output in outputs:
        json.loads(output.text)


def test_completions_of_one_prompt_have_matchers_of_their_own(llm: LLM) -> None:
    output = llm.generate(QUESTION, params(5, json_schema=SCHEMA, n=2))[0]
    texts = [completion.text for completion in output.completions]
    assert len(set(texts)) == 2 and all(isinstance(json.loads(t), dict) for t in texts)


def test_a_complete_output_ends_even_before_min_tokens(llm: LLM) -> None:
    output = llm.generate("Answer: ", params(1, regex="yes|no", min_tokens=20))[0]
    assert output.text in ("yes", "no")
    digits = llm.generate("Answer: ", params(1, regex="[0-9]+", min_tokens=20, max_tokens=30))[0]
    assert len(digits.tokens) >= 20 and digits.text.isdigit()


def test_what_does_not_compile_is_refused_and_queues_nothing(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="objekt"):
        llm.generate(QUESTION, params(0, json_schema={"type": "objekt"}))
    assert llm.engine is not None and not llm.engine.has_unfinished()
    llm.engine.check_integrity()


def test_a_truncated_document_says_length(llm: LLM) -> None:
    done = llm.generate(QUESTION, params(0, json_schema=SCHEMA, max_tokens=4))[0].completions[0]
    assert done.finish_reason == "length"


def test_a_fixed_set_of_tokens_needs_no_tokenizer(tiny_model: Any) -> None:
    llm = LLM(tiny_model, num_blocks=40)
    allowed = [3, 50, 210]
    asked = [params(i, max_tokens=8, ignore_eos=True, allowed_token_ids=allowed) for i in range(3)]
    free = [params(i, max_tokens=8, ignore_eos=True) for i in range(3)]
    outputs = llm.generate([[1, 2, 3]] * 6, asked + free)
    assert all(set(o.tokens) <= set(allowed) for o in outputs[:3])
    assert len({tuple(o.tokens) for o in outputs[:3]}) > 1
    alone = llm.generate([[1, 2, 3]] * 3, free)
    assert [o.tokens for o in outputs[3:]] == [o.tokens for o in alone]
