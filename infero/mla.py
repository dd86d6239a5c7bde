"""Multi-head latent attention (MLA): one small vector a token in place of every head's K and V.

For study: the engine's models use grouped heads. Chapter 7 derives the two forms of the same
mathematics that stand here. The expanded form makes every head's keys and values from the cached
latent; the absorbed form moves those two matrices to the query's side, so that all heads read the
latent itself. Lab 7 has the reader write the second. Source: DeepSeek-V2, arXiv:2405.04434,
section 2.1; without its compression of queries, which no cache sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infero import generate as loops
from infero import model as model_module

EPS = 1e-6


@dataclass(frozen=True)
class MLAConfig:
    """Sizes of the attention: counts of elements, `dim` without the rotary features."""

    layers: int
    hidden: int
    heads: int
    dim: int  # content features of a head's query and key
    rope_dim: int  # rotary features of a head's query; the keys' are common to all heads
    v_dim: int  # features of a head's value
    rank: int  # features of the latent

    @property
    def scale(self) -> float:
        return (self.dim + self.rope_dim) ** -0.5

    def bytes_per_token(self, bytes_per_element: int = 2) -> int:
        """Cache of one token: a latent and a rotary key in every layer."""
        return self.layers * (self.rank + self.rope_dim) * bytes_per_element

    def expanded_bytes_per_token(self, bytes_per_element: int = 2) -> int:
        """What it would be if every head's key and value were cached."""
        features = self.dim + self.rope_dim + self.v_dim
        return self.layers * self.heads * features * bytes_per_element

    def flops_per_cached_token(self, absorbed: bool) -> int:
        """Operations of one query in one layer for each token of its context, all heads."""
        content, mixed = (self.rank, self.rank) if absorbed else (self.dim, self.v_dim)
        return 2 * self.heads * (content + self.rope_dim + mixed)


DEEPSEEK_V3 = MLAConfig(layers=61, hidden=7168, heads=128, dim=128, rope_dim=64, v_dim=128,
                        rank=512)  # arXiv:2412.19437, section 4.2


def causal_softmax(scores: Tensor) -> Tensor:
    """Attention weights from scores [heads, queries, context], in float32 or better.

    The queries are the last `queries` positions of the context; later positions get weight 0.
    """
    _, queries, context = scores.shape
    ones = torch.ones(queries, context, dtype=torch.bool, device=scores.device)
    wide = scores if scores.dtype == torch.float64 else scores.float()
    hidden = wide.masked_fill(ones.triu(context - queries + 1), -math.inf)
    return hidden.softmax(dim=-1).to(scores.dtype)


def expanded_attention(q: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, w_uk: Tensor,
                       w_uv: Tensor, scale: float) -> Tensor:
    """The same as `absorbed_attention`, by making the keys and values of every head first."""
    k = torch.einsum("cr,hdr->chd", latent, w_uk)  # [context, heads, dim]
    v = torch.einsum("cr,hvr->chv", latent, w_uv)  # [context, heads, v_dim]
    scores = torch.einsum("qhd,chd->hqc", q, k) + torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    return torch.einsum("hqc,chv->qhv", causal_softmax(scores * scale), v)


def absorbed_attention(q: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, w_uk: Tensor,
                       w_uv: Tensor, scale: float) -> Tensor:
    """Causal latent attention that reads the cache as it is: no head's keys or values are made.

    q: [queries, heads, dim], q_rope: [queries, heads, rope_dim], both of the newest tokens;
    latent: [context, rank] and k_rope: [context, rope_dim], the cache. Head h would have the keys
    latent @ w_uk[h].T and the values latent @ w_uv[h].T, with w_uk: [heads, dim, rank] and
    w_uv: [heads, v_dim, rank]; k_rope is common to all heads. Scores are
    scale * (q · key + q_rope · k_rope). Returns [queries, heads, v_dim] in q's dtype, and forms
    no tensor that has context, heads and dim (or v_dim) together.
    """
    q_latent = torch.einsum("qhd,hdr->qhr", q, w_uk)  # the keys' matrix, moved to the query
    content = torch.einsum("qhr,cr->hqc", q_latent, latent)
    position = torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    weights = causal_softmax((content + position) * scale)
    mixed = torch.einsum("hqc,cr->qhr", weights, latent)  # a mean of latents
    return torch.einsum("qhr,hvr->qhv", mixed, w_uv)  # the values' matrix, once a query


# ---------------------------------------------------------------- a small model that decodes


@dataclass(repr=False)
class Layer:
    """Weights of one block; matrices are `[out, in]`, the two up-projections one a head."""

    attention_norm: Tensor  # [hidden]
    q: Tensor  # [heads * (dim + rope_dim), hidden]
    down_kv: Tensor  # [rank + rope_dim, hidden]: the latent and the rotary key
    latent_norm: Tensor  # [rank]
    w_uk: Tensor  # [heads, dim, rank]
    w_uv: Tensor  # [heads, v_dim, rank]
    o: Tensor  # [hidden, heads * v_dim]
    mlp_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor  # [hidden, intermediate]


