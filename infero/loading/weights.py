"""Puts a checkpoint's tensors into the engine's own layout, one at a time.

The engine stacks query, key and value matrices, and gate and up, into one matrix each. The
stacked matrix is allocated first and every part is read, converted and copied into its rows,
so the peak memory is the model itself plus one decoded chunk.

First everything is *planned*: which tensor goes where, with its expected shape. A missing,
superfluous or mis-shaped tensor is therefore an error before any memory is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from infero.errors import LoadError
from infero.model import Layer, Model, ModelConfig, rope_frequencies

Shape = tuple[int, ...]
# Reads one tensor: flat chunks in order. `heads` > 0 asks for rows turned back from the
# interleaved to the rotate-half layout (GGUF files of architecture "llama").
Reader = Callable[[str, int], Iterable[Tensor]]

HF_NAMES = {
    "embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head",
    "layer": "model.layers.{}.", "input_norm": "input_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm",
    "post_norm": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
GGUF_NAMES = {
    "embedding": "token_embd", "final_norm": "output_norm", "head": "output", "layer": "blk.{}.",
    "input_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "q_norm": "attn_q_norm", "k_norm": "attn_k_norm", "post_norm": "ffn_norm",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}


@dataclass(frozen=True)
class Part:
    """One tensor of the checkpoint: its shape and, for q and k, how many heads it rotates."""

    name: str
    shape: Shape
    heads: int = 0


Plan = dict[str, list[Part]]  # "3.qkv" → the parts stacked into it, top to bottom


def plan(config: ModelConfig, names: Mapping[str, str]) -> Iterator[tuple[str, list[Part]]]:
    """Yield every tensor of the engine with the checkpoint's tensors that make it up."""
    c = config
    hidden, inter, dim = c.hidden_size, c.intermediate_size, c.head_dim
    q_out, kv_out = c.num_heads * dim, c.num_kv_heads * dim

    def one(key: str, *shape: int, kind: str = "weight", prefix: str = "", heads: int = 0) -> Part:
        return Part(f"{prefix}{names[key]}.{kind}", shape, heads)

    yield "embedding", [one("embedding", c.vocab_size, hidden)]
    yield "final_norm", [one("final_norm", hidden)]
    if not c.tie_embeddings:
        yield "head", [one("head", c.vocab_size, hidden)]
    for i in range(c.num_layers):
        at = names["layer"].format(i)
        yield f"{i}.input_norm", [one("input_norm", hidden, prefix=at)]
        yield f"{i}.post_norm", [one("post_norm", hidden, prefix=at)]
        stacks = {
            "qkv": (c.qkv_bias, hidden, [("q", q_out, c.num_heads), ("k", kv_out, c.num_kv_heads),
                                         ("v", kv_out, 0)]),
            "o": (c.o_bias, q_out, [("o", hidden, 0)]),
            "gate_up": (c.mlp_bias, hidden, [("gate", inter, 0), ("up", inter, 0)]),
            "down": (c.mlp_bias, inter, [("down", hidden, 0)]),
        }
        for target, (bias, width, parts) in stacks.items():
            yield f"{i}.{target}", [
                one(key, rows, width, prefix=at, heads=heads) for key, rows, heads in parts]
            if bias:
                yield f"{i}.{target}_bias", [
                    one(key, rows, kind="bias", prefix=at, heads=heads)
                    for key, rows, heads in parts]
        if c.qk_norm:
            yield f"{i}.q_norm", [one("q_norm", dim, prefix=at)]
            yield f"{i}.k_norm", [one("k_norm", dim, prefix=at)]


def checked_plan(config: ModelConfig, names: Mapping[str, str], shapes: Mapping[str, Shape],
                 where: str) -> Plan:
    """The whole plan, once every tensor is known to be there, in its shape, and none is left."""
    left = dict(shapes)
    result: Plan = {}
    for target, parts in plan(config, names):
        for part in parts:
            shape = left.pop(part.name, None)
            if shape is None:
                raise LoadError(f"{where} has no tensor {part.name!r}, which a model of kind "
                                f"{config.architecture} with {config.num_layers} layers needs; "
                                "fetch it again.")
            if tuple(shape) != part.shape:
                raise LoadError(f"{where}: tensor {part.name!r} has shape {list(shape)}, but its "
                                f"configuration makes it {list(part.shape)}; the two do not belong "
                                "together. Fetch the model again.")
        result[target] = parts
    ignored = {names["head"] + ".weight"} if config.tie_embeddings else set()
    ignored |= {name for name in left if "rotary_emb" in name or "rope_freqs" in name}
    extra = [name for name in left if name not in ignored]
    if extra:
        raise LoadError(f"{where} holds {len(extra)} tensors that a {config.architecture} model of "
                        f"{config.num_layers} layers has no place for, such as {extra[0]!r}; the "
                        "configuration and the weights do not belong together.")
    return result


def half_split(heads: int, dim: int) -> Tensor:
    """The order that turns interleaved rows into the rotate-half layout: [heads * dim] int64.

    GGUF files of architecture "llama" pair the rows 2i and 2i + 1 of each head for RoPE, the engine
    i and i + dim / 2.
    """
    return torch.arange(heads * dim).view(heads, -1, 2).transpose(1, 2).reshape(-1)


def fill(wanted: Plan, read: Reader, dtype: torch.dtype, device: torch.device,
         progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> dict[str, Tensor]:
    """Allocate every tensor of the plan and copy the checkpoint's values into it."""
    tensors = {}
    for target in progress(list(wanted)):
        parts = wanted[target]
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        tensor = torch.empty(shape, dtype=dtype, device=device)
        flat, at = tensor.view(-1), 0
        for part in parts:
            for chunk in read(part.name, part.heads):
                flat[at : at + chunk.numel()].copy_(chunk)
                at += chunk.numel()
        if at != flat.numel():
            raise LoadError(f"Tensors {[p.name for p in parts]} hold {at:,} values where "
                            f"{flat.numel():,} are needed; fetch the model again.")
        tensors[target] = tensor
    return tensors


def build(config: ModelConfig, tensors: Mapping[str, Tensor], inv_freq: Tensor | None = None
          ) -> Model:
    """A `Model` over finished tensors, without copying them."""
    layers = []
    for i in range(config.num_layers):
        prefix = f"{i}."
        layers.append(Layer(**{
            field: tensors[prefix + field]
            for field in Layer.__dataclass_fields__ if prefix + field in tensors
        }))
    embedding = tensors["embedding"]
    if inv_freq is None:
        inv_freq = rope_frequencies(config)
    return Model(config, embedding, layers, tensors["final_norm"],
                 tensors.get("head", embedding), inv_freq.to(embedding.device))
