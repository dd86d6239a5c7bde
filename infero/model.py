"""The transformer: weights in, logits out, for the Llama family of architectures.

Chapter 1 explains every function here. The four small functions at the top (`rms_norm`,
`rope`, `attention`, `swiglu`) are exercises of Lab 1 and say what each operation is. The forward
pass calls them through `kernels`, which runs a learner's version where one is installed, and
otherwise the fastest way to the same numbers.

A forward pass has no "prefill mode" and no "decode mode". It takes T new tokens that belong
to R requests, laid end to end without padding, and a `Batch` that says which token belongs
where. Prefill is the case of many new tokens, decode the case of one.

Sources: Llama (arXiv:2302.13971), RMSNorm (arXiv:1910.07467), RoPE (arXiv:2104.09864),
GQA (arXiv:2305.13245), SwiGLU (arXiv:2002.05202), sliding windows (arXiv:2310.06825).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: F401  the answers of Lab 1 are written with it
from torch import Tensor

from infero import kernels
from infero.cache import kv
from infero.errors import ConfigError

if TYPE_CHECKING:
    from infero.cache.kv import KVCache
    from infero.tokenizer import Tokenizer

QUERY_CHUNK = 512  # rows of attention scores held at once; bounds memory on long prompts


# ---------------------------------------------------------------- configuration


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    `kind` is "llama3" (the Llama 3.1 recipe: leave fast pairs, divide slow pairs by `factor`,
    blend between) or "linear" (divide every frequency by `factor`, arXiv:2306.15595).
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Sizes are counts of elements, `max_context` is in tokens."""

    architecture: str  # "llama" | "qwen2" | "qwen3" | "mistral"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] | None = None  # None: every layer, if there is a window
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_size", "m_layers", "_heads", "_dim", "_context")) and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} KV heads evenly; "
                "num_heads must be a multiple of num_kv_heads."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; RoPE rotates pairs: make it even.")

    def window(self, layer: int) -> int | None:
        """The sliding window of one layer in tokens, or None where it attends to everything."""
        if self.sliding_layers is not None and layer not in self.sliding_layers:
            return None
        return self.sliding_window


@dataclass(repr=False)
class Layer:
    """Weights of one transformer block, every matrix as `[out, in]`.

    Query, key and value projections are stacked into one matrix (queries first), and so are
    gate and up: one large matrix product is faster than three small ones.
    """

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [(heads + 2 * kv_heads) * dim, hidden]
    o: Tensor  # [hidden, heads * dim]
    post_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor  # [hidden, intermediate]
    qkv_bias: Tensor | None = None
    o_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None  # [dim]
    k_norm: Tensor | None = None  # [dim]


@dataclass(repr=False)
class Model:
    """A model's weights with its configuration and tokenizer."""

    config: ModelConfig
    embedding: Tensor  # [vocab, hidden]
    layers: list[Layer]
    final_norm: Tensor  # [hidden]
    head: Tensor  # [vocab, hidden]; the embedding itself when they are tied
    inv_freq: Tensor  # [dim / 2] float32
    tokenizer: Tokenizer | None = None
    name: str = ""

    def __repr__(self) -> str:
        return (f"<Model {self.name or self.config.architecture}: {self.config.num_layers} layers, "
                f"{self.parameter_bytes() / 1e6:,.0f} MB of {self.dtype} on {self.device}>")

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def parameter_bytes(self) -> int:
        """Bytes of all weights; a tied head is counted once."""
        tensors = [self.embedding, self.final_norm]
        if self.head is not self.embedding:
            tensors.append(self.head)
        for layer in self.layers:
            tensors += [t for t in vars(layer).values() if t is not None]
        return sum(t.nbytes for t in tensors)


