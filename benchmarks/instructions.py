"""Instructions that a kernel executes for each weight, counted in its machine code.

    python -m benchmarks.instructions [--out DIR]

Triton compiles the steps of chapter 15 and the engine's kernels for compute capability 9.0, which
needs no GPU, and the disassembler that comes with it shows the loop. The instructions of one pass
of the loop, over the weights that a thread handles in one pass, are the kernel's price for a
weight. Chapter 15 predicts from them which kernel the unpacking slows down.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: pipe of an SM that executes an instruction: the rest are moves, loads and control
KINDS = {
    "integer": ("LOP3", "SHF", "IADD3", "IMAD", "PRMT", "SGXT", "LEA", "ISETP", "VIADD", "SEL",
                "UIADD3", "UISETP", "ULOP3", "USHF", "ULEA", "IABS"),
    "conversion": ("I2F", "I2FP", "F2FP", "F2F"),
    "float": ("FFMA", "FADD", "FMUL", "HADD2", "HFMA2", "HMUL2"),
    "tensor": ("HMMA", "HGMMA"),
}


def compiled(example: Any, cc: int = 90) -> bytes:
    """The machine code of one example of a kernel module."""
    backends = importlib.import_module("triton.backends.compiler")
    compiler = importlib.import_module("triton.compiler")
    names = list(example.fn.arg_names)
    signature = {name: example.signature[name] for name in names}
    attrs = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names)
             if signature[name].startswith("*") or name in example.aligned}
    source = compiler.ASTSource(example.fn, signature, dict(example.constexprs), attrs)
    built = compiler.compile(source, target=backends.GPUTarget("cuda", cc, 32),
                             options={"num_warps": example.num_warps, **example.options})
    return bytes(built.asm["cubin"])


def listing(cubin: bytes) -> list[str]:
    """Its lines of assembly."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def loop(lines: Sequence[str]) -> Counter[str]:
    """How often each instruction stands in the longest loop: from a label to a jump back to it."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"\s*(\.L_x_\d+):", line))}
    best = (0, 0)
    for i, line in enumerate(lines):
        jump = re.search(r"BRA.*?`\((\.L_x_\d+)\)", line)
        start = labels.get(jump[1], i) if jump else i
        if i - start > best[1] - best[0]:
            best = (start, i)
    named = (re.match(r"\s+(?:/\*\w+\*/\s+)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]+)[\s.;]", line)
             for line in lines[best[0] : best[1] + 1])
    return Counter(m[1] for m in named if m)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    parser.add_argument("--smoke", action="store_true", help="accepted like everywhere; no effect")
    args = parser.parse_args(argv)
    os.environ["TRITON_INTERPRET"] = "0"  # compile, whether there is a GPU or not
    from infero import results
    from infero.kernels import matmul_dot, matmul_vector
    from infero.kernels.steps import matmul

    given = list(sys.argv[1:] if argv is None else argv)
    with results.record("instructions", argv=given, out=args.out, device="cpu") as r:
        rows: list[list[Any]] = []
        steps = [(each.name.removesuffix("_kernel"), each) for each in matmul.examples()
                 if each.signature["x"] == "*bf16"]
        engine = [
            ("engine, int8, 1 token", matmul_vector.example(3, (9, 0), x="bf16", BLOCK_N=4,
                                                            BLOCK_W=1024, PDL=True)),
            ("engine, int4, 1 token", matmul_vector.example(5, (9, 0), x="bf16", warps=8,
                                                            PDL=True)),
            ("engine, int4, 16 tokens", matmul_dot.example(2, 128, 16, stages=4, least=(9, 0))),
        ]
        for name, example in [*steps, *engine]:
            sizes = example.constexprs
            inputs = (sizes.get("BLOCK_K") or 8 * sizes.get("WORDS", 0)
                      or sizes["COUNT"] * sizes["BLOCK_W"])
            weights = sizes["BLOCK_N"] * inputs / (32 * example.num_warps)
            found = loop(listing(compiled(example)))
            kinds = [sum(found[op] for op in ops) / weights for ops in KINDS.values()]
            total = found.total() / weights
            rows.append([name, total, *kinds, total - sum(kinds)])
            r.value(name.replace(", ", "_").replace(" ", "_"), total, unit="",
                    note="for each weight, compute capability 9.0")
            print(f"{name:24}{total:6.1f}",
                  *(f"{k} {n:.1f}" for k, n in zip(KINDS, kinds, strict=True)))
        r.table("by_kernel", [(name, "") for name in ("kernel", "total", *KINDS, "other")], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
