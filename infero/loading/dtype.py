"""Chooses the number format of the weights where the caller leaves it to `dtype="auto"`.

On a CPU with bfloat16 instructions (AVX-512 BF16, AMX) half the bytes mean up to twice the
speed; without them bfloat16 is emulated and several times slower than float32. Which of the
two this machine is, a few matrix-vector products tell in milliseconds (chapter 2 explains
the first case: a decode step is bound by the bytes it reads).
"""

from __future__ import annotations

import json
import os
import platform
import time
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from infero.errors import LoadError
from infero.loading import cache as converted

_NAMES = {
    "float32": torch.float32, "fp32": torch.float32, "f32": torch.float32,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16, "half": torch.float16,
}
_PROBE_SHAPE = (16384, 1024)  # [out, in]; large, so that caches hold it as little as a model
_PROBE_RUNS = 8
_CLEARLY_FASTER = 1.1  # bfloat16 must win by this much: it is the less exact format


def choose(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype meant by "auto", by a name such as "bf16", or by a torch dtype."""
    if isinstance(dtype, torch.dtype):
        if dtype not in _NAMES.values():
            raise LoadError(f"dtype {dtype} is not one of float32, bfloat16, float16; weights in "
                            "other formats come with quantization.")
        return dtype
    if dtype in _NAMES:
        return _NAMES[dtype]
    if dtype != "auto":
        raise LoadError(f"dtype {dtype!r} is unknown; use 'auto', 'float32', 'bfloat16' or "
                        "'float16'.")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return faster_on_cpu() if device.type == "cpu" else torch.float32


@cache
def faster_on_cpu() -> torch.dtype:
    """bfloat16 if it multiplies clearly faster than float32 on this CPU, else float32.

    The answer is kept in the cache folder for each kind of CPU, so that a busy moment does not
    change the numbers a program computes from one start to the next.
    """
    folder = converted.root()
    memo = folder / "dtype.json" if folder else None
    known = converted.read(memo) if memo else {}
    if known.get(_machine()) in ("bfloat16", "float32"):
        return _NAMES[known[_machine()]]
    wide, narrow = _linear_times_s(torch.float32, torch.bfloat16)
    name = "bfloat16" if wide > _CLEARLY_FASTER * narrow else "float32"
    if memo:
        text = json.dumps(known | {_machine(): name}).encode()
        converted.quietly(lambda: converted.write(memo, lambda file: file.write(text)))
    return _NAMES[name]


def _machine() -> str:
    """What the answer depends on: the CPU, its instructions in use, torch and its threads."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        cpu = next((ln.split(":")[-1].strip() for ln in lines if ln.startswith("model name")), cpu)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return " | ".join([cpu, torch.backends.cpu.get_cpu_capability(), limit, torch.__version__,
                       f"{torch.get_num_threads()} threads"])


@torch.inference_mode()
def _linear_times_s(*dtypes: torch.dtype) -> list[float]:
    """Best time of a matrix-vector product in seconds for each dtype: noise only ever adds."""
    operands = [(torch.ones(1, _PROBE_SHAPE[1], dtype=d), torch.ones(_PROBE_SHAPE, dtype=d))
                for d in dtypes]
    best = [float("inf")] * len(dtypes)
    for run in range(_PROBE_RUNS):
        for i, (x, weight) in enumerate(operands):
            start = time.perf_counter()
            F.linear(x, weight)
            if run:  # the first run sets the kernels up
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device named, or the GPU where there is one, or the CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise LoadError(f"Device {device!r} is unknown to torch; use 'cpu' or 'cuda'.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise LoadError(f"Device {device!r} was asked for, but torch sees no CUDA GPU here; use "
                        "device='cpu'.")
    return chosen
