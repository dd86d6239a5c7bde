"""`benchmarks.compare` at the shape of Llama-3-8B: a step of its own, so that each stays short.

    python -m benchmarks.compare_8b [--limit 45] [--smoke] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import compare


def main(argv: Sequence[str] | None = None) -> None:
    compare.main(argv, name="compare_8b", shape="8b")


if __name__ == "__main__":
    main()
