"""The runner: what it does around the forward pass. `pack` is tested by its lab's check."""

from __future__ import annotations

import math

import pytest

from infero.llm import LLM
from infero.model import random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config

PARAMS = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
PROMPTS = [[1, 2, 3], list(range(5, 22)), [7] * 40, [9, 8], list(range(30, 46))]


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("options", [
    {}, {"block_size": 4}, {"block_size": 1}, {"max_num_batched_tokens": 8, "max_num_seqs": 8},
    {"block_size": 4, "num_blocks": 24, "host_blocks": 8},
], ids=str)
def test_what_the_cache_held_before_does_not_matter(rubbish: float, options: dict) -> None:
    model = random_model(tiny_config(), seed=1)
    sized = {} if "num_blocks" in options else {"kv_memory_bytes": 1 << 21}
    clean, dirty = (LLM(model, **sized, **options) for _ in range(2))
    assert dirty.engine is not None
    dirty.engine.runner.cache.k.fill_(rubbish)
    dirty.engine.runner.cache.v.fill_(rubbish)
    want, got = (llm.generate(PROMPTS, PARAMS, progress=False) for llm in (clean, dirty))
    assert [o.tokens for o in got] == [o.tokens for o in want]
