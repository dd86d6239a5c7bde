"""Rules (a) to (g) of the swap: what makes it sound to put a learner's function into the engine."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from infero.errors import StalePiecesError
from infero.lab import candidate, configurations, folder, mode, pieces, saved, swap, triton_cells
from infero.lab.checking import Mistake
from infero.llm import LLM
from infero.sampling import SamplingParams

ROOT = Path(__file__).resolve().parents[1]
GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
NORM = "infero.model.rms_norm"
RIGHT = f"""\
#| exercise: {NORM}
def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
"""
WRONG = RIGHT.replace(" + eps", "")


@pytest.fixture(autouse=True)
def _learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INFERO_LAB", "learn")
    monkeypatch.setenv("INFERO_MINE", str(tmp_path / "my_infero"))
    monkeypatch.setenv("INFERO_PIECES", "")
    mode.forget()
    swap.uninstall()
    yield
    swap.uninstall()
    mode.forget()


def source_of_reference(piece: pieces.Piece) -> str:
    """The exercise cell a learner would have written who writes what the engine has."""
    return f"#| exercise: {piece.name}\n{triton_cells.source_of(swap.reference(piece.name))}"


def keep(name: str, text: str) -> None:
    saved.keep(pieces.find(name), text, None)


# -- (a) pieces are top-level functions ------------------------------------------------------------


@pytest.mark.parametrize("piece", pieces.PIECES, ids=lambda p: p.name)
def test_a_piece_is_a_top_level_function(piece: pieces.Piece) -> None:
    function = swap.reference(piece.name)
    assert isinstance(function, types.FunctionType)
    assert function.__module__ == piece.module
    assert function.__qualname__ == piece.attribute
    assert function.__closure__ is None
    assert function.__doc__


def test_a_table_is_consistent() -> None:
    assert len({p.name for p in pieces.PIECES}) == len(pieces.PIECES)
    assert len({(p.lab, p.exercise) for p in pieces.PIECES}) == len(pieces.PIECES)
    assert {p.lab for p in pieces.PIECES} <= {row.number for row in pieces.LABS}
    for piece in pieces.PIECES:
        assert piece.configuration in configurations.CONFIGURATIONS
        module, _, function = piece.check.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


# -- (b) engine code reaches a piece only as module.name at call time ------------------------------


def local_names(function: ast.AST) -> set[str]:
    """Names that a function binds itself: arguments and assignments."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            found.add(node.id)
    return found


def violations(source: str, module: str, names: set[str]) -> list[str]:
    """Uses of pieces other than a call inside a function: one line of text each."""
    tree = ast.parse(source)
    own = {n.rpartition(".")[2] for n in names if n.rpartition(".")[0] == module}
    aliases: dict[str, str] = {}  # a local name of a module that holds pieces -> the module
    homes = {n.rpartition(".")[0] for n in names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in names or (node.module in homes and alias.name == "*"):
                    found.append(f"line {node.lineno}: from-import of {full}")
                if full in homes:
                    aliases[alias.asname or alias.name] = full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in homes and alias.asname:
                    aliases[alias.asname] = alias.name

    def dotted(node: ast.expr) -> str:
        """The piece that an expression names, or nothing."""
        if isinstance(node, ast.Name) and node.id in own and isinstance(node.ctx, ast.Load):
            return f"{module}.{node.id}"
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node.value)
            full = f"{aliases.get(text, text)}.{node.attr}"
            return full if full in names else ""
        return ""

    def visit(node: ast.AST, inside: bool, shadowed: frozenset[str]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            outside = [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None]]
            outside += getattr(node, "decorator_list", [])
            for child in outside:
                visit(child, False, shadowed)
            body = node.body if isinstance(node.body, list) else [node.body]
            for child in body:
                visit(child, True, shadowed | local_names(node))
            return
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = dotted(node)
            bare = isinstance(node, ast.Name)
            if name and not (bare and node.id in shadowed):
                found.append(f"line {node.lineno}: {name} is used without being called")
        if isinstance(node, ast.Call) and inside and dotted(node.func):
            children = [*node.args, *node.keywords]  # the call itself is the one allowed use
        else:
            children = list(ast.iter_child_nodes(node))
        for child in children:
            visit(child, inside, shadowed)

    visit(tree, False, frozenset())
    return found


