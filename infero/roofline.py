"""Bytes, operations and the time they must take: what a step of inference costs at least.

Chapter 2 derives every formula here and Lab 2 has the reader write five of them. A *step* gives
each of `batch` requests `new` tokens, after which each has `context` tokens in its cache. There
is no prefill formula and no decode formula: prefill is new = context, decode is new = 1.

The model is the roofline (Williams, Waterman and Patterson, CACM 2009): a step takes the longer
of the time to move its bytes and the time to do its operations. Pure arithmetic, no torch;
everything is in bytes, flop, seconds. Attention is counted over the whole context, so sliding
windows (chapter 9) come out too slow here.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from infero import hardware
from infero.errors import ParameterError
from infero.hardware import Device

ACTIVATION_BYTES = 2  # hidden states travel between kernels in a 16-bit format
LOGIT_BYTES = 4  # the engine returns float32 logits
# int4 as commonly stored: a 16-bit scale and a 16-bit zero point for every 128 weights.
FORMAT_BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.25}


class Shape(Protocol):
    """The fields of `infero.model.ModelConfig` that the arithmetic reads."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def tie_embeddings(self) -> bool: ...


@dataclass(frozen=True)
class ModelShape:
    """A published model's shape: what the arithmetic needs, with where it was published."""

    name: str
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    tie_embeddings: bool
    qk_norm: bool
    source: str


