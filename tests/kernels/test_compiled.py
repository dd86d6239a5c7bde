"""The compiled decode step: the same numbers as the plain model, one compilation for all layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.cache import kv
from infero.errors import ConfigError
from infero.kernels import compiled, formats
from infero.llm import LLM
from infero.model import Batch, Model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config

SIZE = 4


def step_of(model: Model, contexts: list[int], seed: int, queries: int = 1
            ) -> tuple[Tensor, Batch, kv.KVCache]:
    """Requests in the middle of their answers, over shuffled blocks of a cache full of numbers."""
    g = torch.Generator().manual_seed(seed)
    widths = [-(-n // SIZE) for n in contexts]
    blocks = torch.randperm(sum(widths) + 3, generator=g).tolist()
    tables = []
    for width in widths:
        tables.append([*blocks[:width], *blocks[:1] * (max(widths) - width)])
        blocks = blocks[width:]
    cache = kv.empty(model.config, sum(widths) + 3, SIZE, model.dtype, "cpu")
    cache.k.normal_(generator=g)
    cache.v.normal_(generator=g)
    positions = [n - queries + i for n in contexts for i in range(queries)]
    rows = [r for r in range(len(contexts)) for _ in range(queries)]
    slots = [tables[r][p // SIZE] * SIZE + p % SIZE
             for r, p in zip(rows, positions, strict=True)]
    ids = torch.randint(0, model.config.vocab_size, (len(rows),), generator=g)
    return ids, Batch(torch.tensor(positions), torch.tensor(slots), torch.tensor(tables), SIZE,
                      [queries] * len(contexts), contexts), cache


def copied(cache: kv.KVCache) -> kv.KVCache:
    return kv.KVCache(cache.k.clone(), cache.v.clone(), cache.block_size)


def plain(model: Model, ids: Tensor, batch: Batch, cache: kv.KVCache, queries: int = 1,
          slots: Tensor | None = None, contexts: Tensor | None = None) -> Tensor:
    """The compiled step's own code, uncompiled."""
    with torch.inference_mode():
        return compiled.step(
            model, model.embedding[ids], batch.positions, batch.slots if slots is None else slots,
            batch.block_tables.int(), torch.tensor(batch.context_lens, dtype=torch.int32)
            if contexts is None else contexts, cache, queries=queries, plain=True)


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True},
    "window": {"sliding_window": 5}, "biases": {"o_bias": True, "mlp_bias": True},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("queries", [1, 3])
def test_the_step_is_the_model_s(name: str, queries: int) -> None:
    model = m.random_model(tiny_config(**CONFIGS[name]), seed=1)
    for seed, contexts in enumerate([[7], [3, 12, 4, 9], [16, 5]]):
        ids, batch, cache = step_of(model, contexts, seed, queries)
        other = copied(cache)
        want = m.forward(model, ids, batch, cache)
        got = plain(model, ids, batch, other, queries)
        torch.testing.assert_close(got.float(), want, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(other.k, cache.k)
        torch.testing.assert_close(other.v, cache.v)


def test_padding_reads_and_writes_nothing() -> None:
    """Two padded rows, and NaN wherever no request is."""
    model = m.random_model(tiny_config(), seed=1)
    ids, batch, cache = step_of(model, [7, 3, 12, 4], 3)
    padded_slots, contexts = batch.slots.clone(), torch.tensor([7, 0, 12, 0], dtype=torch.int32)
    padded_slots[[1, 3]] = -1
    owned = {int(batch.block_tables[r, p // SIZE]) * SIZE + p % SIZE
             for r, n in ((0, 7), (2, 12)) for p in range(n)}
    foreign = [slot for slot in range(cache.k.shape[1]) if slot not in owned]
    cache.k[:, foreign], cache.v[:, foreign] = torch.nan, torch.nan
    before = copied(cache)
    alone = Batch(batch.positions[::2], batch.slots[::2], batch.block_tables[::2], SIZE, [1, 1],
                  [7, 12])
    want = plain(model, ids[::2], alone, copied(cache))
    got = plain(model, ids, batch, cache, slots=padded_slots, contexts=contexts)
    torch.testing.assert_close(got[::2], want)
    changed = ((cache.k != before.k) & ~(cache.k.isnan() & before.k.isnan())).any(-1).any(-1)
    assert set(changed.nonzero()[:, 1].tolist()) <= {int(batch.slots[0]), int(batch.slots[2])}


def test_nothing_but_padding_leaves_the_cache_alone() -> None:
    """As when a graph is captured on blank buffers."""
    model = m.random_model(tiny_config(), seed=1)
    ids, batch, cache = step_of(model, [7, 3], 3)
    before = copied(cache)
    none = torch.tensor([-1, -1])
    got = plain(model, ids, batch, cache, slots=none, contexts=torch.zeros(2, dtype=torch.int32))
    assert torch.isfinite(got).all()
    assert torch.equal(cache.k, before.k) and torch.equal(cache.v, before.v)


def test_int8_weights_and_no_others() -> None:
    model = m.random_model(tiny_config(hidden_size=64, intermediate_size=96, num_heads=8), seed=1)
    ids, batch, cache = step_of(model, [7, 3], 3)
    small = formats.quantize_model(model, "int8")
    compiled.refuse(small)
    wide = replace(small, head=small.head.dequantize(), layers=[
        replace(layer, **{name: getattr(layer, name).dequantize()
                          for name in ("qkv", "o", "gate_up", "down")}) for layer in small.layers])
    torch.testing.assert_close(plain(small, ids, batch, copied(cache)),
                               plain(wide, ids, batch, cache), atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="leave compile False"):
        compiled.forward(formats.quantize_model(model, "int4", group=32), ids, batch, cache)


def test_steps_with_prompts_go_to_the_model() -> None:
    model = m.random_model(tiny_config(), seed=1)
    _, batch, _ = step_of(model, [12, 7], 3)
    assert compiled.decodes(batch)
    for lens in ([1, 5], [5, 5], [1, 0], []):
        assert not compiled.decodes(replace(batch, query_lens=lens))


# ---------------------------------------------------------------- compiled: one time, half a minute


@pytest.fixture
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_once_for_all_layers_and_batches(fresh: None) -> None:
    """Two programs a function, for one row and for any number; no graph break; nine calls a layer.

    The engine's tokens are the plain engine's, alone and in a batch that shrinks.
    """
    from torch._dynamo.utils import counters
    from torch._inductor.utils import run_and_get_code

    config = tiny_config(num_layers=3)
    model = m.random_model(config, seed=1)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    params = [SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True) for n in (6, 9, 4)]
    want = [o.tokens for o in LLM(model, block_size=SIZE).generate(prompts, params)]
    counters.clear()
    llm = LLM(model, block_size=SIZE, compile=True)
    outputs, code = run_and_get_code(llm.generate, prompts, params)
    assert [o.tokens for o in outputs] == want
    assert counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]
    text = next(text for text in code if "infero.paged_decode" in text)
    calls = re.findall(r"^ +(?:cpp_fused\w+\(|extern_kernels\.\w+\(|\w+ = torch\.ops\.infero)",
                       text[text.index("def call"):], re.MULTILINE)
    assert len(calls) == 9, calls
    with compiled.no_recompilation():
        again = LLM(model, block_size=SIZE, compile=True).generate(prompts[1], params[1])
    assert again[0].tokens == want[1]
