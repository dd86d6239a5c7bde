"""`infero bench`: the engine under load; `bench throughput` offline; `bench scheduler` without a
model. Thin layers over `bench_engine`, `bench_throughput` and `bench_scheduler`. `bench ladder` and
`bench compare` are in `cli_speed.py`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infero import cli_speed
from infero.cli_common import (
    Device,
    Dtype,
    Mine,
    Model,
    Record,
    err,
    install_mine,
    load_llm,
    out,
)
from infero.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from infero.bench_throughput import Job, Run
    from infero.engine import Engine
    from infero.model import Model as Weights

app = typer.Typer(
    invoke_without_command=True, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(cli_speed.ladder)
app.command()(cli_speed.compare)


@app.callback()
def bench(
    context: typer.Context,
    model: Model = None,
    requests: Annotated[int, typer.Option(help="Requests under each load.")] = 16,
    prompt_tokens: Annotated[int, typer.Option(help="Length of each prompt.")] = 64,
    new_tokens: Annotated[int, typer.Option(help="Tokens made for each request.")] = 32,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second, open loop. Default: 70 % of capacity.")
    ] = None,
    clients: Annotated[int, typer.Option(help="Clients of the closed loop.")] = 4,
    ttft_slo: Annotated[float, typer.Option(help="Goodput's limit on TTFT, in seconds.")] = 1.0,
    tpot_slo: Annotated[float, typer.Option(help="Goodput's limit on TPOT, in seconds.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of prompts and arrivals.")] = 0,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Measure the engine alone, under an open and under a closed load (chapter 3).

    `infero bench ladder` climbs from the naive loop to the whole engine, one chapter a rung;
    `infero bench compare` runs other engines on the same work; `infero bench throughput` measures
    a whole batch offline (chapter 10), `infero bench scheduler` the scheduler without a model
    (chapter 11).
    """
    if context.invoked_subcommand is not None:
        return
    from infero import bench_engine as b

    if clients < 1:
        raise ParameterError(f"clients is {clients}; it must be at least 1.")
    work = b.Workload(requests, prompt_tokens, new_tokens, ttft_slo, tpot_slo, seed)
    llm = load_llm(model, dtype, device, mine)
    with err.status("Measuring …"):
        b.print_bench(llm, work, rate, clients)


@app.command()
def throughput(
    model: Model = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights of a published shape instead of a model: "
                                 "0.6b (Qwen3) or 8b (Llama 3).")
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests, all there from the start.")] = 128,
    slots: Annotated[int, typer.Option(help="Requests that may run at once.")] = 16,
    lengths: Annotated[
        str, typer.Option(help="Output tokens: geometric:MEAN:CAP, uniform:LOW:HIGH or fixed:N.")
    ] = "geometric:32:256",
    prompt_tokens: Annotated[
        str, typer.Option(help="Prompt tokens: a number, or like --lengths.")
    ] = "uniform:32:64",
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of prompts, lengths and draws.")] = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also static batching: this engine's, and that of "
                           "transformers where it is installed.")
    ] = False,
    limit: Annotated[
        float | None, typer.Option(help="Stop each way after so many seconds.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", help="Token budget of a step.")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--num-blocks", help="Blocks of the KV cache. Default: as many "
                                 "as fit and are of use.")
    ] = None,
    trace: Record = None,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Serve a batch of requests as fast as possible, and compare with static batching.

    Ctrl-C stops one way and prints what was measured. The requests' ends are decided by their
    lengths alone. Example: infero bench throughput --compare
    """
    from infero import bench_throughput as b
    from infero.engine import Engine

    if slots < 1:
        raise ParameterError(f"slots is {slots}; it must be at least 1.")
    if shape is not None and model is not None:
        raise ParameterError("--model and --shape exclude one another; leave one of them away.")
    b.make_job(2, requests, lengths, prompt_tokens, seed)  # a bad option fails before the loading
    weights = _weights(model, shape, dtype, device, mine)
    job = b.make_job(weights.config.vocab_size, requests, lengths, prompt_tokens, seed,
                     temperature)
    b.check_fits(weights, job)
    engine = Engine(weights, b.engine_config(job, slots, budget, num_blocks=blocks))
    out.print(f"{weights.name or weights.config.architecture} · "
              f"{str(weights.dtype).removeprefix('torch.')} on {weights.device} · {requests} "
              f"requests, {job.prompt_tokens:,} prompt and {job.output_tokens:,} output tokens · "
              f"{slots} slots · KV cache of {engine.num_blocks:,} blocks of "
              f"{engine.config.block_size}", markup=False)
    with err.status("Warming up …"):
        b.warm_up(engine, job)
    runs = _runs(engine, job, limit, compare, trace, slots)
    _print_runs(job, runs)
    if any(run.stopped == "Ctrl-C" for run in runs):
        raise typer.Exit(130)


def _weights(model: str | None, shape: str | None, dtype: str, device: str | None, mine: bool
             ) -> Weights:
    if shape is None:
        return load_llm(model, dtype, device, mine, use_cache=False).model
    import torch

    from infero import bench_throughput as b

    install_mine(mine)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    b.shape_config(shape)  # an unknown name fails here, with the names there are
    dtype = "bfloat16" if dtype == "auto" else dtype
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ParameterError(f"dtype is {dtype!r}; random weights are float32, bfloat16 or "
                             "float16.")
    with err.status(f"Drawing random weights of the {shape} shape …"):
        return b.random_shape(shape, dtype, device)


def _runs(engine: Engine, job: Job, limit: float | None, compare: bool, trace: Path | None,
          slots: int) -> list[Run]:
    """The ways to serve the job, one after the other; Ctrl-C ends the one that runs and the rest.
    """
    import math

    from infero import bench_throughput as b
    from infero import timeline

    limit_s = limit if limit is not None else math.inf

    def recorded(seen: b.Seen) -> Run:
        recording: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if trace is not None:
            recording = timeline.recording(engine, trace, title="infero bench throughput")
        with recording:
            return b.continuous(engine, job, limit_s=limit_s, seen=seen)

    ways: list[tuple[str, Callable[[b.Seen], Run]]] = [("continuous", recorded)]
    if compare:
        ways += [
            ("static", lambda seen: b.static(engine, job, limit_s=limit_s, seen=seen)),
            ("static, shrinking",
             lambda seen: b.static(engine, job, drop_finished=True, limit_s=limit_s, seen=seen)),
        ]
        ways += _peer_ways(engine, job, slots)
    runs: list[Run] = []
    for name, way in ways:
        runs.append(_with_bar(name, way, len(job.prompts)))
        if runs[-1].stopped == "Ctrl-C":
            break
    if trace is not None:
        err.print(f"Wrote {trace}: draw it with `infero trace {trace} --html run.html`.",
                  style="dim")
    return runs


def _peer_ways(engine: Engine, job: Job, slots: int) -> list[tuple[str, Any]]:
    from infero import peers

    try:
        peer = peers.transformers_model(engine.model)
    except peers.PeerMissing as problem:
        err.print(str(problem), style="dim")
        return []
    return [("transformers",
             lambda seen: peers.transformers_static(peer, job, slots, seen=seen))]


def _with_bar(name: str, way: Callable[[Any], Run], requests: int) -> Run:
    """Run one way under a progress bar of its requests."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("requests ·"),
                   TextColumn("{task.fields[tokens]:,} tokens"), TimeElapsedColumn(),
                   console=err, transient=True, refresh_per_second=4)
    with bar:
        task = bar.add_task("", total=requests, tokens=0)
        return way(lambda done, tokens: bar.update(task, completed=done, tokens=tokens))