@dataclass(repr=False)
class MLAModel:
    config: MLAConfig
    embedding: Tensor  # [vocab, hidden], the head too
    layers: list[Layer]
    final_norm: Tensor  # [hidden]
    inv_freq: Tensor  # [rope_dim / 2]


@dataclass
class LatentCache:
    """What MLA remembers: latent [layers, slots, rank] and k_rope [layers, slots, rope_dim]."""

    latent: Tensor
    k_rope: Tensor

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.latent, self.k_rope))


def random_model(config: MLAConfig, *, vocab: int = 64, intermediate: int = 64, seed: int = 0,
                 dtype: torch.dtype = torch.float64) -> MLAModel:
    """A model with random weights that keep activations at their size."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype) * shape[-1] ** -0.5

    c = config
    layers = [
        Layer(
            attention_norm=torch.ones(c.hidden, dtype=dtype),
            q=normal(c.heads * (c.dim + c.rope_dim), c.hidden),
            down_kv=normal(c.rank + c.rope_dim, c.hidden),
            latent_norm=torch.ones(c.rank, dtype=dtype),
            w_uk=normal(c.heads, c.dim, c.rank),
            w_uv=normal(c.heads, c.v_dim, c.rank),
            o=normal(c.hidden, c.heads * c.v_dim),
            mlp_norm=torch.ones(c.hidden, dtype=dtype),
            gate_up=normal(2 * intermediate, c.hidden),
            down=normal(c.hidden, intermediate),
        )
        for _ in range(c.layers)
    ]
    frequencies = 10_000.0 ** (-torch.arange(0, c.rope_dim, 2) / c.rope_dim)
    return MLAModel(c, normal(vocab, c.hidden), layers, torch.ones(c.hidden, dtype=dtype),
                    frequencies)


def allocate(model: MLAModel, slots: int) -> LatentCache:
    c = model.config
    return LatentCache(model.embedding.new_zeros(c.layers, slots, c.rank),
                       model.embedding.new_zeros(c.layers, slots, c.rope_dim))


def attend(model: MLAModel, index: int, h: Tensor, start: int, cache: LatentCache,
           absorbed: bool) -> Tensor:
    """Attention of one layer: h [tokens, hidden] in and out, the first token at `start`."""
    c, layer, n = model.config, model.layers[index], len(h)
    positions = torch.arange(start, start + n)
    q, q_rope = F.linear(h, layer.q).view(n, c.heads, -1).split((c.dim, c.rope_dim), dim=-1)
    latent, k_rope = F.linear(h, layer.down_kv).split((c.rank, c.rope_dim), dim=-1)
    q_rope = model_module.rope(q_rope, positions, model.inv_freq)
    k_rope = model_module.rope(k_rope[:, None], positions, model.inv_freq)[:, 0]
    cache.latent[index, positions] = F.rms_norm(latent, (c.rank,), layer.latent_norm, EPS)
    cache.k_rope[index, positions] = k_rope
    seen = (cache.latent[index, : start + n], cache.k_rope[index, : start + n])
    if absorbed:
        mixed = absorbed_attention(q, q_rope, *seen, layer.w_uk, layer.w_uv, c.scale)
    else:
        mixed = expanded_attention(q, q_rope, *seen, layer.w_uk, layer.w_uv, c.scale)
    return F.linear(mixed.reshape(n, -1), layer.o)


def step(model: MLAModel, cache: LatentCache, tokens: list[int], start: int,
         absorbed: bool) -> Tensor:
    """Run new tokens, the first at position `start`: logits [vocab] of the last."""
    x = model.embedding[tokens]
    width = (model.config.hidden,)
    for index, layer in enumerate(model.layers):
        h = F.rms_norm(x, width, layer.attention_norm, EPS)
        x = x + attend(model, index, h, start, cache, absorbed)
        gate, up = F.linear(F.rms_norm(x, width, layer.mlp_norm, EPS), layer.gate_up).chunk(2, -1)
        x = x + F.linear(model_module.swiglu(gate, up), layer.down)
    return F.linear(F.rms_norm(x[-1], width, model.final_norm, EPS), model.embedding)


def greedy(model: MLAModel, prompt: list[int], max_new_tokens: int, absorbed: bool) -> list[int]:
    """Decode greedily over a latent cache. The prompt is prefilled in the expanded form, which
    is cheaper for many queries; the decode steps take the form asked for."""
    cache = allocate(model, len(prompt) + max_new_tokens)

    def run(tokens: list[int], start: int) -> Tensor:
        return step(model, cache, tokens, start, absorbed and start > 0)

    def pick(logits: Tensor, position: int) -> int:
        return int(logits.argmax())

    return list(loops.cached_loop(run, pick, prompt, max_new_tokens, frozenset()))
