"""What published models keep in their KV caches, and how many requests a device then holds.

For chapter 7's figures and its memory calculator: models with MHA, GQA, MQA, MLA and sliding
windows side by side. Sizes are those of the models' published configurations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from infero import mla, roofline
from infero.cache import memory

UTILIZATION = 0.9  # the share of a device's memory that engines take for weights and cache


@dataclass(frozen=True)
class CacheShape:
    """The cache of one model: `numbers` a token and layer; `windowed` layers keep `window` tokens.

    `parameters` counts weights, `max_context` tokens. A latent counts once, a key and a value
    twice.
    """

    name: str
    kind: str  # "MHA" | "GQA" | "MQA" | "MLA"
    parameters: float
    layers: int
    numbers: int
    max_context: int
    source: str
    window: int = 0
    windowed: int = 0

    def bytes_per_token(self, kv_bits: float = 16) -> float:
        """Bytes that one token occupies while every layer keeps it."""
        return self.layers * self.numbers * kv_bits / 8

    def request_bytes(self, context: int, kv_bits: float = 16) -> float:
        """Bytes of the cache of one request of `context` tokens; windowed layers forget."""
        kept = (self.layers - self.windowed) * context + self.windowed * min(context, self.window)
        return kept * self.numbers * kv_bits / 8

    def requests_that_fit(self, context: int, memory_bytes: float, weight_bits: float = 16,
                          kv_bits: float = 16, utilization: float = UTILIZATION) -> int:
        """Requests of `context` tokens beside the weights; 0 also where the weights do not fit."""
        left = utilization * memory_bytes - self.parameters * weight_bits / 8
        return int(max(0.0, left) / self.request_bytes(context, kv_bits))

    def share_of_reads(self, requests: int, context: int, weight_bits: float = 16,
                       kv_bits: float = 16) -> float:
        """Cache over cache and weights in the bytes that one decode step reads.

        All weights are counted as read: too many for a mixture of experts and a small batch.
        """
        cache = requests * self.request_bytes(context, kv_bits)
        return cache / (cache + self.parameters * weight_bits / 8)


def _engine_model(key: str) -> CacheShape:
    s = roofline.shape(key)
    numbers = memory.kv_bytes_per_token(s, 1) // s.num_layers
    return CacheShape(s.name, "GQA", roofline.parameters(s), s.num_layers, numbers, s.max_context,
                      s.source)


def published() -> dict[str, CacheShape]:
    """The models of the calculator by slug, smallest cache a token first."""
    hub = "https://huggingface.co"
    v3 = mla.DEEPSEEK_V3
    rows = {
        "falcon-7b": CacheShape("Falcon-7B", "MQA", 7.22e9, 32, 2 * 1 * 64, 2048,
                                f"{hub}/tiiuae/falcon-7b/blob/main/config.json"),
        "llama-2-7b": CacheShape("Llama-2-7B", "MHA", 6.74e9, 32, 2 * 32 * 128, 4096,
                                 f"{hub}/meta-llama/Llama-2-7b-hf/blob/main/config.json"),
        "mistral-7b": CacheShape("Mistral-7B v0.1", "GQA", 7.24e9, 32, 2 * 8 * 128, 32_768,
                                 f"{hub}/mistralai/Mistral-7B-v0.1/blob/main/config.json",
                                 window=4096, windowed=32),
        "gemma-3-27b": CacheShape("Gemma-3-27B", "GQA", 27.0e9, 62, 2 * 16 * 128, 131_072,
                                  f"{hub}/google/gemma-3-27b-it/blob/main/config.json",
                                  window=1024, windowed=52),
        "deepseek-v3": CacheShape("DeepSeek-V3", "MLA", 671e9, v3.layers, v3.rank + v3.rope_dim,
                                  163_840, f"{hub}/deepseek-ai/DeepSeek-V3/blob/main/config.json"),
    }
    rows |= {key: _engine_model(key) for key in roofline.MODELS}
    return dict(sorted(rows.items(), key=lambda row: row[1].bytes_per_token()))


def as_json() -> dict[str, Any]:
    """The models as plain data, for the calculator."""
    return {key: asdict(shape) for key, shape in published().items()}