ENGINE = [
    p for p in sorted((ROOT / "infero").rglob("*.py")) if "lab" not in p.relative_to(ROOT).parts
]


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_b_engine_reaches_pieces_at_call_time(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    names = {piece.name for piece in pieces.PIECES}
    assert violations(path.read_text(encoding="utf-8"), module, names) == []


@pytest.mark.parametrize("source", [
    "from infero.model import rms_norm",
    "from infero.model import *",
    "from infero import model\nTABLE = {'norm': model.rms_norm}",
    "from infero import model as m\ndef f(norm=m.rms_norm): ...",
    "from infero import model as m\ndef f(): return partial(m.rms_norm, eps=1)",
    "import infero.model\nnorm = infero.model.rms_norm",
    "import infero.model\nclass A(infero.model.rms_norm): ...",
    "from infero import model\nX = model.rms_norm(1, 2, 3)",
    "from infero import model\n@model.rms_norm\ndef f(): ...",
])  # fmt: skip
def test_b_other_uses_are_found(source: str) -> None:
    assert violations(source, "infero.other", {NORM})


@pytest.mark.parametrize("source", [
    "from infero import model\ndef f(x): return model.rms_norm(x, x, 1)",
    "import infero.model\ndef f(x): return infero.model.rms_norm(x, x, 1)",
    "def f(rms_norm): return rms_norm",
])  # fmt: skip
def test_b_calls_are_allowed(source: str) -> None:
    assert not violations(source, "infero.other", {NORM})


def test_b_in_its_own_module() -> None:
    assert not violations("def rms_norm(): ...\ndef f(): return rms_norm()", "infero.model", {NORM})
    assert violations(
        "def rms_norm(): ...\ndef f(): return map(rms_norm, [])", "infero.model", {NORM}
    )
    assert violations("def rms_norm(): ...\nnorm = rms_norm", "infero.model", {NORM})


# -- (c) installed only before an LLM is built -----------------------------------------------------


def test_c_an_llm_refuses_to_step_after_a_swap() -> None:
    llm = LLM(configurations.tiny_model())
    before = swap.generation()
    llm.generate([1, 2], GREEDY)
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)
    assert swap.generation() == before + 1
    with pytest.raises(StalePiecesError, match="build a new LLM"):
        llm.generate([1, 2], GREEDY)
    LLM(configurations.tiny_model()).generate([1, 2], GREEDY)


def test_c_the_same_text_twice_changes_nothing() -> None:
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)
    before = swap.generation()
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)
    assert swap.generation() == before
    assert swap.uninstall() == [NORM]
    assert swap.generation() == before + 1
    assert swap.uninstall() == []
    assert swap.generation() == before + 1


def test_c_compiled_code_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append(1))
    monkeypatch.setitem(sys.modules, "torch._dynamo", types.ModuleType("torch._dynamo"))
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)
    assert calls == [1]


def test_c_nothing_is_reset_where_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "reset", lambda: pytest.fail("compiler was loaded"))
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)