def _print_runs(job: Job, runs: list[Run]) -> None:
    from rich import box
    from rich.table import Table

    from infero import bench_throughput as b

    table = Table(box=box.SIMPLE, caption=b.CAPTION, caption_justify="left")
    for name in b.COLUMNS:
        table.add_column(name, no_wrap=True, justify="left" if name == "batching" else "right")
    for row in b.table_rows(runs):
        table.add_row(*row)
    out.print(table)
    for line in b.sentences(job, runs):
        out.print(line, markup=False)


@app.command()
def scheduler(
    running: Annotated[
        str, typer.Option(help="How many requests run at once, separated by commas.")
    ] = "32,64,128,256,512,1024",
    steps: Annotated[int, typer.Option(help="Steps that are timed for each.")] = 200,
    queued: Annotated[int, typer.Option(help="Requests that wait in the long queue.")] = 10_000,
    policy: Annotated[str, typer.Option(help="fcfs, sjf or priority.")] = "fcfs",
) -> None:
    """Time the scheduler alone: a fake model, no weights (chapter 11)."""
    from rich import box
    from rich.table import Table

    from infero import bench_scheduler as b

    try:
        sizes = [int(one) for one in running.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or steps < 1 or queued < 1:
        raise ParameterError(f"--running {running}, --steps {steps}, --queued {queued}: give "
                             "numbers of at least 1, --running separated by commas.")
    table = Table("running", "schedule", "commit", "a step", "a request", box=box.SIMPLE,
                  caption="medians", caption_justify="left")
    found = []
    with err.status("Measuring …") as status:
        for size in sizes:
            status.update(f"{size} running requests …")
            found.append(b.overhead(size, steps, policy=policy))
        status.update(f"{queued:,} queued requests …")
        long = b.overhead(sizes[0], steps, waiting=queued, policy=policy)
        add_s, drop_s = b.add_times_s(queued, policy)
    for one in found:
        parts = [_median_us(one.schedule_s), _median_us(one.commit_s), 1e6 * one.median_s,
                 1e6 * one.median_s / one.running]
        table.add_row(str(one.running), *(f"{us:,.1f} µs" for us in parts))
    out.print(table)
    if len(sizes) > 1:
        power = b.exponent(sizes, [one.median_s for one in found])
        out.print(f"A step's time grows with the number of running requests to the power "
                  f"{power:.2f} (1 is linear).")
    out.print(f"With {queued:,} more in the queue a step of {sizes[0]} takes "
              f"{1e6 * long.median_s:,.1f} µs instead of {1e6 * found[0].median_s:,.1f} µs; to "
              f"queue them takes {1e6 * add_s / queued:.1f} µs each, to abort them "
              f"{1e6 * drop_s / queued:.1f} µs.")


def _median_us(samples_s: tuple[float, ...]) -> float:
    from infero import bench as b

    return 1e6 * b.percentile(samples_s, 50)
