"""`infero eval`: how good a model is, and how far it is from another. Chapters 4 and 5.

A thin layer over `evaluate.py` (perplexity, KL, top-1 agreement on a text) and
`multiple_choice.py` (a zero-shot task).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infero.cli_common import Device, Dtype, Mine, Quantization, err, install_mine, out
from infero.errors import ParameterError

if TYPE_CHECKING:
    from infero.evaluate import Score
    from infero.model import Model
    from infero.multiple_choice import Choices

TASKS = ("text", "mcq", "all")


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="Hub id, folder or .gguf file. Default: $INFERO_MODEL, else "
                       "SmolLM2-135M-Instruct.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", "-r", help="The model to compare with. Default "
                                 "with --quantization: MODEL itself, unquantized.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="Tokens of the text; 0 takes all.")
                      ] = 4096,
    length: Annotated[int, typer.Option("--length", "-l", help="Tokens of a window.")] = 512,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Windows that run together.")] = 4,
    task: Annotated[str, typer.Option(help="text, mcq (150 questions, four answers each) or all.")
                    ] = "text",
    text: Annotated[
        Path | None, typer.Option(help="A UTF-8 file to score instead of the shipped English text.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
) -> None:
    """Measure a model's quality: perplexity, KL and top-1 agreement with a reference.

    Example: infero eval smollm2-gptq4 --reference HuggingFaceTB/SmolLM2-135M-Instruct
    """
    if task not in TASKS:
        raise ParameterError(f"task is {task!r}; known: {', '.join(TASKS)}.")
    if tokens < 0 or tokens == 1:
        raise ParameterError(f"tokens is {tokens}; give at least 2, or 0 for the whole text.")
    own_text = None if text is None else read_text(text)
    install_mine(mine)
    scored, base = open_models(model, reference, dtype, device, quantization)
    found: dict[str, Any] = {
        "model": scored.name, "reference": base.name if base else None,
        "quantization": quantization,
        "dtype": str(scored.dtype).removeprefix("torch."), "device": str(scored.device),
        "bytes": scored.parameter_bytes(),
    }
    score = choices = base_choices = None
    if task != "mcq":
        ids = text_ids(scored, own_text, text, tokens)
        with progress_bar("Reading the text", not as_json) as advance:
            from infero import evaluate as e

            score = e.evaluate(scored, ids, base, length=length, batch=batch, progress=advance)
        found |= {"text": str(text) if text else "evaluation", "length": length}
        found |= fields_of(score)
    if task != "text":
        from infero import multiple_choice

        with progress_bar("Answering questions", not as_json) as advance:
            choices = multiple_choice.answer(scored, batch=2 * batch, progress=advance)
        found |= {"questions": len(choices.picks), "accuracy": choices.accuracy,
                  "accuracy_error": choices.accuracy_error, "margin": choices.margin}
        if base is not None:
            with progress_bar("The reference answers", not as_json) as advance:
                base_choices = multiple_choice.answer(base, batch=2 * batch, progress=advance)
            found |= {"reference_accuracy": base_choices.accuracy,
                      "same_answers": choices.agreement(base_choices)}
    if as_json:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v
                  for k, v in found.items()}
        out.out(json.dumps(finite, indent=1, ensure_ascii=False))
        return
    show(found, score, choices, base_choices)


def open_models(model: str | None, reference: str | None, dtype: str, device: str | None,
                quantization: str | None) -> tuple[Model, Model | None]:
    """The model to score and the one to compare it with, on one device."""
    import infero
    from infero.kernels import formats

    known = (*formats.KINDS, "stored")
    if quantization is not None and quantization not in known:
        raise ParameterError(f"quantization is {quantization!r}; known: {', '.join(known)}. "
                             "`infero quantize` has more methods.")
    with err.status("Loading the model …"):
        stored = (infero.load(model, dtype=dtype, device=device, keep_quantized=True)
                  if quantization == "stored" else None)
        plain = infero.load(model, dtype=dtype, device=device)
        base = infero.load(reference, dtype=dtype, device=device) if reference else None
    if quantization is None:
        return plain, base
    if stored is not None:
        return stored, base or plain
    with err.status(f"Rounding to {quantization} …"):
        return formats.quantize_model(plain, quantization), base or plain  # type: ignore[arg-type]


def read_text(path: Path) -> str:
    """A text file, or an error that says what to do."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ParameterError(f"{path} is not UTF-8 text (byte {problem.start}); convert it, for "
                             "example with iconv.") from None


def text_ids(model: Model, own: str | None, path: Path | None, tokens: int) -> list[int]:
    """The ids to score: of the given text, or of the shipped one."""
    from infero import evaluate as e

    if own is None:
        return e.token_ids(model.tokenizer, "evaluation", tokens or None)
    if model.tokenizer is None:
        raise ParameterError(f"The model has no tokenizer to read {path} with; load it from a "
                             "folder with tokenizer.json or from a GGUF file.")
    ids = model.tokenizer.encode(own)
    if len(ids) < max(2, tokens):
        raise ParameterError(f"{path} has {len(ids)} tokens, but {max(2, tokens)} were asked for: "
                             "ask for fewer with --tokens (0 takes all), or give a longer text.")
    return ids[:tokens] if tokens else ids


@contextmanager
def progress_bar(label: str, wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error, where that is a terminal; gone when the work is done."""
    if not wanted or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fields_of(score: Score) -> dict[str, Any]:
    """A score as numbers by name, without what was not measured."""
    named = vars(score) | {"perplexity": score.perplexity,
                           "perplexity_error": score.perplexity_error,
                           "perplexity_ratio": score.perplexity_ratio}
    return {name: value for name, value in named.items() if value is not None}


def show(found: dict[str, Any], score: Score | None, choices: Choices | None,
         base: Choices | None) -> None:
    """The numbers as a table, each with its standard error."""
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    if score is not None:
        table.add_row("perplexity", *_with_error(score.perplexity, score.perplexity_error))
        if score.kl is not None and score.top1 is not None and score.perplexity_ratio is not None:
            ratio = score.perplexity_ratio
            table.add_row("  over the reference's",
                          *_with_error(ratio, ratio * (score.nll_change_error or math.nan)))
            table.add_row("KL to the reference", *_with_error(score.kl, score.kl_error, " nats"))
            table.add_row("same first choice",
                          *_with_error(100 * score.top1, 100 * (score.top1_error or 0), " %"))
    if choices is not None:
        table.add_row("questions answered rightly", *_with_error(
            100 * choices.accuracy, 100 * choices.accuracy_error,
            f" % of {len(choices.picks)}, chance 25 %"))
        if base is not None:
            table.add_row("  by the reference", f"{100 * base.accuracy:.1f}",
                          f"%, the same answer to {100 * choices.agreement(base):.1f} %")
    name = found["model"] or "model"
    rounded = f", {found['quantization']}" if found["quantization"] else ""
    against = f" beside {found['reference'] or 'itself'}" if found["reference"] is not None else ""
    what = f" · {score.tokens:,} tokens of {found['text']}" if score else ""
    out.print(f"{name}{rounded}{against} · {found['dtype']} on {found['device']}, "
              f"{found['bytes'] / 1e6:,.0f} MB{what}", style="bold")
    out.print(table)


def _with_error(value: float, error: float | None, unit: str = "") -> tuple[str, str]:
    """A number in as many digits as its error allows, and the error with its unit."""
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.4g}", unit.strip()
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{digits}f}", f"± {error:.{digits}f}{unit}"
