"""The engine on a CUDA device: the whole suite of invariants, and the CPU's own numbers.

The tests imported from tests/test_invariants.py run here with `device` as "cuda", in float32 with
TF32 off and in bfloat16. Run by `make gpu STEP=tests`.
"""

from __future__ import annotations

import pytest
import torch

from infero import bench, sampling
from infero import generate as g
from infero import model as m
from infero.cache import contiguous
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.test_invariants import (  # noqa: F401
    test_a_copy_of_every_piece_changes_nothing,
    test_a_hundred_requests_and_every_tenth_is_aborted,
    test_a_neighbour_that_is_aborted,
    test_a_warm_cache_changes_nothing,
    test_bfloat16_stays_close,
    test_greedy_tokens_are_those_of_the_request_alone,
    test_known_failures,
    test_paged_contiguous_and_naive_agree,
    test_penalties_and_bias_survive_batching_and_preemption,
    test_requests_that_arrive_while_others_run,
    test_sampled_tokens_depend_on_nobody_else,
    test_several_samples_of_one_prompt,
    test_smollm2_serves_several_at_once,
    test_the_naive_version_fails,
    test_the_suite_leaves_nothing_behind,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
PROMPT = [3, 14, 15, 92, 65]


@pytest.fixture
def device() -> str:
    return "cuda"


@pytest.fixture(autouse=True)
def _strict_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def moved(model: m.Model, dtype: torch.dtype) -> m.Model:
    """The same weights on the GPU."""

    def move(t: torch.Tensor) -> torch.Tensor:
        return t.to("cuda", dtype)

    layers = [m.Layer(**{k: None if t is None else move(t) for k, t in vars(layer).items()})
              for layer in model.layers]
    return m.Model(model.config, move(model.embedding), layers, move(model.final_norm),
                   move(model.head), model.inv_freq.cuda())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", [{}, {"num_heads": 9, "num_kv_heads": 3}, {"qk_norm": True},
                                     {"sliding_window": 5}, {"qkv_bias": True}])
def test_logits_equal_the_cpus(seed: int, changes: dict) -> None:
    host = m.random_model(tiny_config(**changes), seed=seed)
    device = moved(host, torch.float32)
    lens = [1, 7, 13]
    ids = torch.randint(0, 211, (sum(lens),), generator=torch.Generator().manual_seed(seed))
    got = []
    for model in (host, device):
        cache = contiguous.allocate(model.config, 3, 16, model.dtype, model.device)
        batch = contiguous.next_batch(cache, [0, 0, 0], lens)
        got.append(m.forward(model, ids.to(model.device), batch, cache).cpu())
    torch.testing.assert_close(got[1], got[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fields", [
    {"temperature": 0.0}, {"seed": 5}, {"seed": 6, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
])
def test_tokens_equal_the_cpus_with_and_without_cache(fields: dict) -> None:
    params = SamplingParams(max_tokens=40, **fields)
    host = m.random_model(tiny_config(), seed=1)
    device = moved(host, torch.float32)
    want = list(g.stream(host, PROMPT, params))
    assert list(g.stream(device, PROMPT, params)) == want
    assert list(g.stream(device, PROMPT, params, use_cache=False)) == want


def test_random_numbers_are_the_same_bits() -> None:
    seeds, positions = torch.tensor([0, 7, 2**40 + 1]), torch.tensor([0, 5, 123_456])
    on_cpu = sampling.uniform(seeds, positions, sampling.SAMPLE, 4099)
    on_gpu = sampling.uniform(seeds.cuda(), positions.cuda(), sampling.SAMPLE, 4099)
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    host = m.random_model(tiny_config(), seed=2)
    device = moved(host, dtype)
    ids = list(range(30))
    rows = []
    for model in (host, device):
        cache = contiguous.allocate(model.config, 1, 30, model.dtype, model.device)
        batch = contiguous.next_batch(cache, [0], [30])
        logits = m.forward(model, torch.tensor(ids, device=model.device), batch, cache)
        rows.append(logits.cpu().double().log_softmax(-1))
    kl = (rows[0].exp() * (rows[0] - rows[1])).sum(-1).mean()
    assert float(kl) < 5e-3


def test_the_timer_waits_for_the_device() -> None:
    """Work of known length: a timer that does not synchronise would see only the launches."""
    x = torch.randn(4096, 4096, device="cuda")
    clock = bench.clock_of("cuda")

    def work() -> None:
        y = x
        for _ in range(20):
            y = torch.mm(y, x).clamp_(-1, 1)

    by_clock = bench.percentile(bench.time_it(work, clock, 2, 5), 50)
    by_events = bench.percentile(bench.cuda_event_samples(work, 2, 5), 50)
    assert by_clock == pytest.approx(by_events, rel=0.2)
    assert 20 * 2 * 4096**3 / by_clock < 2e15  # no faster than any GPU there is