MODELS: dict[str, ModelShape] = {
    "smollm2-135m": ModelShape(
        "SmolLM2-135M", "llama", 49152, 576, 1536, 30, 9, 3, 64, 8192, True, False,
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/config.json"),
    "qwen3-0.6b": ModelShape(
        "Qwen3-0.6B", "qwen3", 151936, 1024, 3072, 28, 16, 8, 128, 40960, True, True,
        "https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json"),
    "llama-3-8b": ModelShape(
        "Llama-3-8B", "llama", 128256, 4096, 14336, 32, 32, 8, 128, 8192, False, False,
        "https://huggingface.co/meta-llama/Meta-Llama-3-8B/blob/main/config.json"),
    "llama-3-70b": ModelShape(
        "Llama-3-70B", "llama", 128256, 8192, 28672, 80, 64, 8, 128, 8192, False, False,
        "https://huggingface.co/meta-llama/Meta-Llama-3-70B/blob/main/config.json"),
}


def shape(name: str) -> ModelShape:
    """A model of `MODELS` by name, also as written on the hub; ParameterError lists them."""
    key = name.lower().rsplit("/", 1)[-1].replace("meta-", "").removesuffix("-instruct")
    if key in MODELS:
        return MODELS[key]
    near = difflib.get_close_matches(key, MODELS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ParameterError(f"No shape for {name!r}; there are {', '.join(MODELS)}.{hint}")


# ---------------------------------------------------------------- pieces (Lab 2)


def count_weights(config: Shape) -> tuple[float, float]:
    """Weights that multiply every token: (those of all layers together, those of the head).

    Per layer: query and output projections between hidden and heads * dim, key and value
    projections from hidden to kv_heads * dim, and three MLP matrices (gate, up, down) between
    hidden and intermediate. Once: the head, hidden to vocabulary, which is read in full whether
    or not it is tied to the embedding. The embedding is looked up row by row and norms are
    tiny: neither counts.
    """
    hidden = config.hidden_size
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    layer = hidden * (2 * queries + 2 * keys + 3 * config.intermediate_size)
    return config.num_layers * layer, hidden * config.vocab_size


def kv_bytes(config: Shape, batch: int, new: int, context: int, kv_bits: float = 16) -> float:
    """Bytes of keys and values that one step moves to and from the cache.

    Each of `batch` requests writes its `new` tokens and then reads all of its `context` tokens
    (the new ones included) once. A token keeps one key and one value vector of `head_dim`
    numbers for every KV head of every layer, `kv_bits` per number.
    """
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * kv_bits / 8
    return batch * (new + context) * per_token


def step_flops(config: Shape, weights: tuple[float, float], batch: int, new: int,
               context: int) -> float:
    """Floating-point operations of one step; a multiply and its add count as two.

    `weights` is (all layers, head) as `count_weights` gives it. Every new token of every request
    passes through the layers' weights; only the last new token of a request passes through the
    head. In each layer and query head a query meets each key it may see (itself and everything
    before it) with one multiply-add per element of head_dim for the score and one for the value.
    Softmax, norms and activations are not counted.
    """
    layers, head = weights
    matrices = 2 * batch * (new * layers + head)
    pairs = new * context - new * (new - 1) / 2  # (query, visible key) pairs of one request
    attention = 4 * batch * pairs * config.num_layers * config.num_heads * config.head_dim
    return matrices + attention


def roofline_time_s(flops: float, bytes_moved: float, flops_per_s: float,
                    bytes_per_s: float) -> float:
    """The least time in seconds for this work: computing and moving overlap perfectly.

    `flops` operations at `flops_per_s`, `bytes_moved` bytes at `bytes_per_s`; whichever takes
    longer hides the other.
    """
    return max(flops / flops_per_s, bytes_moved / bytes_per_s)


def critical_batch(fixed_bytes: float, request_bytes: float, request_flops: float,
                   flops_per_s: float, bytes_per_s: float) -> float:
    """The batch size at which a step's computing time equals its time of moving bytes.

    A step of B requests moves fixed_bytes + B * request_bytes and does B * request_flops.
    Below the returned B (a float, not rounded) the step is memory-bound, above it
    compute-bound. Returns math.inf where even the largest batch stays memory-bound.
    """
    gain = request_flops / flops_per_s - request_bytes / bytes_per_s  # seconds a request
    if gain <= 0:
        return math.inf
    return (fixed_bytes / bytes_per_s) / gain


# ---------------------------------------------------------------- the rest of the traffic


def weight_bytes(config: Shape, weight_bits: float = 16) -> float:
    """Bytes of weights that one step reads, each once, at `weight_bits` a weight.

    The width may be fractional: 4-bit values with 16-bit scale and zero per 128 have 4.25.
    """
    return sum(count_weights(config)) * weight_bits / 8


def activation_bytes(config: Shape, batch: int, new: int) -> float:
    """Bytes of hidden states written by one kernel and read by the next, and of the logits.

    Counts the input and output of each matrix product and of attention once, in 16 bits:
    elementwise work is taken as fused into its neighbours. Small in decode; in a prefill it can
    pass the weights, where it hides behind computing.
    """
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    hidden, inter = config.hidden_size, config.intermediate_size
    qkv = hidden + queries + 2 * keys
    attention = 2 * queries  # queries in, mixed values out; keys and values are kv_bytes
    projections = queries + hidden
    mlp = (hidden + 2 * inter) + (inter + hidden)
    layers = config.num_layers * (qkv + attention + projections + mlp)
    logits = hidden * ACTIVATION_BYTES + config.vocab_size * LOGIT_BYTES
    return batch * (new * layers * ACTIVATION_BYTES + logits)


def parameters(config: Shape) -> float:
    """Number of weights: the matrices, the embedding where it is not the head, the norms."""
    matrices = sum(count_weights(config))
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    norms = (2 * config.num_layers + 1) * config.hidden_size
    if getattr(config, "qk_norm", False):
        norms += 2 * config.num_layers * config.head_dim
    return matrices + embedding + norms


def kv_bytes_per_token(config: Shape, kv_bits: float = 16) -> float:
    """Bytes of cache that one token occupies: the price of remembering it."""
    return kv_bytes(config, batch=1, new=0, context=1, kv_bits=kv_bits)


def memory_needed_bytes(config: Shape, batch: int, context: int, weight_bits: float = 16,
                        kv_bits: float = 16) -> float:
    """Bytes that must fit: all weights (the embedding too) and the cache of every request."""
    stored = parameters(config) * weight_bits / 8
    return stored + batch * context * kv_bytes_per_token(config, kv_bits)


def mbu(bytes_moved: float, time_s: float, bytes_per_s: float) -> float:
    """Memory bandwidth utilisation: bytes that had to move, over what could have moved."""
    return bytes_moved / (time_s * bytes_per_s)


def mfu(flops: float, time_s: float, flops_per_s: float) -> float:
    """Model flop utilisation: operations the model needs, over what could have been done."""
    return flops / (time_s * flops_per_s)


# ---------------------------------------------------------------- prediction


@dataclass(frozen=True)
class Prediction:
    """One step on one device: what it moves, what it computes, and how long it takes at least."""

    weights_bytes: float
    kv_cache_bytes: float
    activations_bytes: float
    flops: float
    compute_s: float
    memory_s: float
    time_s: float
    tokens: int  # new tokens of all requests together
    memory_needed_bytes: float
    fits: bool

    @property
    def bytes_moved(self) -> float:
        return self.weights_bytes + self.kv_cache_bytes + self.activations_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in flop/byte."""
        return self.flops / self.bytes_moved

    @property
    def bound(self) -> str:
        return "compute" if self.compute_s > self.memory_s else "memory"

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.time_s


def predict(config: Shape, device: Device, *, batch: int = 1, new: int = 1, context: int = 1,
            weight_bits: float = 16, kv_bits: float = 16, compute: str = "bf16") -> Prediction:
    """Predict one step: the entry point of `infero roofline` and of the explorer.

    `compute` is the number format of the matrix products: bf16 also with 8- and 4-bit weights,
    unless the activations are quantized too. Raises ParameterError on a step that cannot be.
    """
    if batch < 1 or new < 1 or context < new:
        raise ParameterError(
            f"batch {batch}, new {new}, context {context}: batch and new must be at least 1, and "
            "context counts the new tokens, so it must be at least new."
        )
    weights = weight_bytes(config, weight_bits)
    cache = kv_bytes(config, batch, new, context, kv_bits)
    activations = activation_bytes(config, batch, new)
    flops = step_flops(config, count_weights(config), batch, new, context)
    peak, bandwidth = device.peak(compute), device.bandwidth_bytes_per_s
    moved = weights + cache + activations
    needed = memory_needed_bytes(config, batch, context, weight_bits, kv_bits)
    return Prediction(
        weights, cache, activations, flops,
        compute_s=flops / peak, memory_s=moved / bandwidth,
        time_s=roofline_time_s(flops, moved, peak, bandwidth),
        tokens=batch * new, memory_needed_bytes=needed,
        fits=not device.memory_bytes or needed <= device.memory_bytes,
    )


def predict_critical_batch(config: Shape, device: Device, context: int, *,
                           weight_bits: float = 16, kv_bits: float = 16,
                           compute: str = "bf16") -> float:
    """The batch at which decode at this context turns compute-bound on this device."""
    return critical_batch(
        weight_bytes(config, weight_bits),
        kv_bytes(config, 1, 1, context, kv_bits) + activation_bytes(config, 1, 1),
        step_flops(config, count_weights(config), 1, 1, context),
        device.peak(compute), device.bandwidth_bytes_per_s,
    )


# ---------------------------------------------------------------- for the command line


@dataclass(frozen=True)
class Table:
    """Text ready to print: `infero roofline` hands it to rich."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def seconds(value: float) -> str:
    """A duration with three digits and a unit a person would choose."""
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if value < limit:
            return f"{value * scale:.3g} {unit}"
    return f"{value:.3g} s"


def bits_of(spec: str | float) -> float:
    """Bits a number takes, from a format's name (`int4` counts its scales: 4.25) or a number."""
    if isinstance(spec, str):
        if spec not in FORMAT_BITS:
            raise ParameterError(
                f"{spec!r} is no known number format; there are {', '.join(FORMAT_BITS)}."
            )
        return FORMAT_BITS[spec]
    return spec


def brief(value: float) -> str:
    """A number with three digits, and thousands written out."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main_table(model: str | Shape = "smollm2-135m", device: str | Device | None = None, *,
               batch: tuple[int, ...] = (1, 8, 32, 128), context: int = 1024,
               prompt: int | None = None, weight_bits: float = 16, kv_bits: float = 16,
               compute: str = "bf16") -> Table:
    """The table of `infero roofline`: a prefill of `prompt` tokens, then decode at each batch.

    `model` is a name of `MODELS` or anything with a config's fields; `device` is what
    `hardware.resolve` takes (default: this machine).
    """
    config = shape(model) if isinstance(model, str) else model
    target = hardware.resolve(device)
    if compute == "bf16" and "bf16" not in target.peak_flops_per_s:
        compute = "fp16"  # cards before Ampere
    prompt = context if prompt is None else prompt
    steps = [(f"prefill {prompt}", 1, prompt, prompt)]
    steps += [(f"decode ×{b}", b, 1, context) for b in batch]
    rows, too_large = [], []
    for label, requests, new, length in steps:
        p = predict(config, target, batch=requests, new=new, context=length,
                    weight_bits=weight_bits, kv_bits=kv_bits, compute=compute)
        rows.append([
            label, f"{p.weights_bytes / 1e9:.3g} GB", f"{p.kv_cache_bytes / 1e9:.2g} GB",
            brief(p.flops / 1e12), brief(p.intensity), p.bound, seconds(p.time_s),
            brief(p.tokens_per_s),
        ])
        if not p.fits:
            too_large.append(f"{label} ({p.memory_needed_bytes / 1e9:,.0f} GB)")
    name = getattr(config, "name", "model") or "model"
    turn = predict_critical_batch(config, target, context, weight_bits=weight_bits,
                                  kv_bits=kv_bits, compute=compute)
    turning = "at no batch size" if math.isinf(turn) else f"at batch {math.ceil(turn):,}"
    memory = f"Not in {target.memory_bytes / 1e9:,.0f} GB of memory: {', '.join(too_large)}."
    return Table(
        title=f"{name}, {weight_bits:g}-bit weights, {kv_bits:g}-bit cache, on {target.name}",
        columns=["step", "weights", "KV", "Tflop", "flop/B", "bound", "time", "tok/s"],
        rows=rows,
        notes=[
            (f"{target.bandwidth_bytes_per_s / 1e9:,.0f} GB/s and "
             f"{target.peak(compute) / 1e12:,.3g} TFLOP/s ({compute}): {target.evidence}, "
             f"{target.date}; ridge {target.ridge(compute):,.0f} flop/byte."),
            f"At context {context:,} decode turns compute-bound {turning}.",
            *([memory] if too_large else []),
            "These are lower bounds on time. How close a real engine comes: chapter 2.",
        ],
    )


def print_prediction(model: str | Shape, device: str | Device | None = None, *, batch: int = 1,
                     context: int = 1024, weights: str | float = "bf16",
                     kv: str | float = "bf16") -> None:
    """`infero roofline`: the table at batch 1, the batch asked for, and its neighbours."""
    from rich import box
    from rich import table as rich_table
    from rich.console import Console

    batches = tuple(sorted({1, 8, 64, batch})) if batch == 1 else tuple(sorted({1, batch}))
    content = main_table(model, device, batch=batches, context=context,
                         weight_bits=bits_of(weights), kv_bits=bits_of(kv))
    table = rich_table.Table(title=content.title, box=box.SIMPLE, pad_edge=False,
                             collapse_padding=True)
    for index, column in enumerate(content.columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in content.rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in content.notes:
        console.print(note, style="dim", highlight=False)


def as_json() -> dict[str, Any]:
    """Device and model tables as plain data, for the roofline explorer."""
    return hardware.as_json() | {"models": {key: asdict(m) for key, m in MODELS.items()}}
