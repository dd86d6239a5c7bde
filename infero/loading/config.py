"""Reads a model's shape: Hugging Face's config.json, or the metadata of a GGUF file.

Both say the same things under different names. What infero cannot compute (another
activation, another RoPE recipe, experts, quantized safetensors) is refused here, by name,
before any weight is touched: weights that load into the wrong formula give fluent nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from infero.errors import ConfigError
from infero.model import ModelConfig, RopeScaling

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral")
_MANY = 1 << 31  # no size in a real configuration reaches this


def _supported(name: Any) -> str:
    if name not in ARCHITECTURES:
        raise ConfigError(f"The model's architecture is {name!r}; infero computes "
                          f"{', '.join(ARCHITECTURES)}. Choose a model of one of these.")
    return str(name)


class _Fields:
    """Typed access to a configuration; every complaint names the key and its value."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(self.prefix + key)
        return default if value is None else value

    def bad(self, key: str, value: Any, wanted: str) -> ConfigError:
        return ConfigError(f"{self.where}: {self.prefix}{key} is {value!r}; it must be {wanted}.")

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of things."""
        value = self.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MANY:
            raise self.bad(key, value, f"a whole number from {least} to {_MANY - 1:,}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (
            0 < value < math.inf
        ):
            raise self.bad(key, value, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, value, "true or false")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """One token id, several, or none."""
        value = self.get(key, [])
        value = value if isinstance(value, list) else [value]
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < _MANY:
                raise self.bad(key, value, "a token id or a list of them")
        return tuple(value)


# ---------------------------------------------------------------- config.json


def from_hf(raw: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
    """A `ModelConfig` from the contents of config.json and generation_config.json."""
    fields = _Fields(raw, "config.json")
    architecture = _supported(fields.get("model_type"))
    _refuse(fields)
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    layers = fields.count("num_hidden_layers")
    bias = fields.flag("attention_bias", False) if architecture in ("llama", "qwen3") else False
    window, window_layers = _window(fields, architecture, layers)
    ends = fields.ids("eos_token_id")
    if generation:
        ends = tuple(dict.fromkeys(
            (*_Fields(generation, "generation_config.json").ids("eos_token_id"), *ends)
        ))
    bos = fields.ids("bos_token_id")
    # Qwen3's heads are 128 wide whatever the hidden size; the others split it evenly.
    dim_default = 128 if architecture == "qwen3" else max(hidden // heads, 1)
    if architecture != "qwen3" and fields.get("head_dim") is None and hidden % heads:
        raise fields.bad("hidden_size", hidden, f"a multiple of num_attention_heads ({heads})")
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=fields.count("num_key_value_heads", heads),
        head_dim=fields.count("head_dim", dim_default),
        max_context=fields.count("max_position_embeddings"),
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=_rope_theta(fields),
        rope_scaling=_rope_scaling(fields),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=True if architecture == "qwen2" else bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False) if architecture == "llama" else False,
        qk_norm=architecture == "qwen3",
        sliding_window=window,
        sliding_layers=window_layers,
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=ends,
    )


def _refuse(fields: _Fields) -> None:
    activation = fields.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise fields.bad("hidden_act", activation, "'silu', the only activation infero has")
    if fields.get("quantization_config") is not None:
        method = fields.get("quantization_config")
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise ConfigError(f"The checkpoint is quantized by {method!r}; infero reads full-precision "
                          "safetensors, or GGUF. Choose the unquantized model.")
    partial = _rope(fields).get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise fields.bad("partial_rotary_factor", partial, "1.0: infero rotates whole heads")


def _rope(fields: _Fields) -> Mapping[str, Any]:
    """The RoPE settings: `rope_parameters` of newer files, `rope_scaling` of older ones."""
    for key in ("rope_parameters", "rope_scaling"):
        value = fields.get(key)
        if value is not None:
            if not isinstance(value, Mapping):
                raise fields.bad(key, value, "an object")
            return value
    return {}


def _rope_theta(fields: _Fields) -> float:
    rope = _Fields(_rope(fields), "config.json, RoPE settings")
    if rope.get("rope_theta") is not None:
        return rope.number("rope_theta")
    return fields.number("rope_theta", 10_000.0)


def _rope_scaling(fields: _Fields) -> RopeScaling | None:
    rope = _Fields(_rope(fields), "config.json, RoPE settings")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", rope.number("factor"))
    if kind == "llama3":
        low, high = rope.number("low_freq_factor", 1.0), rope.number("high_freq_factor", 4.0)
        if low >= high:
            raise rope.bad("low_freq_factor", low, f"below high_freq_factor ({high})")
        return RopeScaling("llama3", rope.number("factor"), low, high,
                           rope.count("original_max_position_embeddings"))
    raise ConfigError(f"The model stretches RoPE by {kind!r}; infero computes 'default', 'linear' "
                      "and 'llama3'. Choose a model with one of these.")


def _window(fields: _Fields, architecture: str, layers: int
            ) -> tuple[int | None, tuple[int, ...] | None]:
    """(window in tokens or None, the layers that use it or None for all of them)."""
    if architecture == "llama":
        return None, None
    if architecture == "mistral":
        # A file without the key means the 4,096 of the first Mistral; null means no window.
        if "sliding_window" in fields.values and fields.get("sliding_window") is None:
            return None, None
        return fields.count("sliding_window", 4096), None
    if not fields.flag("use_sliding_window", False) or fields.get("sliding_window") is None:
        return None, None
    window = fields.count("sliding_window")
    kinds = fields.get("layer_types")
    if kinds is None:
        first = fields.count("max_window_layers", 28, least=0)
        return window, tuple(range(first, min(layers, 10_000)))
    known = {"full_attention", "sliding_attention"}
    if not isinstance(kinds, list) or len(kinds) != layers or set(map(str, kinds)) - known:
        raise fields.bad("layer_types", kinds, f"{layers} times one of {sorted(known)}")
    return window, tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")


# ---------------------------------------------------------------- GGUF


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]],
              eos_ids: tuple[int, ...] = ()) -> ModelConfig:
    """A `ModelConfig` from a GGUF file's metadata and the names and shapes of its tensors.

    What the format leaves to the tensors is read off them: a missing `output.weight` means
    tied embeddings, a present `attn_q.bias` means biases. Mistral's files call themselves
    "llama", which computes the same.
    """
    name = metadata.get("general.architecture")
    architecture = _supported(name)
    fields = _Fields(metadata, "GGUF metadata", f"{name}.")
    if fields.get("expert_count", 0):
        raise fields.bad("expert_count", fields.get("expert_count"), "0: infero has no experts")
    hidden, heads = fields.count("embedding_length"), fields.count("attention.head_count")
    dim = fields.count("attention.key_length", max(hidden // heads, 1))
    for key, default in (("attention.value_length", dim), ("rope.dimension_count", dim)):
        if fields.count(key, default) != dim:
            raise fields.bad(key, fields.get(key), f"the head size {dim}")
    embedding = tensors.get("token_embd.weight", (0,))
    vocab_size = fields.count("vocab_size", embedding[0])
    kind = fields.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise ConfigError(f"The GGUF file stretches RoPE by {kind!r}; infero computes 'none', "
                          "'linear' and the factors of Llama 3. Choose a model with one of these.")
    window = fields.get("attention.sliding_window")
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=fields.count("feed_forward_length"),
        num_layers=fields.count("block_count"),
        num_heads=heads,
        num_kv_heads=fields.count("attention.head_count_kv", heads),
        head_dim=dim,
        max_context=fields.count("context_length"),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope_theta=fields.number("rope.freq_base", 10_000.0),
        rope_scaling=(RopeScaling("linear", fields.number("rope.scaling.factor"))
                      if kind == "linear" else None),
        tie_embeddings="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        o_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_gate.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        sliding_window=None if not window else fields.count("attention.sliding_window"),
        bos_token_id=bos if isinstance(bos, int) else None,
        eos_token_ids=eos_ids,
    )