@dataclass
class Batch:
    """Where each of the T new tokens of one forward pass belongs.

    The tokens of request 0 come first, then those of request 1, and so on; `query_lens`
    says how many each brings, `context_lens` how many it has in the cache once they are
    written. The KV cache is an array of slots grouped into blocks of `block_size`; token p
    of request r lives in slot `block_tables[r, p // block_size] * block_size + p % block_size`.
    `memo` keeps what kernels work out once a step and use in every layer.
    """

    positions: Tensor  # [tokens] int64, position of each new token in its own request
    slots: Tensor  # [tokens] int64, cache slot it is written to
    block_tables: Tensor  # [requests, blocks] int64
    block_size: int
    query_lens: list[int] = field(default_factory=list)
    context_lens: list[int] = field(default_factory=list)
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def tables_on_host(self) -> list[list[int]] | None:
        """The block tables as lists, where reading them does not make the host wait for a GPU."""
        if self.block_tables.is_cuda and self.block_tables.shape[1] > 1:
            return None
        return self.block_tables.tolist()

    @cached_property
    def context_slots(self) -> list[Tensor | slice]:
        """Slots of each request's cached tokens, in order: a slice where they are contiguous."""
        size, found = self.block_size, list[Tensor | slice]()
        first_blocks = self.block_tables[:, 0].tolist()
        for request, length in enumerate(self.context_lens):
            block = first_blocks[request]
            if length <= size:
                found.append(slice(block * size, block * size + length))
            else:
                p = torch.arange(length, device=self.block_tables.device)
                found.append(self.block_tables[request, p // size] * size + p % size)
        return found


# ---------------------------------------------------------------- pieces (Lab 1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale each row of `x` to unit root mean square, then multiply by `weight`.

    x: [tokens, hidden] (or any leading shape); weight: [hidden]. Returns x's shape and dtype.
    The statistics are computed in float32: the sum of hundreds of squares does not fit
    bfloat16's eight bits of precision. Source: Zhang and Sennrich, arXiv:1910.07467.
    """
    wide = x.float()
    mean_square = wide.pow(2).mean(dim=-1, keepdim=True)
    normed = wide * torch.rsqrt(mean_square + eps)
    return normed.to(x.dtype) * weight


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Rotate each pair (i, i + dim/2) of every head by the angle position * inv_freq[i].

    x: [tokens, heads, dim]; positions: [tokens] integers; inv_freq: [dim/2] radians a token.
    Returns x's shape and dtype. Angles, sines and cosines are computed in float32.
    Source: Su et al., arXiv:2104.09864, in the half-split layout of the published weights.
    """
    angles = positions.float()[:, None] * inv_freq  # [tokens, dim/2]
    cos = angles.cos()[:, None, :].to(x.dtype)  # [tokens, 1, dim/2]
    sin = angles.sin()[:, None, :].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None
) -> Tensor:
    """Causal grouped-query attention of one request's newest tokens over its whole context.

    q: [queries, heads, dim]; k, v: [context, kv_heads, dim], context >= queries.
    Returns [queries, heads, dim] in q's dtype. The queries are the last `queries` positions of
    the context. Query head h reads KV head h // (heads // kv_heads). A query at position i sees
    positions j <= i, and with a window only those with j > i - window. Softmax is in float32.
    Source: Vaswani et al., arXiv:1706.03762; grouped heads: Ainslie et al., arXiv:2305.13245.
    """
    queries, heads, dim = q.shape
    context, kv_heads, _ = k.shape
    grouped = q.reshape(queries, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("qhgd,chd->hgqc", grouped, k).float() * scale
    i = torch.arange(context - queries, context, device=q.device)[:, None]  # query positions
    j = torch.arange(context, device=q.device)[None, :]  # key positions
    hidden = j > i if window is None else (j > i) | (j <= i - window)
    probs = scores.masked_fill(hidden, -math.inf).softmax(dim=-1).to(v.dtype)
    return torch.einsum("hgqc,chd->qhgd", probs, v).reshape(queries, heads, dim)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """The gated activation of the MLP: silu(gate) * up, with silu(g) = g * sigmoid(g).

    gate, up: [tokens, intermediate]. Returns the same shape and dtype.
    Source: Shazeer, arXiv:2002.05202.
    """
    return gate * torch.sigmoid(gate) * up


# ---------------------------------------------------------------- the forward pass


def rope_frequencies(config: ModelConfig) -> Tensor:
    """The angle by which each rotary pair turns per token: [head_dim / 2] float32, in radians.

    Pair i turns by theta ** (-2i / dim). Llama 3.1's scaling divides the frequencies of pairs
    that never finish a turn inside the trained context by `factor` and blends the rest
    (arXiv:2407.21783, section 3.4.2, and the published configuration's four numbers).
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    inv_freq = 1.0 / config.rope_theta**exponents
    if (scaling := config.rope_scaling) is None:
        return inv_freq
    if scaling.kind == "linear":
        return inv_freq / scaling.factor
    if scaling.kind == "llama3":
        turns = scaling.original_context * inv_freq / (2 * math.pi)  # turns in trained context
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)  # 0: divide, 1: leave alone
        return (1 - keep) * inv_freq / scaling.factor + keep * inv_freq
    raise ConfigError(f"RoPE scaling {scaling.kind!r} is not supported; known: linear, llama3.")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [tokens, in] times weight [out, in] transposed, plus bias: [tokens, out].

    Every matrix product of the model goes through here: the one place where other weight
    formats and kernels are chosen.
    """
    return kernels.linear(x, weight, bias)


def attend(q: Tensor, k: Tensor, v: Tensor, batch: Batch, scale: float,
           window: int | None) -> Tensor:
    """Attention of a ragged batch over the cache: one call of `attention` a request and chunk.

    q: [tokens, heads, dim]; k, v: one layer of the cache, [slots, kv_heads, dim].
    Returns [tokens, heads, dim]. Queries go in chunks of at most QUERY_CHUNK, each seeing the
    context up to its own end, so that memory grows with the context and not with its square.
    """
    out = torch.empty_like(q)
    start = 0
    for n, context, slots in zip(
        batch.query_lens, batch.context_lens, batch.context_slots, strict=True
    ):
        keys, values = k[slots], v[slots]
        for low in range(0, n, QUERY_CHUNK):
            high = min(low + QUERY_CHUNK, n)
            seen = context - n + high
            out[start + low : start + high] = attention(
                q[start + low : start + high], keys[:seen], values[:seen], scale, window
            )
        start += n
    return out


def block(model: Model, index: int, x: Tensor, batch: Batch, cache: KVCache) -> Tensor:
    """One transformer block: x [tokens, hidden] in, the same shape out; writes the cache."""
    config, layer = model.config, model.layers[index]
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim

    h = kernels.rms_norm(x, layer.input_norm, config.norm_eps)
    qkv = linear(h, layer.qkv, layer.qkv_bias).view(-1, heads + 2 * kv_heads, dim)
    qk, v = qkv.split((heads + kv_heads, kv_heads), dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q = kernels.rms_norm(qk[:, :heads], layer.q_norm, config.norm_eps)
        k = kernels.rms_norm(qk[:, heads:], layer.k_norm, config.norm_eps)
        qk = torch.cat((q, k), dim=1)
    q, k = kernels.rope(qk, batch, model.inv_freq).split((heads, kv_heads), dim=1)
    kv.write(cache, index, batch.slots, k, v)
    mixed = kernels.attention(q, cache.k[index], cache.v[index], batch, dim**-0.5,
                              config.window(index))
    x = x + linear(mixed.reshape(-1, heads * dim), layer.o, layer.o_bias)

    h = kernels.rms_norm(x, layer.post_norm, config.norm_eps)
    gate, up = linear(h, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
    return x + linear(kernels.swiglu(gate, up), layer.down, layer.down_bias)


@torch.inference_mode()
def forward(model: Model, tokens: Tensor, batch: Batch, cache: KVCache,
            rows: Tensor | None = None) -> Tensor:
    """Run T new tokens through the model, writing their keys and values into the cache.

    tokens: [tokens] int64. Returns float32 logits [rows, vocab] for the token indexes in
    `rows`, or for every token when `rows` is None. The head is the largest matrix of a small
    model, so ask only for the rows that will be sampled.
    """
    x = kernels.embed(tokens, model.embedding)
    for index in range(model.config.num_layers):
        x = block(model, index, x, batch, cache)
    if rows is not None:
        x = x[rows]
    return linear(kernels.rms_norm(x, model.final_norm, model.config.norm_eps), model.head).float()


def random_model(config: ModelConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32,
                 device: str | torch.device = "cpu") -> Model:
    """A model of the given shape with random weights, for tests and for speed at real scale.

    Matrices are normal with standard deviation in ** -0.5, so activations keep their size.
    """
    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int, scale: float) -> Tensor:
        t = torch.empty(shape, dtype=dtype, device=device)
        return t.normal_(0.0, scale, generator=generator)

    c = config
    hidden, inter, q_out = c.hidden_size, c.intermediate_size, c.num_heads * c.head_dim
    qkv_out = q_out + 2 * c.num_kv_heads * c.head_dim

    def ones(n: int) -> Tensor:
        return 1 + normal(n, scale=0.1)

    layers = [
        Layer(
            input_norm=ones(hidden),
            qkv=normal(qkv_out, hidden, scale=hidden**-0.5),
            o=normal(hidden, q_out, scale=q_out**-0.5),
            post_norm=ones(hidden),
            gate_up=normal(2 * inter, hidden, scale=hidden**-0.5),
            down=normal(hidden, inter, scale=inter**-0.5),
            qkv_bias=normal(qkv_out, scale=0.1) if c.qkv_bias else None,
            o_bias=normal(hidden, scale=0.1) if c.o_bias else None,
            gate_up_bias=normal(2 * inter, scale=0.1) if c.mlp_bias else None,
            down_bias=normal(hidden, scale=0.1) if c.mlp_bias else None,
            q_norm=ones(c.head_dim) if c.qk_norm else None,
            k_norm=ones(c.head_dim) if c.qk_norm else None,
        )
        for _ in range(c.num_layers)
    ]
    embedding = normal(c.vocab_size, hidden, scale=hidden**-0.5)
    head = embedding if c.tie_embeddings else normal(c.vocab_size, hidden, scale=hidden**-0.5)
    return Model(c, embedding, layers, ones(hidden), head, rope_frequencies(c).to(device))
