"""`infero quantize`: a model in, a folder with a quantized model out. Chapters 4 and 5.

The work is done by `infero/quant/quantizer.py`; here are the options, the bar and the summary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infero.cli_common import err, out

if TYPE_CHECKING:
    from infero.quant.manifest import Manifest
    from infero.quant.quantizer import Progress, Step

Source = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", show_default=False,
                   help="Hub id, folder with safetensors, or .gguf file. "
                   "Default: $INFERO_MODEL, else SmolLM2-135M-Instruct."),
]


def quantize(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to make.", show_default=False)],
    model: Source = None,
    method: Annotated[
        str, typer.Option(help="rtn, gptq, awq, int8, fp8 …; a wrong name lists them all.")
    ] = "gptq",
    bits: Annotated[
        int | None, typer.Option(help="2, 3, 4 or 8. Default: 4; 8 where a method is of 8 bits.",
                                 show_default=False)
    ] = None,
    group: Annotated[
        int | None, typer.Option(help="Inputs that share a scale, a multiple of 32; 0: one scale a "
                                 "row. Default: 64 up to 4 bits, 0 at 8.", show_default=False)
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="A zero point for every scale.")] = False,
    head: Annotated[
        bool, typer.Option(help="The output head in 8 bits too.")] = True,
    act_order: Annotated[
        bool, typer.Option(help="GPTQ: columns with the largest inputs first; groups stay where "
                           "they are.")
    ] = True,
    damping: Annotated[
        float, typer.Option(help="GPTQ: share of the Hessian's mean diagonal added to it.")] = 0.01,
    ranges: Annotated[
        str, typer.Option(help="What a scale covers: minmax, percentile, mse, or hessian (GPTQ's "
                          "default).", show_default=False)
    ] = "",
    alpha: Annotated[
        float, typer.Option(help="SmoothQuant: share of the outliers that weights take.")] = 0.5,
    threshold: Annotated[
        float, typer.Option(help="LLM.int8(): from this size on an activation is an outlier.")
    ] = 6.0,
    budget_bits: Annotated[
        float | None, typer.Option(help="Mixed precision: mean bits a weight.", show_default=False)
    ] = None,
    steps: Annotated[int, typer.Option(help="QAT: training steps a layer.")] = 100,
    calibration: Annotated[
        Path | None, typer.Option(help="A text file to calibrate with. Default: infero's own text.",
                                  show_default=False)
    ] = None,
    calibration_tokens: Annotated[int, typer.Option(help="Tokens of it to use.")] = 16384,
    length: Annotated[int, typer.Option(help="Tokens of a window of it.")] = 512,
    seed: Annotated[int, typer.Option(help="Which windows are drawn.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a quantized model that is there already.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with an unfinished FOLDER.partial, or begin anew.")] = True,
    dtype: Annotated[
        str, typer.Option(help="Numbers to compute in: float32, bfloat16, float16 or auto.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N. Default: cuda if present.",
                                 show_default=False)
    ] = None,
) -> None:
    """Quantize a model into a folder that every command takes as --model.

    A run that was stopped goes on where it was: give the same command again.

    Example: infero quantize --method gptq --bits 4 --group 64 -o smollm2-gptq
    """
    from infero.quant import manifest
    from infero.quant.methods import OWN
    from infero.quant.quantizer import Settings, quantize_to

    settings = Settings(
        method=method, bits=OWN if bits is None else bits,
        group=OWN if group is None else (group or None), symmetric=not asymmetric, head=head,
        act_order=act_order, damping=damping, ranges=ranges, alpha=alpha, threshold=threshold,
        budget_bits=budget_bits, steps=steps, calibration_tokens=calibration_tokens, length=length,
        seed=seed)
    with _bar() as progress:
        folder = quantize_to(model, settings, output, progress, resume, force=force,
                             text=calibration, dtype=dtype, device=device)
    out.print(summary(folder, manifest.read(folder)))


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """A bar with layer, elapsed and remaining time; lines where standard error is no terminal."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if not err.is_terminal:
        yield _line
        return
    columns: list[Any] = [TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn(),
                          TextColumn("elapsed ·"), TimeRemainingColumn(elapsed_when_finished=False),
                          TextColumn("remaining")]
    with Progress(*columns, console=err, transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("", total=None)

        def show(step: Step) -> None:
            bar.update(task, total=step.total if step.done or step.total > 1 else None,
                       completed=step.done, description=step.what)

        yield show


def _line(step: Step) -> None:
    err.print(f"{step.done}/{step.total} {step.what}", style="dim")


def summary(folder: Path, listed: Manifest) -> str:
    """What was made, how large it is, and what can be done with it."""
    request, sizes = listed.request, listed.sizes
    settings = request["settings"]
    group = settings["group"]
    grain = f"groups of {group}" if group else "one scale a row"
    kind = "symmetric" if settings["symmetric"] else "with zero points"
    budget = settings.get("budget_bits")
    bits = f"{budget:g} bits on average" if budget else f"{settings['bits']} bits"
    before, after = 2 * sizes["parameters"], sizes["bytes"]
    file = request["base"].get("bytes")
    own = f"; its own file has {file / 1e6:,.0f} MB" if file else ""
    return "\n".join([
        f"{folder}: {request['base']['name']} by {request['method']}, {bits}, {grain}, {kind}",
        f"  size        {after / 1e6:,.0f} MB, {before / after:.1f} times smaller than the "
        f"{before / 1e6:,.0f} MB of 16 bits a weight{own}",
        f"  layers      {sizes['bits_a_weight']:.2f} bits a weight, scales included; "
        f"head {'8 bits' if settings['head'] else '16 bits'}, embedding 16 bits",
        f"  took        {_duration(listed.seconds)}",
        f"  quality     infero eval {folder}",
        f"  talk to it  infero chat --model {folder}",
    ])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
