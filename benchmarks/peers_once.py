"""Other engines' numbers that this project measured once, by hand: a transcript, no measurement.

    python -m benchmarks.peers_once [--out DIR]

vLLM, nano-vllm and gpt-fast are not installed where `infero bench compare` usually runs. They were
measured in one sitting on one H100, each with its own benchmark and on random weights of the same
shapes; what was read off then stands in the tables below, and this program only writes it in the
form of the other results. The file says the device, versions and day of that sitting. Chapter 16's
table quotes it. Where a peer is installed, `benchmarks.compare` measures it beside infero.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from infero import __version__, results

DAY = "2026-11-21T00:00:00+00:00"
NOTE = "read off once, with the peer's own benchmark; not measured again by this program"
DEVICE = {"slug": "h100", "kind": "cuda", "name": "NVIDIA H100 80GB HBM3", "driver": "580",
          "memory_bytes": None, "cores": None}
SOFTWARE = {"python": "3.12", "torch": "2.11.0+cu130", "triton": "3.6.0", "infero": __version__}

VALUES: dict[str, tuple[float, str, str]] = {
    "copy_bandwidth": (3032e9, "byte/s", "device to device, read and write"),
    "read_bandwidth": (3102e9, "byte/s", "a reduction that only reads"),
    # Llama-3-8B's shape, one request, prompt 128, 256 new tokens, decode only
    "8b_vllm": (154.4, "token/s", "vLLM 0.23.0, bf16, compiled, CUDA graphs, FlashAttention-3"),
    "8b_gpt_fast": (166.0, "token/s", "gpt-fast, bf16, compiled, static cache"),
    "8b_gpt_fast_int8": (180.0, "token/s", "gpt-fast, int8 weights"),
    "8b_gpt_fast_int4": (318.5, "token/s", "gpt-fast, int4 weights in groups of 128, tinygemm"),
    "8b_vllm_int4": (242.5, "token/s", "vLLM 0.23.0, int4 weights in groups of 128, Machete"),
    # Qwen3-0.6B's shape, one request
    "06b_vllm": (619.0, "token/s", "vLLM 0.23.0"),
    "06b_nano_vllm": (522.0, "token/s", "nano-vllm"),
    "06b_transformers_compiled": (346.0, "token/s", "transformers, static cache, compiled"),
    "06b_transformers": (48.0, "token/s", "transformers, launched operation by operation"),
    # nano-vllm's workload of 256 requests, output tokens
    "crowd_06b_vllm": (18_900.0, "token/s", "vLLM 0.23.0"),
    "crowd_06b_nano_vllm": (17_250.0, "token/s", "nano-vllm with FlashAttention-3"),
    "crowd_06b_transformers": (10_900.0, "token/s",
                               "transformers 5.17, continuous batching, FlashAttention-3"),
    "crowd_06b_transformers_sdpa": (870.0, "token/s",
                                    "transformers 5.17, continuous batching, PyTorch's attention"),
    "crowd_8b_vllm": (8183.0, "token/s", "vLLM 0.23.0"),
    "crowd_8b_vllm_int4": (8498.0, "token/s", "vLLM 0.23.0, int4 weights (GPTQ)"),
    # attention forward, causal, bf16, 4 x 4096, 32 heads of 128
    "flash_fa2": (320e12, "flop/s", "PyTorch's flash attention (FlashAttention-2)"),
    "flash_cudnn": (601e12, "flop/s", "cuDNN"),
    "flash_fa3": (572e12, "flop/s", "FlashAttention-3"),
    # one row times int4 weights in groups of 128, 28672 x 4096
    "tinygemm_int4": (1661e9, "byte/s", "tinygemm, 14336 x 4096, bytes of weights"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers_once",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    values = {key: {"value": number, "unit": unit, "n": 1, "spread": None,
                    "note": f"{words}; {NOTE}"} for key, (number, unit, words) in VALUES.items()}
    data = {"schema": results.SCHEMA, "name": "peers_once", "device": DEVICE, "software": SOFTWARE,
            "commit": "none", "date": DAY, "command": "python -m benchmarks.peers_once",
            "values": values, "tables": {}}
    results.validate(data, "peers_once")
    folder = Path(args.out) if args.out else results.root()
    path = folder / DEVICE["slug"] / "peers_once.json"  # type: ignore[operator]
    results.write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
