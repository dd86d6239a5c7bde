"""What an engine is told at its start, and how much memory that leaves for the KV cache.

The scheduler's limits are chapters 10 and 11's, the size of the cache chapter 8's, the switches
those of chapters 13 to 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch

from infero import kernels, logits
from infero.cache import memory
from infero.errors import ConfigError
from infero.model import Model
from infero.scheduler import SchedulerConfig

CPU_KV_BYTES = 1 << 30  # at most, unless told otherwise
BATCHED_TOKENS = {"cpu": 512, "cuda": 4096}  # budget of a step, unless told otherwise
GRAPHS_BYTES = 1 << 30  # left free for captured steps
QUANTIZATIONS = (None, "int8", "int4", "fp8", "w8a8", "stored")


@dataclass(frozen=True)
class EngineConfig(SchedulerConfig):
    """The scheduler's limits, and the size of the KV cache.

    The cache has `num_blocks` blocks, or as many as fit into `kv_memory_bytes`, or into the share
    `gpu_memory_utilization` of the free device memory (on a CPU at most 1 GiB). A request's prompt
    and output together are at most `max_model_len` tokens: the model's context unless given.
    max_num_batched_tokens: 0 chooses by the device, 512 on a CPU and 4096 on a GPU.

    The rest are the switches of chapters 13 to 16; turn one off to see what it brings. cuda_graphs:
    decode steps are captured (a GPU with Triton attention only). overlap: plan and read back while
    the device computes (None: on a GPU). kernels, fuse, deterministic: see `kernels.Options`.
    compile: torch.compile makes the decode step, instead of the fused one. quantization: round the
    weights to "int8", "int4", "fp8" or "w8a8" at the start, or load a GGUF file's matrices as they
    are "stored"; a model that was given quantized is left as it is.
    """

    max_num_batched_tokens: int = 0
    block_size: int = 16
    num_blocks: int | None = None
    kv_memory_bytes: int | None = None
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    cuda_graphs: bool = True
    overlap: bool | None = None
    kernels: str = "auto"
    fuse: bool = True
    deterministic: bool = False
    compile: bool = False
    quantization: Literal["int8", "int4", "fp8", "w8a8", "stored"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kernels.Options(self.kernels)
        if self.quantization not in QUANTIZATIONS:
            raise ConfigError(f"quantization is {self.quantization!r}; known: None, "
                              f"{', '.join(map(repr, QUANTIZATIONS[1:]))}.")
        if self.deterministic and self.compile:
            raise ConfigError("deterministic and compile are both set; a compiled step chooses its "
                              "own order of sums: leave one of them off.")
        for name in ("block_size", "num_blocks", "kv_memory_bytes", "max_model_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(f"gpu_memory_utilization is {self.gpu_memory_utilization}; it is a "
                              "share of the free memory, above 0 and at most 1.")


    def has_budget(self) -> bool:
        return self.max_num_batched_tokens != 0

    def on(self, device: torch.device) -> EngineConfig:
        """The same with a token budget: its own, or the device's."""
        if self.has_budget():
            return self
        budget = max(BATCHED_TOKENS.get(device.type, BATCHED_TOKENS["cpu"]), self.max_num_seqs)
        return replace(self, max_num_batched_tokens=budget)


def num_blocks(model: Model, config: EngineConfig) -> int:
    """Blocks of the KV cache: as asked, or as many as the memory budget holds."""
    if config.num_blocks is not None:
        return config.num_blocks
    element = model.embedding.element_size()
    budget = config.kv_memory_bytes
    if budget is None:
        free = memory.free_memory_bytes(model.device)
        if model.device.type == "cpu":
            budget = min(free // 2, CPU_KV_BYTES)
        else:
            budget = int(free * config.gpu_memory_utilization) - step_bytes(model, config)
            budget -= GRAPHS_BYTES * config.cuda_graphs
    longest = config.max_model_len or model.config.max_context
    useful = config.max_num_seqs * math.ceil(longest / config.block_size)
    blocks = min(memory.blocks_that_fit(model.config, config.block_size, element, budget), useful)
    if blocks < 1:
        block = config.block_size * memory.kv_bytes_per_token(model.config, element)
        raise ConfigError(
            f"The KV cache may take {max(budget, 0) / 2**20:,.1f} MiB, but one block of "
            f"{config.block_size} tokens of this model takes {block / 2**20:,.1f} MiB: not even "
            "one request fits. Free memory on the device, raise gpu_memory_utilization or "
            "kv_memory_bytes, or use a smaller model.")
    return blocks


def step_bytes(model: Model, config: EngineConfig) -> int:
    """An upper estimate of what one step allocates beside weights and cache."""
    shape, element = model.config, model.embedding.element_size()
    width = 4 * shape.hidden_size + 3 * shape.intermediate_size + 4 * shape.num_heads * (
        shape.head_dim)
    rows = config.max_num_seqs * shape.vocab_size * 4 * 3
    draws = min(config.max_num_seqs, logits.ROWS) * shape.vocab_size * 8 * 12
    return config.max_num_batched_tokens * width * element * 2 + rows + draws


ENGINE_FIELDS = tuple(f.name for f in fields(EngineConfig))
