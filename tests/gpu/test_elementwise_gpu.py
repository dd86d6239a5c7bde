"""The small kernels on a CUDA device, at real sizes, against float64: norms, RoPE, sampler."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infero import sampling
from infero.kernels import activations, embeddings, norms, rotary, sampler
from tests.kernels import oracles
from tests.kernels.oracles import close, poisoned, randn
from tests.kernels.test_rotary import scene
from tests.kernels.test_sampler import FILTERS, check, noise_and_words, rows_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16],
                                 ids=lambda d: str(d)[6:])


def on_gpu(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda").to(dtype)


@DTYPES
@pytest.mark.parametrize("tokens,n", [(1, 4096), (1000, 1024), (37, 14336), (5, 65536), (3, 1),
                                      (700, 576), (1, 8191), (2049, 128), (100_000, 64)])
def test_norms(tokens: int, n: int, dtype: torch.dtype) -> None:
    x, w = on_gpu(1, tokens, n, dtype=dtype) * 3 + 1, on_gpu(2, n, dtype=dtype)
    residual, out = on_gpu(3, tokens, n, dtype=dtype), poisoned(tokens, n, dtype=dtype,
                                                                device="cuda")
    norms.rms_norm(x, w, 1e-5, out=out)
    close(out, oracles.rms_norm(x, w, 1e-5))
    total = x + residual
    out.fill_(torch.nan)
    norms.add_rms_norm(x, residual, w, 1e-5, out=out)
    assert torch.equal(residual, total)
    close(out, oracles.rms_norm(total, w, 1e-5))
    assert torch.equal(out, norms.rms_norm(total, w, 1e-5))  # the same bits, fused or not
    row = tokens // 2
    assert torch.equal(norms.rms_norm(total[row : row + 1], w, 1e-5)[0], out[row])


@DTYPES
@pytest.mark.parametrize("tokens,inter", [(1, 14336), (300, 3072), (77, 1536), (3, 4097), (2, 1),
                                          (70_000, 64)])
def test_silu_mul(tokens: int, inter: int, dtype: torch.dtype) -> None:
    both = on_gpu(1, tokens, 2 * inter, dtype=dtype) * 4
    out = poisoned(tokens, inter, dtype=dtype, device="cuda")
    activations.silu_mul(both, out=out)
    close(out, oracles.swiglu(*both.chunk(2, -1)), 2)
    assert torch.equal(out, activations.swiglu(*both.chunk(2, -1)))


@DTYPES
@pytest.mark.parametrize("tokens,heads,kv_heads,dim,normed", [
    (1, 32, 8, 128, False), (1, 16, 8, 128, True), (300, 9, 3, 64, False), (600, 9, 3, 64, True),
    (2000, 32, 8, 128, False), (2000, 16, 8, 128, True), (17, 32, 32, 80, False),
    (700, 24, 24, 96, True), (5, 8, 1, 256, True), (513, 8, 4, 256, False), (9, 5, 5, 6, False),
])
def test_rotate_and_write(tokens: int, heads: int, kv_heads: int, dim: int, normed: bool,
                          dtype: torch.dtype) -> None:
    scene(tokens, heads, kv_heads, dim, normed, dtype, "cuda")


@DTYPES
def test_a_token_is_rotated_to_the_same_bits_alone_and_among_many(dtype: torch.dtype) -> None:
    heads, kv_heads, dim, tokens = 16, 8, 128, 1000
    qkv = on_gpu(1, tokens, (heads + 2 * kv_heads) * dim, dtype=dtype)
    norm, inv_freq = on_gpu(2, dim, dtype=dtype), oracles.frequencies(dim).cuda()
    positions, slots = (torch.arange(tokens, device="cuda", dtype=torch.int32) for _ in range(2))
    k, v = (torch.zeros(tokens, kv_heads, dim, device="cuda", dtype=dtype) for _ in range(2))
    q = rotary.rotate_and_write(qkv, positions * 7, slots, inv_freq, k, v, heads, kv_heads, norm,
                                norm)
    k1, v1 = torch.zeros_like(k), torch.zeros_like(v)
    for i in (0, 3, 999):
        part = slice(i, i + 1)
        alone = rotary.rotate_and_write(qkv[part], positions[part] * 7, slots[part], inv_freq, k1,
                                        v1, heads, kv_heads, norm, norm)
        assert torch.equal(alone[0], q[i])
        assert torch.equal(k1[i], k[i]) and torch.equal(v1[i], v[i])


def test_slots_far_into_a_large_cache() -> None:
    """Offsets past 2**31 elements."""
    slots_there = 2**31 // (8 * 128) + 1000
    k, v = (torch.zeros(slots_there, 8, 128, dtype=torch.float16, device="cuda") for _ in range(2))
    qkv = on_gpu(1, 2, 48 * 128, dtype=torch.float16)
    inv_freq = oracles.frequencies(128).cuda()
    slots = torch.tensor([slots_there - 1, 3], device="cuda")
    positions = torch.tensor([5, 9], device="cuda")
    rotary.rotate_and_write(qkv, positions, slots, inv_freq, k, v, 32, 8)
    assert torch.equal(v[slots].view(2, -1), qkv[:, -1024:])
    assert int(v.count_nonzero()) == int(qkv[:, -1024:].count_nonzero())
    want = oracles.rope(qkv[:, -2048:-1024].view(2, 8, 128), positions, inv_freq)
    close(k[slots], want, 2, 1e-3)


def test_gather_of_a_large_vocabulary() -> None:
    weight = on_gpu(1, 151_936, 1024, dtype=torch.bfloat16)
    ids = torch.randint(0, 151_936, (300,), device="cuda")
    source = torch.full((300,), -1, dtype=torch.int32, device="cuda")
    source[::3] = torch.arange(100, device="cuda", dtype=torch.int32)
    previous = torch.randint(0, 151_936, (100,), device="cuda")
    want = ids.clone()
    want[::3] = previous
    assert torch.equal(embeddings.gather(ids, weight, source, previous), weight[want])


# ---------------------------------------------------------------- sampler


def test_noise_is_the_same_bits_as_torchs() -> None:
    seeds, positions, words, noise = noise_and_words("cuda")
    zero = torch.zeros(1, 1, dtype=torch.int64, device="cuda")
    counter = (torch.arange(1025, device="cuda")[None, :], positions[:, None], zero, zero)
    key = (seeds[:, None] & 0xFFFFFFFF, (seeds[:, None] >> 32) & 0xFFFFFFFF)
    want = torch.stack(torch.broadcast_tensors(*sampling.philox(counter, key)), -1).flatten(1)
    assert torch.equal(words & 0xFFFFFFFF, want[:, :4099])
    exact = sampling.gumbel(seeds, positions, sampling.SAMPLE, 4099)
    torch.testing.assert_close(noise, exact, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("count,vocab", [(1, 151_936), (7, 49_152), (64, 128_256), (256, 32_003)])
def test_greedy_and_plain(count: int, vocab: int, dtype: torch.dtype) -> None:
    for spread in (1.0, 5.0):
        logits = (on_gpu(count, count, vocab) * spread).to(dtype)
        check(logits, rows_for(count, device="cuda", temperature=0.0), "greedy")
        rows = rows_for(count, 1, "cuda", temperature=[1.0, 0.6, 0.0, 1.5])
        check(logits, rows, "plain")
        check(logits, rows, "filtered")


@pytest.mark.parametrize("fields", [*FILTERS, {"top_k": 5000, "top_p": 0.9}], ids=str)
def test_filtered(fields: dict) -> None:
    for seed, (count, vocab, spread) in enumerate([(5, 151_936, 1.0), (130, 32_003, 4.0)]):
        logits = on_gpu(seed, count, vocab) * spread
        check(logits, rows_for(count, seed, "cuda", **fields), "filtered")


def test_nobody_waits_and_a_graph_replays_it() -> None:
    logits = on_gpu(1, 9, 32_000) * 3
    rows = rows_for(9, 1, "cuda", top_k=[0, 20, 5], top_p=[0.9, 1.0])
    out = {variant: torch.full((9,), -1, device="cuda") for variant in sampler.VARIANTS}

    def draw() -> None:
        for variant, tokens in out.items():
            sampler.sample(logits, rows, variant, out=tokens)

    draw()
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draw()
    for seed in range(3):
        logits.copy_(on_gpu(seed, 9, 32_000) * 2)
        rows.seed.add_(1)
        for tokens in out.values():
            tokens.fill_(-1)
        graph.replay()
        assert torch.equal(out["greedy"], logits.argmax(-1))
        assert torch.equal(out["filtered"], sampling.sample(logits, rows))


def test_another_number_of_tokens_compiles_nothing() -> None:
    """A step's sizes change all the time; a variant a size would stall an engine for minutes."""
    kernels = (norms._rms_norm, activations._silu_mul, rotary._rotate_and_write, embeddings._gather,
               sampler._draw, sampler._pick, sampler._survey, sampler._filtered)
    weight, norm = on_gpu(1, 500, 512), on_gpu(2, 512)
    inv_freq = oracles.frequencies(64).cuda()
    cache = torch.zeros(512, 2, 64, device="cuda")
    words = torch.zeros(4096, dtype=torch.int32, device="cuda")
    logits = on_gpu(3, 300, 32_000)

    def step(n: int, at: int) -> None:
        """All kernels with n tokens, integers read from `at` on, wherever that is aligned to."""
        ids = words[at : at + n]
        x = embeddings.gather(ids, weight, ids, torch.zeros(1, dtype=torch.int64, device="cuda"))
        x = norms.rms_norm(x, norm, 1e-5)
        rotary.rotate_and_write(x, ids, ids, inv_freq, cache, cache.clone(), 4, 2)
        activations.silu_mul(norms.add_rms_norm(x, x.clone(), norm, 1e-5)[0])
        rows = rows_for(n, device="cuda", top_k=5)
        rows.position, rows.top_k = ids, words[at + 1 : at + 1 + n]
        for variant in sampler.VARIANTS:
            sampler.sample(logits[:n], rows, variant)

    step(1, 0)
    step(300, 16)
    before = [sum(len(entry[0]) for entry in k.device_caches.values()) for k in kernels]
    for n, at in ((2, 1), (16, 3), (17, 160), (48, 4), (129, 7), (256, 0), (299, 5)):
        step(n, at)
    after = [sum(len(entry[0]) for entry in k.device_caches.values()) for k in kernels]
    assert after == before


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.1], device="cuda")
    logits = probabilities.log().repeat(4096, 1)
    rows = rows_for(4096, 5, "cuda")
    for variant in ("plain", "filtered"):
        got = sampler.sample(logits, rows, variant).bincount(minlength=4) / 4096
        torch.testing.assert_close(got.float(), probabilities, atol=0.03, rtol=0)


def test_oracles_run_here_too() -> None:
    x = randn(1, 3, 8, device="cuda")
    close(norms.rms_norm(x, torch.ones(8, device="cuda"), 1e-6),
          oracles.rms_norm(x, torch.ones(8, device="cuda"), 1e-6))
