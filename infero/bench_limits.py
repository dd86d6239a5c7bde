"""This machine's limits, measured in the same run as what is compared with them.

`infero bench ladder`, `infero bench compare` and the programs in `benchmarks/` say of every rate
which share of the roofline it is. The roofline is drawn from two measurements of the very machine,
minutes apart from the rate at most: how fast it reads memory, and how fast it multiplies matrices
(chapter 2). A `Work` is what some tokens had to move and to compute at least.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infero import provenance, roofline
from infero.model import Model, ModelConfig

GiB = 2**30


@dataclass(frozen=True)
class Limits:
    """What the machine can do; rates in flop/s by the dtype of the matrix products."""

    device: str  # as its driver names it
    read_bytes_per_s: float
    flops_per_s: dict[torch.dtype, float]
    read_samples: tuple[float, ...] = ()

    def peak(self, dtype: torch.dtype) -> float:
        """flop/s of products in a dtype; of one that was not measured, the best that was."""
        return self.flops_per_s.get(dtype) or max(self.flops_per_s.values())

    def words(self) -> str:
        rates = ", ".join(f"{rate / 1e12:,.3g} TFLOP/s in {str(dtype).removeprefix('torch.')}"
                          for dtype, rate in self.flops_per_s.items())
        return f"{self.device}: reads {self.read_bytes_per_s / 1e9:,.0f} GB/s, multiplies {rates}"


@dataclass(frozen=True)
class Work:
    """Tokens made in some time, with the bytes and operations that they needed at least."""

    tokens: float
    seconds: float
    bytes_moved: float
    flops: float
    dtype: torch.dtype  # of the matrix products

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def bandwidth(self) -> float:
        """Bytes a second that had to be moved and were."""
        return self.bytes_moved / self.seconds

    def least_s(self, limits: Limits) -> float:
        """The roofline's time for this work on this machine."""
        return roofline.roofline_time_s(self.flops, self.bytes_moved,
                                        limits.peak(self.dtype), limits.read_bytes_per_s)

    def limit(self, limits: Limits) -> float:
        """Tokens a second that the roofline allows for the same work."""
        return self.tokens / self.least_s(limits)

    def share(self, limits: Limits) -> float:
        """The rate over the roofline's."""
        return self.least_s(limits) / self.seconds


# ---------------------------------------------------------------- limits


