"""Exercise cells with Triton kernels: loaded, run under watch, diagnosed, saved, swapped in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from infero.kernels.steps import elementwise
from infero.lab import (
    candidate,
    examine,
    kernels,
    mode,
    pieces,
    rehearsal,
    saved,
    swap,
    triton_cells,
)
from infero.lab.tripwire import Tripwire

NAME = "infero.kernels.steps.elementwise.rms_norm"
PIECE = pieces.find(NAME)
GOOD = f"#| exercise: {NAME}\n{triton_cells.source_of(swap.reference(NAME))}"
KERNEL = GOOD[: GOOD.index("def rms_norm(")]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.fixture
def learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("INFERO_LAB", "learn")
    monkeypatch.setenv("INFERO_MINE", str(tmp_path / "my_infero"))
    monkeypatch.setenv("INFERO_PIECES", "")
    mode.forget()
    swap.uninstall()
    yield tmp_path / "my_infero"
    swap.uninstall()
    mode.forget()


def test_kernel_and_wrapper_in_one_cell_pass() -> None:
    outcome = examine.text(PIECE, GOOD)
    assert outcome.passed, outcome.mistake and outcome.mistake.words
    assert outcome.seconds < 5


def test_the_sources_of_a_piece_are_a_whole_cell() -> None:
    assert KERNEL.count("@triton.jit") == 1
    assert "def rms_norm_kernel" in KERNEL


@pytest.mark.parametrize(("key", "says", "text"), [
    ("out-of-bounds", "reads outside `x`", changed("mask=inside, other=0.0)", ")")),
    ("out-of-bounds", "writes outside `out`", changed(" * w, mask=inside)", " * w)")),
    ("out-of-bounds", "before the start", changed("x + row * n", "x - n + row * n")),
    ("never-written", "never written", changed("(len(rows),)", "(len(rows) - 1,)")),
    ("never-written", "never written", changed("inside = columns < n", "inside = columns < n - 1")),
    ("no-grid", "[(programs,)]", changed("[(len(rows),)]", "")),
    ("not-a-power-of-two", "next_power_of_2", changed("triton.next_power_of_2(n)", "n")),
    ("not-constexpr", "tl.constexpr", changed("BLOCK: tl.constexpr", "BLOCK")),
    ("arguments", "leaves out", changed("out, n, eps, BLOCK=", "out, n, BLOCK=")),
    ("host-code", "function of the host", changed("tl.rsqrt", "torch.rsqrt")),
    ("host-and", "Use & and |", changed("columns < n", "columns < n and columns >= 0")),
    ("host-global", "global of the host",
     changed("@triton.jit", "EPS = 1e-5\n@triton.jit").replace("square + eps", "square + EPS")),
    ("not-a-pointer", "pointer plus offsets", changed("tl.load(weight", "tl.load(values")),
    ("shapes-differ", "different sizes", changed("weight + columns", "weight + tl.arange(0, 16)")),
    ("raises", "has no attribute 'rsqr'", changed("tl.rsqrt", "tl.rsqr")),
    ("borrowed-name", "belong together in one cell",
     f"#| exercise: {NAME}\n{GOOD[len(KERNEL):]}"),
    ("no-kernel", "without a kernel of yours",
     f"#| exercise: {NAME}\ndef rms_norm(x, weight, eps):\n"
     "    return torch.nn.functional.rms_norm(x, (x.shape[-1],), weight, eps)\n"),
    ("answer-key", "answer key",
     f"#| exercise: {NAME}\nfrom infero.kernels.steps import elementwise\n"
     "def rms_norm(x, weight, eps):\n    return elementwise.rms_norm(x, weight, eps)\n"),
    ("answer-key", "answer key",
     f"#| exercise: {NAME}\nfrom infero.kernels.steps import elementwise as e\n"
     + changed("rms_norm_kernel[(", "e.rms_norm_kernel[(")[len(KERNEL):]),
    ("answer-key", "answer key",
     f"#| exercise: {NAME}\nfrom infero.kernels.steps import elementwise\n"
     + changed("rms_norm_kernel[(", "elementwise.rms_norm_kernel[(")[len(KERNEL):]),
    ("answer-key", "answer key",
     f"#| exercise: {NAME}\nfrom infero.kernels.steps.elementwise import rms_norm_kernel\n"
     + GOOD[len(KERNEL):]),
    ("unfinished", "Not written",
     KERNEL[: KERNEL.index("    row =")] + "    pass\n\n\ndef rms_norm(x, weight, eps):\n"
     "    raise NotImplementedError('Lab 13, exercise 3')\n"),
])  # fmt: skip
def test_a_mistake_is_named(key: str, says: str, text: str) -> None:
    mistake = examine.text(PIECE, text).mistake
    assert mistake is not None
    assert mistake.key == key, mistake.words
    assert says in mistake.words
    assert "infero-lab-" not in mistake.words, "no path of a temporary file"


def test_the_line_is_the_learners() -> None:
    text = changed("triton.next_power_of_2(n)", "n")
    mistake = examine.text(PIECE, text).mistake
    assert mistake is not None
    number = next(i for i, line in enumerate(text.splitlines(), 1) if "tl.arange" in line)
    assert f"in line {number} of your cell" in mistake.words


def test_nothing_stays_patched_after_a_mistake() -> None:
    examine.text(PIECE, changed("mask=inside, other=0.0)", ")"))
    x, w = torch.randn(2, 5), torch.ones(5)
    where = kernels.device()
    got = elementwise.rms_norm(x.to(where), w.to(where), 1e-5).cpu()
    assert torch.allclose(got, torch.nn.functional.rms_norm(x, (5,), w, 1e-5), atol=1e-5)
    assert torch.empty_like(x).shape == (2, 5)


def test_a_device_function_of_the_key_trips_the_wire() -> None:
    """A kernel of the learner's that calls the reference's kernel as a function."""
    text = (
        f"#| exercise: {NAME}\nfrom infero.kernels.steps import elementwise\n"
        "theirs = getattr(elementwise, 'rms_norm_' + 'kernel')\n\n"
        "@triton.jit\ndef mine(x, weight, out, n, eps, BLOCK: tl.constexpr):\n"
        "    theirs(x, weight, out, n, eps, BLOCK)\n\n"
        "def rms_norm(x, weight, eps):\n    n = x.shape[-1]\n    out = torch.empty_like(x)\n"
        "    mine[(x.numel() // n,)](x, weight, out, n, eps, BLOCK=256)\n    return out\n"
    )
    mistake = examine.text(PIECE, text).mistake
    assert mistake is not None
    assert mistake.key in ("answer-key", "host-global"), mistake.words


def test_the_wire_lets_go() -> None:
    wire = Tripwire(NAME, swap.reference(NAME))
    with wire:
        pass
    assert not {"run", "rewrite", "parse"} & set(vars(elementwise.rms_norm_kernel))


def test_saved_moved_and_installed(learner: Path) -> None:
    """A second piece moves the first one's lines in the file; both still run from it."""
    saved.keep(PIECE, GOOD, None)
    swap.install_mine()
    first = elementwise.rms_norm
    path = learner / "kernels" / "steps" / "elementwise.py"
    text = path.read_text(encoding="utf-8")
    assert "from infero.kernels.language import tl, triton" in text
    assert first.__code__.co_filename == str(path)
    path.write_text(text.replace("# piece:", "# one\n# two\n# three\n\n# piece:", 1))
    where = kernels.device()
    x, w = torch.randn(3, 7), torch.rand(7)
    want = torch.nn.functional.rms_norm(x, (7,), w, 1e-5)
    assert torch.allclose(first(x.to(where), w.to(where), 1e-5).cpu(), want, atol=1e-5)
    swap.install_mine()
    again = elementwise.rms_norm
    assert torch.allclose(again(x.to(where), w.to(where), 1e-5).cpu(), want, atol=1e-5)


def test_the_header_offers_no_kernel() -> None:
    assert "rms_norm_kernel" not in candidate.header(PIECE, GOOD[len(KERNEL):])


def test_a_gpu_s_cell_is_rehearsed_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens first where kernels are compiled: the same words, and the process lives."""
    monkeypatch.setattr(rehearsal, "needed", lambda piece: True)
    mistake = examine.text(PIECE, changed(" * w, mask=inside)", " * w)")).mistake
    assert mistake is not None
    assert (mistake.key, "writes outside `out`" in mistake.words) == ("out-of-bounds", True)
    assert rehearsal.rehearse(PIECE, GOOD) is None
