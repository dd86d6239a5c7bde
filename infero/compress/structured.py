"""Smaller ordinary models: whole layers, groups of heads and neurons taken out.

Chapter 6 explains them. What is left is a dense model of another shape, so that any engine runs it
faster, without a kernel of its own. A score says what matters least:

    layer    its block influence, 1 - cosine of what goes in and what comes out (ShortGPT,
             arXiv:2403.03853)
    head     how much it adds to the residual stream (Michel et al., arXiv:1905.10650, switch heads
             off by gates; here what a closed gate would take away is worked out from the Hessian)
    neuron   its typical size times the size of its column of `down` (the score of Wanda, summed)

`refit` then lets what stays make up for what goes, by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from infero.errors import ConfigError
from infero.model import Layer, Model, ModelConfig
from infero.quant import calibration

DAMPING = 0.01


# ---------------------------------------------------------------- importance


def block_influence(before: Tensor, after: Tensor) -> float:
    """How far a layer turns its tokens: the mean over tokens of 1 - cosine(before, after).

    before, after: [tokens, hidden], the residual stream as it enters and leaves the layer. Computed
    in float32. 0: the layer changes no direction; the larger, the more it matters.
    """
    x, y = before.float(), after.float()
    cosine = (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return float((1 - cosine).mean())


def layer_importance(model: Model, ids: Tensor,
                     progress: Callable[[int], None] | None = None) -> list[float]:
    """The block influence of every layer on sequences ids [n, length]."""
    hidden, scores = calibration.embed(model, ids), list[float]()
    for index in range(model.config.num_layers):
        after = calibration.advance(model, index, hidden)
        scores.append(block_influence(hidden.flatten(0, 1), after.flatten(0, 1)))
        hidden = after
        if progress is not None:
            progress(index)
    return scores


def head_importance(config: ModelConfig, o: Tensor, hessian: Tensor) -> Tensor:
    """What each query head adds to the residual stream: the mean square of its part. [heads].

    o: [hidden, heads * dim]; hessian: [heads * dim, heads * dim], the mean of z zᵀ over the inputs
    z of o. Head h adds o_h z_h, and the mean of |o_h z_h|² is the trace of o_h H_hh o_hᵀ.
    """
    heads, dim = config.num_heads, config.head_dim
    parts = o.float().view(-1, heads, dim).transpose(0, 1)  # [heads, hidden, dim]
    blocks = hessian.view(heads, dim, heads, dim)
    own = torch.stack([blocks[h, :, h] for h in range(heads)])  # [heads, dim, dim]
    return ((parts @ own) * parts).sum(dim=(1, 2))


def neuron_importance(down: Tensor, mean_square: Tensor) -> Tensor:
    """What each neuron of the MLP adds: mean square times its column's. [intermediate].

    down: [hidden, intermediate]; mean_square: [intermediate], of the inputs of down.
    """
    return mean_square * down.float().square().sum(dim=0)


# ---------------------------------------------------------------- taking out


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """The model with only these layers, in ascending order; weights are shared, not copied."""
    c, kept = model.config, sorted(set(layers))
    if not kept or kept[0] < 0 or kept[-1] >= c.num_layers:
        raise ConfigError(f"Layers {list(layers)} were asked for; the model has 0 to "
                          f"{c.num_layers - 1}, and at least one must stay.")
    windows = None if c.sliding_layers is None else tuple(
        new for new, old in enumerate(kept) if old in c.sliding_layers)
    config = replace(c, num_layers=len(kept), sliding_layers=windows)
    return replace(model, config=config, layers=[model.layers[i] for i in kept])


def drop_layers(model: Model, count: int, importance: Sequence[float]) -> Model:
    """The model without the `count` layers of least importance."""
    if not 0 <= count < model.config.num_layers:
        raise ConfigError(f"{count} layers of {model.config.num_layers} cannot be dropped: at least"
                          " one must stay.")
    order = sorted(range(model.config.num_layers), key=lambda i: importance[i])
    return keep_layers(model, order[count:])


def keep_neurons(layer: Layer, kept: Tensor) -> Layer:
    """The layer with only these neurons of its MLP; kept: [n] int64, ascending."""
    inter = layer.gate_up.shape[0] // 2
    rows = torch.cat((kept, kept + inter))
    bias = None if layer.gate_up_bias is None else layer.gate_up_bias[rows]
    return replace(layer, gate_up=layer.gate_up[rows], gate_up_bias=bias,
                   down=layer.down[:, kept].contiguous())


def keep_groups(config: ModelConfig, layer: Layer, kept: Tensor) -> Layer:
    """The layer with only these KV heads and the query heads that read them; kept: [n] ascending.

    In grouped-query attention a KV head serves heads / kv_heads query heads. Taking out some of
    them would leave groups of different sizes, so a group goes or stays as a whole.
    """
    dim, group = config.head_dim, config.num_heads // config.num_kv_heads
    within = torch.arange(group * dim, device=kept.device)
    queries = (kept[:, None] * group * dim + within).flatten()  # rows of q, columns of o
    keys = (kept[:, None] * dim + torch.arange(dim, device=kept.device)).flatten()
    first_k = config.num_heads * dim
    first_v = first_k + config.num_kv_heads * dim
    rows = torch.cat((queries, keys + first_k, keys + first_v))
    bias = None if layer.qkv_bias is None else layer.qkv_bias[rows]
    return replace(layer, qkv=layer.qkv[rows], qkv_bias=bias, o=layer.o[:, queries].contiguous())


def refit(weight: Tensor, hessian: Tensor, kept: Tensor, damping: float = DAMPING) -> Tensor:
    """The columns that stay, moved so that the output changes least when the others go.

    weight: [out, in]; hessian: [in, in], the mean of x xᵀ; kept: [n] int64. Minimises the mean of
    |W x - V x[kept]|² over V [out, n]: V = W H[:, kept] H[kept, kept]⁻¹. Returns weight's dtype.
    """
    h = hessian.float()
    inner = h[kept][:, kept].clone()
    inner.diagonal().add_(damping * h.diagonal().mean() + 1e-12)
    right = weight.float() @ h[:, kept]
    # damping pulls towards the columns as they were, not towards 0
    right += damping * h.diagonal().mean() * weight.float()[:, kept]
    return torch.cholesky_solve(right.t(), torch.linalg.cholesky(inner)).t().to(weight.dtype)


# ---------------------------------------------------------------- a whole model


def narrow(model: Model, ids: Tensor, *, intermediate: int | None = None,
           kv_heads: int | None = None, refitted: bool = True,
           progress: Callable[[int], None] | None = None) -> Model:
    """A narrower model: the most important neurons and KV groups of each layer stay.

    ids: [n, length], the calibration sequences. `intermediate` neurons and `kv_heads` KV heads
    remain in every layer. Layers are done in order, each on what the narrower ones before it send.
    """
    c = model.config
    inter, kv_heads = intermediate or c.intermediate_size, kv_heads or c.num_kv_heads
    if not (0 < inter <= c.intermediate_size and 0 < kv_heads <= c.num_kv_heads):
        raise ConfigError(f"{inter} neurons and {kv_heads} KV heads were asked for; the model has "
                          f"{c.intermediate_size} and {c.num_kv_heads}.")
    config = replace(c, num_heads=kv_heads * (c.num_heads // c.num_kv_heads),
                     num_kv_heads=kv_heads, intermediate_size=inter)
    hidden, layers = calibration.embed(model, ids), list[Layer]()
    for index, layer in enumerate(model.layers):
        if kv_heads < c.num_kv_heads:
            stats = calibration.layer_stats(model, index, hidden, names=("o",))["o"]
            layer = _fewer_groups(c, layer, stats.hessian, kv_heads, refitted)
        middle = replace(model, layers=[*model.layers[:index], layer], config=replace(
            config, num_layers=index + 1, intermediate_size=c.intermediate_size))
        if inter < c.intermediate_size:
            stats = calibration.layer_stats(middle, index, hidden, names=("down",))["down"]
            layer = _fewer_neurons(layer, stats.hessian, inter, refitted)
        done = replace(middle, layers=[*model.layers[:index], layer],
                       config=replace(config, num_layers=index + 1))
        hidden = calibration.advance(done, index, hidden)
        layers.append(layer)
        if progress is not None:
            progress(index)
    return replace(model, config=config, layers=layers)


def _fewer_groups(config: ModelConfig, layer: Layer, hessian: Tensor | None, count: int,
                  refitted: bool) -> Layer:
    assert hessian is not None
    heads = head_importance(config, layer.o, hessian)
    kept = _best(heads.view(config.num_kv_heads, -1).sum(dim=1), count)
    smaller = keep_groups(config, layer, kept)
    if refitted:
        width = config.num_heads // config.num_kv_heads * config.head_dim
        columns = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
        smaller.o = refit(layer.o, hessian, columns)
    return smaller


def _fewer_neurons(layer: Layer, hessian: Tensor | None, count: int, refitted: bool) -> Layer:
    assert hessian is not None
    kept = _best(neuron_importance(layer.down, hessian.diagonal()), count)
    smaller = keep_neurons(layer, kept)
    if refitted:
        smaller.down = refit(layer.down, hessian, kept)
    return smaller


def _best(scores: Tensor, count: int) -> Tensor:
    """Indexes of the `count` largest scores, ascending."""
    return scores.topk(count).indices.sort().values