def measure(device: str | torch.device, dtypes: Sequence[torch.dtype] | None = None, *,
            small: bool = False) -> Limits:
    """Read and multiply at full tilt for a few seconds. `small` is for trying it out.

    dtypes of the products: float32 and the device's fastest, unless given.
    """
    where = torch.device(device)
    if dtypes is None:
        from infero.loading import dtype as choosing

        dtypes = list(dict.fromkeys((torch.float32, choosing.choose("auto", where))))
    gpu = where.type == "cuda"
    size = 2**22 if small else (2 * GiB if gpu else GiB // 4)
    side = 128 if small else (8192 if gpu else 1024)
    reads = read_rates(where, size, 3 if small else 20)
    flops = {}
    for dtype in dtypes:
        edge = side // 2 if gpu and dtype == torch.float32 else side
        a, b = (torch.randn(edge, edge, device=where).to(dtype) for _ in range(2))
        flops[dtype] = 2 * edge**3 / min(_product_times_s(a, b, 8))
    name = str(provenance.device_info(where.type)["name"])
    return Limits(name, statistics.median(reads), flops, tuple(reads))


def _product_times_s(a: Tensor, b: Tensor, n: int) -> list[float]:
    return times_s(lambda _: torch.mm(a, b), a.device, n)


@torch.inference_mode()
def read_rates(device: torch.device, size_bytes: int, n: int) -> list[float]:
    """Rates in byte/s of the fastest of several ways to read more than the caches hold.

    On a CPU products of a vector and a matrix are among them: oneDNN's packed ones read faster
    than PyTorch's sums do.
    """
    buffers = [torch.randn(size_bytes // 4, device=device) for _ in range(2)]
    wide = [one.view(-1, 2**10) for one in buffers]
    ways: list[Callable[[int], Any]] = [lambda i: buffers[i % 2].sum(),
                                        lambda i: wide[i % 2].amax(dim=1),
                                        lambda i: wide[i % 2].sum(dim=1)]
    if device.type == "cpu":
        ways.append(_packed_product([one[: len(one) // 2].to(torch.bfloat16) for one in wide]))
    best: list[float] = []
    for way in ways:
        rates = [size_bytes / t for t in times_s(way, device, n)]
        if way is ways[-1] and device.type == "cpu":
            rates = [rate / 4 for rate in rates]  # half the elements, of half the bytes
        if not best or statistics.median(rates) > statistics.median(best):
            best = rates
    return best


def _packed_product(weights: list[Tensor]) -> Callable[[int], Any]:
    """x @ weight.T through the engine's own packed products, alternating between the weights."""
    from infero.kernels import packed

    x = torch.randn(1, weights[0].shape[1]).to(weights[0].dtype)
    return lambda i: packed.linear(x, weights[i % 2], None)


def times_s(run: Callable[[int], Any], device: torch.device, n: int) -> list[float]:
    """Seconds of n calls run(i), after three more: CUDA events on a GPU, else the wall clock."""
    for i in range(3):
        run(i)
    if device.type != "cuda":
        times = []
        for i in range(n):
            start = time.perf_counter()
            run(i)
            times.append(time.perf_counter() - start)
        return times
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(n)]
    torch.cuda.synchronize()
    for i, (start_event, end_event) in enumerate(pairs):
        start_event.record()
        run(i)
        end_event.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) * 1e-3 for start, end in pairs]


# ---------------------------------------------------------------- what tokens cost


def weights_read(model: Model) -> int:
    """Bytes of weights that one step reads: every matrix once, as it is stored; no embedding."""
    parts = [*(t for layer in model.layers for t in vars(layer).values() if t is not None),
             model.final_norm, model.head]
    return sum(int(part.nbytes) for part in parts)


def kv_token_bytes(config: ModelConfig, dtype: torch.dtype) -> float:
    """Bytes that one token takes in the cache."""
    return roofline.kv_bytes_per_token(config, 8.0 * dtype.itemsize)


def decode(model: Model, prompt: int, new: int, seconds: float) -> Work:
    """The work of one request's decode steps that made tokens 2 to `new`, in `seconds`."""
    config, steps = model.config, new - 1
    contexts = sum(range(prompt + 1, prompt + new))  # each step reads all, the newest included
    weights = roofline.count_weights(config)
    return Work(steps, seconds,
                steps * weights_read(model) + contexts * kv_token_bytes(config, model.dtype),
                2 * steps * sum(weights) + attention_flops(config, contexts), model.dtype)


def recompute(model: Model, prompt: int, new: int, seconds: float) -> Work:
    """The work of making tokens 2 to `new` when every one recomputes the whole sequence."""
    config = model.config
    lengths = range(prompt + 1, prompt + new)
    layers, head = roofline.count_weights(config)
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return Work(new - 1, seconds, (new - 1) * weights_read(model),
                2 * (layers * sum(lengths) + head * (new - 1)) + attention_flops(config, pairs),
                model.dtype)


def attention_flops(config: ModelConfig, pairs: float) -> float:
    """Operations of attention over so many (query, key) pairs, in all layers and heads."""
    return 4.0 * pairs * config.num_layers * config.num_heads * config.head_dim


def served(model: Model, prompts: Sequence[int], lengths: Sequence[int], cached: float,
           steps: int, seconds: float) -> Work:
    """The work of a batch: `lengths` tokens after `prompts` tokens each, in `steps` passes.

    cached: prompt tokens that a prefix cache saved, in all. Every pass reads the weights once;
    every pass of a request reads its own context once.
    """
    config, made = model.config, sum(lengths)
    layers, head = roofline.count_weights(config)
    saved = cached / len(prompts)
    contexts = sum(n * (2 * p + n - 1) / 2 for p, n in zip(prompts, lengths, strict=True))
    before = sum(p * (p + 1) - saved * (saved + 1) for p in prompts) / 2
    computed = sum(prompts) - cached + made - len(prompts)
    moved = steps * weights_read(model) + kv_token_bytes(config, model.dtype) * (
        contexts + computed)
    pairs = contexts - sum(prompts) + before
    flops = 2 * (layers * computed + head * made) + attention_flops(config, pairs)
    return Work(made, seconds, moved, flops, model.dtype)
