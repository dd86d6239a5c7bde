"""`infero bench ladder`, `infero bench compare` and `infero tune`: how fast, beside whom, and why.

Thin layers over `bench_ladder`, `bench_compare` and `tune`. Each says what it is doing while it
runs, prints every line as soon as it is known, and names what cannot run here with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infero.cli_common import Device, Dtype, Model, err, load_llm, out
from infero.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from infero.bench_limits import Limits
    from infero.model import Model as Weights

Shape = Annotated[
    str | None, typer.Option(help="Random weights of a published shape instead of a model: "
                             "0.6b (Qwen3) or 8b (Llama 3).")
]
Quick = Annotated[bool, typer.Option("--quick", help="A few tokens only: does it run at all?")]


def ladder(
    model: Model = None,
    shape: Shape = None,
    only: Annotated[
        str | None, typer.Option(help="Only these rungs, separated by commas: naive,cache,…")
    ] = None,
    quick: Quick = False,
    device: Device = None,
) -> None:
    """Climb the book's ladder: one optimisation after another, each measured.

    Every rung names its chapter and prints tokens a second, bytes a second and its share of the
    roofline, whose limits are measured first. On a CPU SmolLM2 takes about two minutes; on a GPU
    try --shape 8b. Ctrl-C keeps what was measured.
    """
    from infero import bench_ladder as b

    _one_source(model, shape)
    rungs = _rungs(b.RUNGS, only)
    where = _device(device)
    limits = _limits(where, quick)
    ground = b.ground_of(limits, where, shape=shape, source=model,
                         sizes=b.SMOKE if quick else None)
    out.print(f"{ground.name} on {limits.words()}", markup=False)
    steps: list[Any] = []
    rows: list[list[str]] = []
    stopped = False
    with err.status("…") as status:
        try:
            for step in b.climb(ground, rungs, lambda rung: status.update(
                    f"{rung.name} (chapter {rung.chapter}): {rung.line} …")):
                rows.append(b.cells(step, steps, limits))
                steps.append(step)
                said = step.problem or "   ".join(rows[-1][2:]).rstrip()
                err.print(f"{step.rung.name}: {said}", style="dim", markup=False)
        except KeyboardInterrupt:
            stopped = True
    crowd = [step.rung.crowd for step in steps]
    _print_table(b.COLUMNS, rows, b.CAPTION, sections=[i for i in range(1, len(crowd))
                                                       if crowd[i] != crowd[i - 1]], left=1)
    for line in b.remarks(steps):
        out.print(line, markup=False)
    if stopped:
        raise typer.Exit(130)


def compare(
    model: Model = None,
    shape: Shape = None,
    limit: Annotated[
        float, typer.Option(help="Stop a peer's batch after so many seconds.")
    ] = 60.0,
    requests: Annotated[
        int | None, typer.Option(help="Requests of the batch. Default: 256 on a GPU, 32 on a CPU.")
    ] = None,
    vllm: Annotated[bool, typer.Option(help="Also vLLM, where it is installed.")] = True,
    quick: Quick = False,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Run the other engines of this machine on the same weights and the same work.

    transformers with its dynamic cache, its static cache compiled (on a GPU), and its continuous
    batching; vLLM where it can be imported. One request alone, decoding only, and a batch offline.
    On a CPU this compares SmolLM2 in transformers' ways; what needs a GPU is named.
    """
    from infero import bench_compare as b

    _one_source(model, shape)
    if requests is not None and requests < 1:
        raise ParameterError(f"requests is {requests}; it must be at least 1.")
    where = _device(device)
    limits = _limits(where, quick)
    weights = _weights(model, shape, dtype, where)
    task = b.task_of(weights, small=quick, limit_s=limit, requests=requests)
    job = task.job
    out.print(f"{weights.name or weights.config.architecture} · {weights.dtype} · "
              f"{limits.device}, reads {limits.read_bytes_per_s / 1e9:,.0f} GB/s".replace(
                  "torch.", ""), markup=False)
    out.print(f"alone: prompt {len(task.prompt)}, {task.new} new tokens · batch: "
              f"{len(job.prompts)} requests, {job.prompt_tokens:,} prompt and "
              f"{job.output_tokens:,} output tokens", markup=False)
    lines: list[Any] = []
    stopped = False
    with err.status("…") as status:
        name = ""

        def starting(now: str) -> None:
            nonlocal name
            name = now
            status.update(f"{name} …")

        def seen(done: int, tokens: int) -> None:
            status.update(f"{name}: {done} of {len(job.prompts)} requests, {tokens:,} tokens …")

        try:
            for line in b.compare(b.Bench(weights, task, limits), vllm=vllm, starting=starting,
                                  seen=seen):
                lines.append(line)
        except KeyboardInterrupt:
            stopped = True
    if lines:
        _print_table(b.COLUMNS, [b.cells(line, lines[0], limits) for line in lines], b.CAPTION,
                     left=1)
    for line in lines:
        if line.problem:
            out.print(f"{line.name}: {line.problem}.", markup=False)
    if stopped:
        raise typer.Exit(130)


