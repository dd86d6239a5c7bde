"""On a GPU, a Triton cell is first checked interpreted, in a process that sees no GPU.

A stray pointer of a compiled kernel can end the process's CUDA context, and with it the notebook's
whole session; under the interpreter it is a sentence that names program, tensor and element. Only
a cell that passes there is compiled and checked again on the GPU. Chapter 13.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from infero.lab import candidate
from infero.lab.checking import Mistake
from infero.lab.pieces import Piece

LIMIT_S = 90


def needed(piece: Piece) -> bool:
    """Whether this piece launches kernels that are compiled here."""
    if not candidate.module_kernels(piece.module):
        return False
    from infero.kernels import language

    return language.available() and not language.INTERPRETED


def rehearse(piece: Piece, text: str) -> Mistake | None:
    """Check the text of a cell under the interpreter in another process."""
    environ = dict(os.environ, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="", INFERO_PIECES="")
    environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    command = [sys.executable, "-m", "infero.lab.rehearsal", piece.name]
    try:
        done = subprocess.run(command, input=text, env=environ, capture_output=True, text=True,
                              timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return Mistake("The check was stopped under the interpreter: does a loop never end?",
                       "endless")
    if done.returncode != 0:  # killed by a stray pointer, say: the GPU's check has the word
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Mistake(found["words"], found["key"], found["details"]) if found["key"] else None


def main(name: str, text: str) -> None:
    """In the other process: print what the check found as one line of JSON."""
    from infero.lab import examine, pieces

    mistake = examine.text(pieces.find(name), text).mistake
    print(json.dumps({"key": mistake.key if mistake else "",
                      "words": mistake.words if mistake else "",
                      "details": mistake.details if mistake else []}))


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.read())