def test_c_a_spawned_process_reinstalls() -> None:
    keep(NORM, RIGHT)
    swap.install_mine()
    assert os.environ["INFERO_PIECES"] == "mine"
    code = (
        "from infero.lab import swap; swap.reinstall()\n"
        "from infero import model; print(model.rms_norm.__code__.co_filename)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert Path(out.stdout.strip()) == folder.locate() / "model.py"
    env["INFERO_PIECES"] = ""  # a program that was not asked for the learner's pieces
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert Path(out.stdout.strip()) == ROOT / "infero" / "model.py"


# -- (d) a Triton piece is the host wrapper --------------------------------------------------------


def test_d_kernel_and_wrapper_in_one_cell() -> None:
    pytest.importorskip("triton")
    text = RIGHT.replace(
        "def rms_norm",
        "import triton\nimport triton.language as tl\n\n\n"
        "@triton.jit\ndef kernel(x, n, BLOCK: tl.constexpr):\n    pass\n\n\ndef rms_norm",
    )
    found = candidate.load(pieces.find(NORM), text)
    assert isinstance(found.function, types.FunctionType)
    kernel = found.function.__globals__["kernel"]
    assert not isinstance(kernel, types.FunctionType)
    assert inspect.getsource(kernel.fn).startswith("@triton.jit\ndef kernel")


def test_d_a_jit_function_is_never_swapped() -> None:
    pytest.importorskip("triton")
    text = (
        f"#| exercise: {NORM}\nimport triton\n\n@triton.jit\ndef rms_norm(x, w, eps):\n    pass\n"
    )
    with pytest.raises(Mistake, match="plain function") as caught:
        candidate.load(pieces.find(NORM), text)
    assert caught.value.key == "not-a-function"


# -- (e) uncompiled and uncaptured until checked ---------------------------------------------------


def test_e_a_learners_piece_is_not_captured() -> None:
    assert swap.uncaptured() == []
    swap.install(NORM, candidate.load(pieces.find(NORM), RIGHT).function, RIGHT)
    assert swap.uncaptured() == [NORM]


# -- (f) each piece's configuration really calls it; precedence ------------------------------------


@pytest.mark.parametrize("piece", pieces.PIECES, ids=lambda p: p.name)
def test_f_configuration_calls_the_piece(piece: pieces.Piece) -> None:
    mine = candidate.load(piece, source_of_reference(piece)).function
    calls = []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return mine(*args, **kwargs)

    swap.install(piece.name, counted)
    configurations.CONFIGURATIONS[piece.configuration]()
    assert calls, f"{piece.configuration} never calls {piece.name}"
    swap.uninstall(piece.name)
    count = len(calls)
    configurations.CONFIGURATIONS[piece.configuration]()
    assert len(calls) == count, "the reference is back"


def test_f_swapped_pieces_give_the_same_tokens() -> None:
    want = configurations.generate(use_cache=True, temperature=0.8)
    for piece in pieces.of_lab("01"):
        swap.install(piece.name, candidate.load(piece, source_of_reference(piece)).function)
    assert configurations.generate(use_cache=True, temperature=0.8) == want
    assert configurations.generate(use_cache=False, temperature=0.8) == want


def test_f_the_learner_comes_first() -> None:
    from infero import model

    reference = swap.reference(NORM)
    mine = candidate.load(pieces.find(NORM), RIGHT).function
    swap.install(NORM, mine, RIGHT)
    assert model.rms_norm is mine
    with swap.references_only():
        assert model.rms_norm is reference
    assert model.rms_norm is mine


# -- (g) contracts, broken pieces, the last good one -----------------------------------------------


def test_g_another_contract_is_skipped() -> None:
    keep(NORM, RIGHT)
    path = folder.locate() / "model.py"
    path.write_text(path.read_text().replace("contract: 1", "contract: 7"))
    lines = swap.install_mine()
    assert any(NORM in line and "contract 7" in line for line in lines)
    assert not swap.installed(NORM)


def test_g_a_broken_piece_is_skipped_and_its_neighbour_is_not() -> None:
    keep(NORM, RIGHT)
    keep("infero.model.swiglu", source_of_reference(pieces.find("infero.model.swiglu")))
    path = folder.locate() / "model.py"
    path.write_text(path.read_text().replace("    wide = x.float()", "    wide = = x.float()"))
    (folder.locate() / "progress.json").unlink()  # no last good one is known
    lines = swap.install_mine()
    assert any("Skipped" in line and NORM in line for line in lines)
    assert not swap.installed(NORM)
    assert swap.installed("infero.model.swiglu")


def test_g_a_failed_recheck_keeps_the_last_good_one() -> None:
    keep(NORM, RIGHT)
    path = folder.locate() / "model.py"
    path.write_text(path.read_text().replace(RIGHT, WRONG))
    lines = swap.install_mine()
    assert any("stays in use" in line for line in lines)
    assert swap.installed(NORM)
    from infero import model

    x = torch.zeros(1, 4)
    assert not model.rms_norm(x, torch.ones(4), 1e-5).isnan().any()


def test_g_an_edited_piece_is_checked_again() -> None:
    keep(NORM, RIGHT)
    path = folder.locate() / "model.py"
    path.write_text(path.read_text().replace("wide", "broad"))
    lines = swap.install_mine()
    assert any("passed its check again" in line for line in lines)
    assert swap.installed(NORM)
    assert not any("again" in line for line in swap.install_mine())


def test_g_an_unknown_piece_is_named() -> None:
    keep(NORM, RIGHT)
    path = folder.locate() / "model.py"
    path.write_text(path.read_text().replace(NORM, "infero.model.gone"))
    assert any("infero.model.gone" in line for line in swap.install_mine())


@pytest.mark.parametrize("name", ["solutions", "grade"])
def test_only_learn_mode_touches_the_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(NORM, RIGHT)
    monkeypatch.setenv("INFERO_LAB", name)
    mode.forget()
    assert not swap.install_mine()[0].startswith("Yours")
    assert not swap.installed(NORM)
    with pytest.raises(folder.WrongMode):
        folder.locate()
