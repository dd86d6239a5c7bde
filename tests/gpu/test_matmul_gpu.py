"""Products on a CUDA device at real sizes, against float64: formats, neighbours, graphs, overlap.

Each kernel variant takes seconds to compile, so there are few shapes, chosen to have tails: rows
that are no multiple of a block, K in pieces and whole.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from infero import model as m
from infero.kernels import formats, matmul, matmul_convert, matmul_dot, matmul_vector, products
from tests.conftest import tiny_config
from tests.kernels.test_products import check, exact, made

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]
BF16 = torch.bfloat16
NEW = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)
DENSE = [("dense", BF16), ("dense", torch.float16), ("dense", torch.float32)]
BYTES = [("int8", BF16), ("int4", BF16), ("int4", torch.float16), ("int8", torch.float16)]
FORMATS = pytest.mark.parametrize("kind,dtype", DENSE + BYTES + ([("fp8", BF16)] if NEW else []),
                                  ids=lambda v: str(v).removeprefix("torch."))


@pytest.fixture(autouse=True)
def _strict_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


@FORMATS
def test_one_token(kind: str, dtype: torch.dtype) -> None:
    check(made(kind, 1030, 2048, dtype, device="cuda"), 1, norm=True, swiglu=True, scale=3.0)
    weight = made(kind, 2050, 5248, dtype, device="cuda", seed=1)  # in pieces, the last not whole
    first = check(weight, 1, bias=True, residual=True)
    assert torch.equal(first, check(weight, 1, bias=True, residual=True))


@pytest.mark.parametrize("tokens", [2, 16])
@FORMATS
def test_few_tokens(kind: str, dtype: torch.dtype, tokens: int) -> None:
    weight = made(kind, 1030, 2048, dtype, device="cuda")
    check(weight, tokens, norm=True, swiglu=True, scale=3.0)
    check(weight, tokens, norm=True, swiglu=True, deterministic=True)


@pytest.mark.parametrize("kind", ["int8", "int4", *(["fp8"] if NEW else [])])
def test_more_tokens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = made(kind, 1000, 2048, BF16, device="cuda")
    if kind == "fp8":  # activations are rounded to fp8 as well
        monkeypatch.setitem(check.__globals__["TOLERANCE"], BF16, 0.05)
    for tokens in (17, 64, 100):
        check(weight, tokens, norm=True, residual=True)
    check(weight, 600, norm=True, swiglu=True)


def test_int4_with_zero_points_and_small_groups() -> None:
    for group, zeros in ((32, True), (64, False)):
        weight = made("int4", 130, 960, BF16, group, zeros, device="cuda")
        check(weight, 1, norm=True)
        check(weight, 5, norm=True)


def test_unpacking() -> None:
    for kind in ("int8", "int4", *(["fp8"] if NEW else [])):
        weight = made(kind, 70, 400, BF16, 64, kind == "int4", device="cuda")
        assert not isinstance(weight, Tensor)
        want = exact(weight)
        got = matmul_convert.dequantize(weight)
        assert float((got - want).norm() / want.norm()) < 3e-3
        assert torch.equal(got, weight.dequantize()) or kind == "int4"


@pytest.mark.parametrize("kind", ["dense", "int4"])
def test_deterministic_rows_do_not_depend_on_the_batch(kind: str) -> None:
    weight = made(kind, 1000, 2048, BF16, device="cuda")
    x = torch.randn(131, 2048, device="cuda", dtype=BF16)
    g = torch.randn(2048, device="cuda", dtype=BF16)
    every = products.linear(x, weight, norm=g, deterministic=True)
    for tokens in (1, 7, 64, 65):
        few = products.linear(x[:tokens], weight, norm=g, deterministic=True)
        assert torch.equal(few, every[:tokens])
    last = products.linear(x[-1:].contiguous(), weight, norm=g, deterministic=True)
    assert torch.equal(last[0], every[-1])


def test_the_number_of_tokens_compiles_nothing() -> None:
    weight = made("int4", 1000, 2048, BF16, device="cuda")
    residual = torch.randn(64, 1000, device="cuda", dtype=BF16)

    def run(tokens: int) -> None:
        x = torch.randn(tokens + 1, 2048, device="cuda", dtype=BF16)[1:]
        products.linear(x, weight, residual=residual[:tokens].clone())

    def compiled() -> int:
        return sum(len(cache[0]) for kernel in (matmul_dot.dot, matmul_vector.vector)
                   for cache in kernel.device_caches.values())

    for tokens in (1, 2, 17):
        run(tokens)
    before = compiled()
    for tokens in (*range(1, 17), 31, 32, 33, 48, 63, 64):
        run(tokens)
    assert compiled() == before


def chain(weights: list[formats.Weight], x: Tensor) -> Callable[[], Tensor]:
    """Products that each read what the one before wrote, as a model's layers do."""
    norm = torch.ones(x.shape[1], device="cuda", dtype=x.dtype)

    def run() -> Tensor:
        y = x
        for weight in weights:
            before = y.clone()
            y = products.linear(products.linear(y, weight, norm=norm), weight, norm=norm)
            y = products.linear(y, weight, residual=before)
        return y

    return run


@pytest.mark.parametrize("kind", ["dense", "int4"])
def test_kernels_that_start_early_wait_for_their_input(kind: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [made(kind, 512, 512, BF16, device="cuda", seed=i) for i in range(20)]
    x = torch.randn(1, 512, device="cuda", dtype=BF16)
    run = chain(weights, x)
    monkeypatch.setattr(matmul, "PDL", False)
    want = run().clone()
    monkeypatch.setattr(matmul, "PDL", True)
    run()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            got = run()
        for _ in range(200):
            got.fill_(torch.nan)
            graph.replay()
            stream.synchronize()
            assert torch.equal(got, want)


def test_split_products_in_a_graph_and_without_waiting() -> None:
    weights: list[formats.Weight] = [made("int4", 1024, 1024, BF16, device="cuda")]
    run = chain(weights, torch.randn(9, 1024, device="cuda", dtype=BF16))
    assert matmul.dot_config(weights[0], 9, False, False)["splits"] > 1
    want = run().clone()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert run() is not None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            got = run()
        for _ in range(50):
            got.fill_(torch.nan)
            graph.replay()
            stream.synchronize()
            assert torch.equal(got, want)  # whichever program finished last
    assert not matmul._made[torch.device("cuda", torch.cuda.current_device())].any()


def test_a_model_is_rounded_without_doubling_its_memory() -> None:
    config = tiny_config(hidden_size=1024, intermediate_size=4096, num_layers=6, vocab_size=512)
    others = torch.cuda.memory_allocated()  # of tests before this one
    model = m.random_model(config, dtype=BF16, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    quantized = formats.quantize_model(model, "int4", release=True)
    peak = torch.cuda.max_memory_allocated() - before
    largest = 2 * 4096 * 1024  # numbers of gate and up together
    assert peak < 24 * largest
    assert torch.cuda.memory_allocated() - others < 0.5 * (before - others)
    assert quantized.layers[0].qkv.nbytes > 0
