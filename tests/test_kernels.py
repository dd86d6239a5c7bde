"""The fast operations against the plain ones of `infero/model.py`, and the choice between them."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from infero import kernels
from infero import model as m
from infero.cache import contiguous, kv
from infero.kernels import packed, paged_attention, torch_ops
from tests.conftest import tiny_config

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: str(d)[6:])


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def close(got: Tensor, want: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
    """Equal up to the rounding of `dtype`; `want` is exact."""
    assert got.dtype == dtype
    tolerance = TOLERANCE[dtype] * scale
    torch.testing.assert_close(got.double(), want.double(), atol=tolerance, rtol=tolerance)


# ---------------------------------------------------------------- small operations


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (1, 576), (16, 576), (2, 5, 64), (0, 8)])
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, w = randn(1, *shape, dtype=dtype) * 7 + 1, randn(2, shape[-1], dtype=dtype)
    wide = x.double()
    want = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5) * w.double()
    close(torch_ops.rms_norm(x, w, 1e-5), want, dtype, 1.5)


def test_rms_norm_of_one_giant_among_small_ones() -> None:
    x = torch.full((1, 576), 0.01)
    x[0, 3] = 3000.0
    for dtype, rtol in ((torch.float32, 1e-6), (torch.bfloat16, 2**-7)):
        ones = torch.ones(576, dtype=dtype)
        got = torch_ops.rms_norm(x.to(dtype), ones, 1e-5)
        torch.testing.assert_close(got, m.rms_norm(x.to(dtype), ones, 1e-5), atol=0, rtol=rtol)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert not torch_ops.rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-5).any()


@DTYPES
@pytest.mark.parametrize("tokens,heads,dim", [(1, 1, 2), (5, 3, 16), (7, 12, 64), (0, 2, 4)])
def test_rope(dtype: torch.dtype, tokens: int, heads: int, dim: int) -> None:
    x = randn(3, tokens, heads + 1, dim, dtype=dtype)[:, :heads]  # a view, as in the model
    positions = torch.arange(tokens) * 97 + 3
    inv_freq = 1 / 10_000 ** (torch.arange(0, dim, 2) / dim)
    got = torch_ops.rotate(x, *torch_ops.rotation(positions, inv_freq, dtype))
    close(got, m.rope(x.double(), positions, inv_freq), dtype, 10)


@DTYPES
def test_swiglu_leaves_its_inputs_alone(dtype: torch.dtype) -> None:
    gate, up = randn(5, 3, 14, dtype=dtype).chunk(2, -1)
    before = gate.clone(), up.clone()
    got = torch_ops.swiglu(gate, up)
    close(got, gate.double() * torch.sigmoid(gate.double()) * up.double(), dtype, 2)
    assert torch.equal(gate, before[0]) and torch.equal(up, before[1])


# ---------------------------------------------------------------- attention


def scene(seed: int, lens: list[tuple[int, int]], heads: int, kv_heads: int, dim: int, size: int,
          dtype: torch.dtype, ordered: bool = False) -> tuple[Tensor, Tensor, Tensor, m.Batch]:
    """A ragged batch of (new tokens, context) over blocks in random or in ascending order.

    Slots that belong to nobody hold large numbers: reading one shows.
    """
    counts = [-(-context // size) for _, context in lens]
    total = sum(counts) + 3
    order = list(range(total))
    if not ordered:
        random.Random(seed).shuffle(order)
    tables, at = torch.zeros(len(lens), max(counts), dtype=torch.int64), 0
    k, v = (torch.full((total * size, kv_heads, dim), 1e4, dtype=dtype) for _ in range(2))
    positions, slots = [], []
    for r, (n, context) in enumerate(lens):
        tables[r, : counts[r]] = torch.tensor(order[at : at + counts[r]])
        at += counts[r]
        p = torch.arange(context)
        mine = tables[r, p // size] * size + p % size
        k[mine] = randn(seed + 2 * r, context, kv_heads, dim, dtype=dtype)
        v[mine] = randn(seed + 2 * r + 1, context, kv_heads, dim, dtype=dtype)
        positions.append(p[context - n :])
        slots.append(mine[context - n :])
    q = randn(seed + 99, sum(n for n, _ in lens), heads, dim, dtype=dtype)
    batch = m.Batch(torch.cat(positions), torch.cat(slots), tables, size,
                    [n for n, _ in lens], [context for _, context in lens])
    return q, k, v, batch


def exact(q: Tensor, k: Tensor, v: Tensor, batch: m.Batch, scale: float,
          window: int | None) -> Tensor:
    """The definition in float64, one request at a time."""
    rows, row = [], 0
    group = q.shape[1] // k.shape[1]
    for r, (n, context) in enumerate(zip(batch.query_lens, batch.context_lens, strict=True)):
        p = torch.arange(context)
        mine = batch.block_tables[r, p // batch.block_size] * batch.block_size
        mine = mine + p % batch.block_size
        keys, values = (t[mine].double().repeat_interleave(group, 1) for t in (k, v))
        scores = torch.einsum("qhd,chd->hqc", q[row : row + n].double(), keys) * scale
        i = p[context - n :, None]
        hidden = (p > i) if window is None else (p > i) | (p <= i - window)
        probs = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        rows.append(torch.einsum("hqc,chd->qhd", probs, values))
        row += n
    return torch.cat(rows)


MIXES = {
    "one decode": [(1, 13)],
    "first token": [(1, 1)],
    "decodes": [(1, 5), (1, 16), (1, 17), (1, 1), (1, 40)],
    "far apart": [(1, 700), (1, 3), (1, 690), (1, 20), (1, 5)],
    "one prefill": [(19, 19)],
    "late chunk": [(20, 33)],
    "verification": [(3, 9), (3, 40), (1, 12), (3, 3)],
    "everything": [(1, 9), (30, 30), (1, 33), (11, 50), (2, 18), (1, 16), (1, 2), (9, 9)],
}


@pytest.mark.parametrize("ordered", [False, True], ids=["scattered", "ordered"])
@pytest.mark.parametrize("window", [None, 1, 6, 1000])
@pytest.mark.parametrize("lens", MIXES.values(), ids=MIXES.keys())
def test_attention_of_a_ragged_paged_batch(lens: list[tuple[int, int]], window: int | None,
                                           ordered: bool) -> None:
    for seed, (heads, kv_heads, dim, size) in enumerate(
        [(9, 3, 8, 16), (4, 4, 6, 4), (6, 1, 10, 1), (2, 1, 64, 128)]
    ):
        q, k, v, batch = scene(seed, lens, heads, kv_heads, dim, size, torch.float32, ordered)
        want = exact(q, k, v, batch, 0.3, window)
        close(paged_attention.attend(q, k, v, batch, 0.3, window), want, torch.float32)


@DTYPES
def test_attention_in_every_dtype(dtype: torch.dtype) -> None:
    q, k, v, batch = scene(7, MIXES["everything"], 9, 3, 64, 16, dtype)
    for window in (None, 7):
        want = exact(q, k, v, batch, 0.125, window)
        close(paged_attention.attend(q, k, v, batch, 0.125, window), want, dtype)


def test_attention_of_long_chunks_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "CHUNK", 16)
    q, k, v, batch = scene(1, [(50, 50), (37, 90)], 4, 2, 8, 4, torch.float32)
    for window in (None, 5, 20):
        want = exact(q, k, v, batch, 0.3, window)
        close(paged_attention.attend(q, k, v, batch, 0.3, window), want, torch.float32)


def test_attention_takes_queries_that_are_a_view() -> None:
    q, k, v, batch = scene(1, MIXES["everything"], 4, 2, 8, 4, torch.float32)
    wide = torch.cat((q, q), dim=1)[:, :4]
    assert torch.equal(paged_attention.attend(wide, k, v, batch, 0.3, None),
                       paged_attention.attend(q, k, v, batch, 0.3, None))


def test_a_plan_is_made_once_a_step_for_each_window() -> None:
    q, k, v, batch = scene(1, MIXES["everything"], 4, 2, 8, 4, torch.float32)
    for _ in range(3):
        for window in (None, 5):
            paged_attention.attend(q, k, v, batch, 0.3, window)
    assert len(batch.memo) == 2


def test_decoding_requests_are_attended_together() -> None:
    alike = [(1, 60 + i % 30) for i in range(32)]
    _, _, _, batch = scene(0, alike, 2, 1, 4, 16, torch.float32)
    assert len(paged_attention.plan(batch, None, torch.float32, 2)) == 1
    rng = random.Random(0)
    lens = [(1, 1 + int(rng.expovariate(1 / 300))) for _ in range(64)]
    _, _, _, batch = scene(0, lens, 2, 1, 4, 16, torch.float32)
    work = paged_attention.plan(batch, None, torch.float32, 2)
    assert len(work) <= 8
    slots = sum(part.keys.requests * part.keys.length for part in work)
    real = sum(context for _, context in lens)
    assert slots <= 1.4 * real + len(work) * paged_attention.SPARE + 16 * len(lens)


# ---------------------------------------------------------------- packed weights


@pytest.fixture
def _plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.memory, "free_memory_bytes", lambda device: 1 << 40)
    monkeypatch.delenv("INFERO_PACK", raising=False)


pack = pytest.mark.usefixtures("_plenty")


@pack
@pytest.mark.parametrize("dtype", packed.DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out,size", [(576, 576), (1, 70_000), (257, 300), (3072, 64)])
def test_packed_linear(dtype: torch.dtype, bias: bool, out: int, size: int) -> None:
    weight = randn(0, out, size, dtype=dtype) * size**-0.5
    b = randn(1, out, dtype=dtype) if bias else None
    assert packed.of(weight) is not None
    for rows in (1, 2, 5, 17, 64, 130):
        x = randn(rows, rows, size, dtype=dtype)
        want = F.linear(x.double(), weight.double(), None if b is None else b.double())
        close(packed.linear(x, weight, b), want, dtype)
    assert isinstance(weight.packed, packed.Packed)  # type: ignore[attr-defined]


@pack
def test_a_weight_changed_in_place_is_packed_again() -> None:
    weight, x = randn(0, 300, 300), randn(1, 2, 300)
    packed.of(weight)
    weight.mul_(2)
    torch.testing.assert_close(packed.linear(x, weight, None), F.linear(x, weight), atol=1e-4,
                               rtol=1e-4)


@pack
def test_copies_of_a_weight_are_weights_of_their_own() -> None:
    weight, x = randn(0, 300, 300), randn(1, 2, 300)
    packed.of(weight)
    want = packed.linear(x, weight, None)
    for twin in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight)), weight.clone()):
        assert getattr(twin, "packed", None) is None
        packed.of(twin)
        torch.testing.assert_close(packed.linear(x, twin, None), want, atol=1e-4, rtol=1e-4)
        assert twin.packed is not weight.packed  # type: ignore[attr-defined]


@pack
def test_float32_is_packed_when_an_engine_asks_and_not_before() -> None:
    x = randn(1, 2, 300)
    for dtype, lazily in ((torch.float32, False), (torch.bfloat16, True)):
        weight = randn(0, 300, 300, dtype=dtype)
        packed.linear(x.to(dtype), weight, None)
        assert (getattr(weight, "packed", None) is not None) == lazily


@pack
def test_a_cpu_without_the_instructions_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weight: torch.Tensor) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(packed, "Packed", refuse)
    x, weight = randn(0, 2, 300, dtype=torch.bfloat16), randn(1, 300, 300, dtype=torch.bfloat16)
    assert torch.equal(packed.linear(x, weight, None), F.linear(x, weight))


@pack
def test_gradients_pass() -> None:
    weight, x = randn(0, 300, 300), randn(1, 2, 300)
    packed.of(weight)
    x.requires_grad_()
    packed.linear(x, weight, None).sum().backward()
    assert x.grad is not None
    trained = randn(2, 300, 300)
    packed.linear(x.detach(), trained, None)
    trained.requires_grad_()
    packed.linear(x.detach(), trained, None).sum().backward()
    assert trained.grad is not None


@pack
def test_what_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed.packable(torch.zeros(300, 300))
    assert not packed.packable(torch.zeros(10, 10)), "too small to pay"
    assert not packed.packable(torch.zeros(300, 300).T), "not contiguous"
    assert not packed.packable(torch.zeros(300, 300, dtype=torch.float64))
    monkeypatch.setattr(packed.memory, "free_memory_bytes", lambda device: packed.KEEP_FREE)
    assert not packed.packable(torch.zeros(300, 300)), "no memory to spare"
    monkeypatch.setenv("INFERO_PACK", "0")
    x, weight = randn(0, 2, 300), randn(1, 300, 300)
    assert torch.equal(packed.linear(x, weight, None), F.linear(x, weight))


@pack
def test_prepare_packs_a_model_once() -> None:
    model = m.random_model(tiny_config(hidden_size=128, intermediate_size=512, vocab_size=600))
    made = kernels.prepare(model)
    layer = model.layers[0]
    assert made == sum(t.nbytes for t in [model.head] + [w for one in model.layers for w in
                       (one.gate_up, one.down)])
    kept = layer.down.packed  # type: ignore[attr-defined]
    assert kernels.prepare(model) == made and layer.down.packed is kept  # type: ignore[attr-defined]


# ---------------------------------------------------------------- the choice


def run_of(model: m.Model) -> Tensor:
    """Logits of a prefill and two decode steps of two requests."""
    cache = contiguous.allocate(model.config, 2, 12, model.dtype, "cpu")
    rows, starts = [], [0, 0]
    for lens in ([10, 3], [1, 1], [1, 1]):
        batch = contiguous.next_batch(cache, starts, lens)
        ids = torch.arange(sum(lens)) * 5 % 211
        rows.append(m.forward(model, ids, batch, cache))
        starts = [s + n for s, n in zip(starts, lens, strict=True)]
    return torch.cat(rows)


@pytest.fixture
def model() -> m.Model:
    return m.random_model(tiny_config(qk_norm=True, sliding_window=7, sliding_layers=(1,)), seed=4)


@pytest.mark.parametrize("name", ["rms_norm", "rope", "attention", "swiglu"])
def test_a_replaced_piece_runs_in_every_layer(name: str, model: m.Model,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    want, calls = run_of(model), []
    plain = getattr(m, name)

    def mine(*args: object, **kwargs: object) -> Tensor:
        calls.append(1)
        return plain(*args, **kwargs)

    assert not kernels.replaced(name)
    monkeypatch.setattr(m, name, mine)
    assert kernels.replaced(name)
    torch.testing.assert_close(run_of(model), want, atol=1e-4, rtol=1e-4)
    assert len(calls) >= 3 * model.config.num_layers


def test_all_plain_equals_all_fast(model: m.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = run_of(model)
    monkeypatch.setattr(kernels, "replaced", lambda name: True)
    torch.testing.assert_close(run_of(model), fast, atol=1e-4, rtol=1e-4)


def test_two_models_may_share_a_batch() -> None:
    config = tiny_config()
    cache = kv.empty(config, 1, 8, torch.float32, "cpu")
    narrow = kv.empty(config, 1, 8, torch.bfloat16, "cpu")
    batch, ids = contiguous.next_batch(cache, [0], [5]), torch.arange(5)
    one = m.random_model(config, seed=1)
    other = m.random_model(tiny_config(rope_theta=500.0), seed=1)
    half = m.random_model(config, seed=1, dtype=torch.bfloat16)
    first = m.forward(one, ids, batch, cache)
    m.forward(other, ids, batch, cache)
    m.forward(half, ids, batch, narrow)
    assert torch.equal(m.forward(one, ids, batch, cache), first)


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    """No test leaves a piece replaced."""
    yield
    assert not any(map(kernels.replaced, ("rms_norm", "rope", "attention", "swiglu")))