def tune(
    kernels: Annotated[
        list[str] | None, typer.Argument(help="Beginnings of kernels' names. Default: all.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also write the package's own table (maintainers).")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Measure, and store nothing.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="What can be tuned, and stop.")] = False,
) -> None:
    """Find the fastest configuration of each kernel on this GPU and remember it.

    Block sizes, warps and pipeline depth are tried for each class of shapes. The best go into your
    configuration folder ($INFERO_CONFIG, else the platform's), where the kernels look first.
    """
    from infero import tune as t

    offered = t.tunables(kernels or ())
    if list_:
        for one in offered:
            out.print(f"{one.kernel}  {one.shape}  {len(one.candidates)} candidates", markup=False)
        return
    t.need_gpu()
    if not offered:
        raise t.TuneError("No kernel offers anything to tune.")
    found, rows = [], []
    with err.status(f"Compiling {sum(len(one.candidates) for one in offered)} candidates in "
                    "several processes (a few seconds each) …"):
        t.compile_all(kernels or ())
    with _bar("Tuning", sum(len(one.candidates) for one in offered)) as (bar, task):
        for one in offered:
            bar.update(task, description=f"{one.kernel}, {one.shape}")
            tuned = t.tune(one)
            bar.advance(task, len(one.candidates))
            found.append(tuned)
            rows.append(_tuned_row(tuned))
    _print_table(("kernel", "shapes", "best", "time", "over default", "GB/s"), rows,
                 "over default: the time of the first candidate over the best one's.", left=3)
    table = t.table_of(found, t.architecture())
    places = [] if dry else [t.user_file(), *([t.package_file()] if write else [])]
    for place in places:
        if place is None:
            raise t.TuneError("There is no configuration folder: set INFERO_CONFIG to one.")
        t.write(place, table)
        out.print(f"Wrote {place}.", markup=False)


def _tuned_row(tuned: Any) -> list[str]:
    one, best = tuned.tunable, tuned.best
    if best is None:
        return [one.kernel, one.shape, f"none runs: {tuned.trials[0].problem}", "", "", ""]
    words = " ".join(f"{k}={v}" for k, v in best.config.items())
    rate = f"{one.bytes_moved / best.time_s / 1e9:,.0f}" if one.bytes_moved else ""
    return [one.kernel, one.shape, words, f"{1e6 * best.time_s:,.1f} µs", f"{tuned.gain:.2f}×",
            rate]


# ---------------------------------------------------------------- helpers


def _one_source(model: str | None, shape: str | None) -> None:
    if shape is not None and model is not None:
        raise ParameterError("--model and --shape exclude one another; leave one of them away.")
    if shape is not None:
        from infero import bench_throughput

        bench_throughput.shape_config(shape)


def _rungs(rungs: Sequence[Any], only: str | None) -> list[Any]:
    if only is None:
        return list(rungs)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    known = {rung.key: rung for rung in rungs}
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ParameterError(f"There is no rung {(unknown or [only])[0]!r}; there are "
                             f"{', '.join(known)}.")
    return [rung for rung in rungs if rung.key in wanted]


def _device(device: str | None) -> torch.device:
    from infero.loading import dtype

    return dtype.choose_device(device)


def _limits(where: torch.device, quick: bool) -> Limits:
    from infero import bench_limits

    with err.status("Measuring this machine's limits …"):
        return bench_limits.measure(where, small=quick)


def _weights(model: str | None, shape: str | None, dtype: str, where: torch.device) -> Weights:
    if shape is None:
        return load_llm(model, dtype, str(where), False, use_cache=False).model
    from infero import bench_throughput as b
    from infero.loading import dtype as dtypes

    name = str(dtypes.choose(dtype, where)).removeprefix("torch.") if dtype == "auto" else dtype
    if name not in ("float32", "bfloat16", "float16"):
        raise ParameterError(f"dtype is {dtype!r}; random weights are float32, bfloat16 or "
                             "float16.")
    with err.status(f"Drawing random weights of the {shape} shape …"):
        return b.random_shape(shape, name, str(where))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, *,
                 sections: Sequence[int] = (), left: int = 1) -> None:
    """A table of texts: the first `left` columns flush left, a line before rows in `sections`."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, caption=caption, caption_justify="left", pad_edge=False,
                  collapse_padding=True)
    for i, name in enumerate(columns):
        table.add_column(name.strip(), no_wrap=True, justify="left" if i < left else "right")
    for i, row in enumerate(rows):
        if i in sections:
            table.add_section()
        table.add_row(*row)
    out.print(table)


class _bar:
    """A progress bar on standard error: `with _bar("Tuning", 12) as (bar, task)`."""

    def __init__(self, words: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                            TextColumn("candidates"), Elapsed(), console=err, transient=True)
        self.task = self.bar.add_task(words, total=total)

    def __enter__(self) -> tuple[Any, Any]:
        self.bar.start()
        return self.bar, self.task

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
