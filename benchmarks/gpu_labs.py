"""The labs on kernels, executed on a GPU with their exercises solved.

    python -m benchmarks.gpu_labs [--labs 13 14 15 16] [--smoke] [--out DIR]

A machine that measures need not have Jupyter: each notebook's code cells run one after another in
a fresh Python process, exercise cells as imports of the reference, as in solution mode. A cell that
raises fails the step. Where the book's model is not installed, random weights of its shape take
its place, and the value `real_model` says so. Written down: seconds and cells of each lab.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import partial
from infero import results
from infero.lab import cells

ROOT = Path(__file__).resolve().parent.parent
LABS = ("13", "14", "15", "16")
LIMIT_S = 150  # of one lab


# ---------------------------------------------------------------- one notebook, in this process


def sources(path: Path) -> list[str]:
    """The code cells of a notebook, without the lines that only IPython understands."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines(keepends=True)
            kept = [line for line in lines if not line.lstrip().startswith(("%", "!"))]
            found.append("".join(cells.transform(kept)))
    return found


def execute(path: Path, folder: Path) -> int:
    """Run a notebook's cells in one namespace; each lies in a file, where Triton finds its text."""
    need_ipython()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    codes = sources(path)
    for number, code in enumerate(codes, 1):
        file = folder / f"{path.stem}_cell{number}.py"
        file.write_text(code, encoding="utf-8")
        tree = ast.parse(code, str(file))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        try:
            exec(compile(tree, str(file), "exec"), module.__dict__)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), str(file), "eval"),
                             module.__dict__)
                if value is not None:
                    print(value)
        except Exception as problem:
            problem.add_note(f"(in code cell {number} of {path.name})")
            raise
    return len(codes)


def need_ipython() -> None:
    """A stand-in where IPython is not installed: what a cell displays is printed."""
    try:
        import IPython  # noqa: F401
    except ImportError:
        shell, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        shell.get_ipython = lambda: None  # type: ignore[attr-defined]
        shell.version_info = (9, 0, 0)  # type: ignore[attr-defined]  # matplotlib asks for it
        for name in ("display", "HTML", "Markdown", "SVG"):
            setattr(display, name, print)
        shell.display = display  # type: ignore[attr-defined]
        sys.modules |= {"IPython": shell, "IPython.display": display}


# ---------------------------------------------------------------- the model, or its stand-in


def has_model() -> bool:
    """Whether `infero.load()` finds the book's model, and can read it."""
    import importlib.util

    from infero.errors import LoadError
    from infero.loading import source

    try:
        path = source.resolve(None)[0]
    except LoadError:
        return False
    return path.suffix != ".gguf" or importlib.util.find_spec("gguf") is not None


def stand_in(folder: Path) -> Path:
    """A folder that `infero.load` takes: SmolLM2's shape, random weights, one token a byte."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from infero import peers, roofline
    from infero.bench_throughput import shape_config
    from infero.model import random_model

    folder.mkdir(parents=True)
    config = shape_config("smollm2-135m")
    model = random_model(config, dtype=torch.bfloat16)
    state = {k: v.contiguous() for k, v in peers._state(model).items() if k != "lm_head.weight"}
    save_file(state, str(folder / "model.safetensors"))
    shape = roofline.shape("smollm2-135m")
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu",
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size, num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads, num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.max_context, rms_norm_eps=1e-5,
        rope_theta=config.rope_theta, tie_word_embeddings=True, torch_dtype="bfloat16",
        eos_token_id=257)), encoding="utf-8")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
                "{% endfor %}<|im_start|>assistant\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template=template)),
        encoding="utf-8")
    return folder


# ---------------------------------------------------------------- all of them


def path_of(lab: str) -> Path:
    """The notebook of a lab's number."""
    found = sorted((ROOT / "labs").glob(f"{lab}_*.ipynb"))
    if not found:
        raise FileNotFoundError(f"there is no labs/{lab}_*.ipynb")
    return found[0]


def run_one(path: Path, environment: dict[str, str]) -> tuple[float, int, str]:
    """(seconds, cells, problem) of one lab in a fresh process."""
    begun_s = time.perf_counter()
    try:
        done = subprocess.run([sys.executable, "-m", "benchmarks.gpu_labs", "--one", str(path)],
                              env=environment, cwd=path.parent, capture_output=True, text=True,
                              timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as problem:
        said = (problem.stdout or b"")[-1500:].decode(errors="replace")
        return LIMIT_S, 0, f"it took more than {LIMIT_S} s:\n{said}"
    seconds = time.perf_counter() - begun_s
    if done.returncode:
        return seconds, 0, f"{done.stdout[-1000:]}\n{done.stderr[-2500:]}"
    return seconds, int(done.stdout.splitlines()[-1].removeprefix("cells ")), ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_labs",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--labs", nargs="+", default=list(LABS), help="their numbers")
    parser.add_argument("--one", help="run this notebook's cells here, and record nothing")
    parser.add_argument("--smoke", action="store_true", help="the first lab only")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="where results say it ran")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            print(f"cells {execute(Path(args.one).resolve(), Path(folder))}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        environment: dict[str, Any] = dict(
            os.environ, INFERO_LAB="solutions", MPLBACKEND="agg", INFERO_PIECES="",
            INFERO_MINE=str(Path(folder) / "my_infero"),
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        if args.out:  # what was measured a moment ago is there for the labs to quote
            merged = Path(folder) / "results"
            shutil.copytree(results.root(), merged)
            if Path(args.out).is_dir():
                shutil.copytree(args.out, merged, dirs_exist_ok=True)
            environment["INFERO_RESULTS"] = str(merged)
        real = has_model()
        if not real:
            environment["INFERO_MODEL"] = str(stand_in(Path(folder) / "stand_in"))
        problems = dict[str, str]()
        with results.record("gpu_labs", argv=argv, out=args.out, device=args.device) as r:
            r.value("real_model", int(real), unit="",
                    note="1: SmolLM2-135M-Instruct; 0: random weights of its shape")
            for lab in args.labs[:1] if args.smoke else args.labs:
                seconds, count, problem = run_one(path_of(lab), environment)
                print(f"  lab {lab}: {problem or f'{count} cells in {seconds:.1f} s'}",
                      file=sys.stderr, flush=True)
                if problem:
                    problems[lab] = problem
                    continue
                r.value(f"lab{lab}_time", seconds, unit="s",
                        note="every code cell, exercises solved, process start included")
                r.value(f"lab{lab}_cells", count, unit="")
                partial.save(r, argv, args.out, args.device)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
