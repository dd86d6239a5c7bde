"""`infero trace`: record what the engine does, and draw what was recorded.

Without a file it generates once and writes a trace; given a timeline (`--trace run.jsonl` of other
commands) it makes a page or a Perfetto file of it; given a profiler's trace it says how busy the
GPU was (chapter 3).
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infero.cli_common import (
    Device,
    Dtype,
    MaxTokens,
    Mine,
    Model,
    err,
    load_llm,
    out,
    sampling_params,
)
from infero.errors import ParameterError

if TYPE_CHECKING:
    from infero.timeline import Run

TIMELINES = (".jsonl", ".jsonl.gz")
TRACES = (".json", ".json.gz")


def trace(
    source: Annotated[
        str, typer.Argument(metavar="TEXT|FILE", help="The text to continue; or a timeline "
                            "(.jsonl) or a profiler's trace (.json, .json.gz) to read.")
    ] = "The capital of France",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the calls inside each "
                                  "step, .json or .json.gz. Default: trace.json.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the timeline of requests, steps and blocks as a "
                                  "page.")
    ] = None,
    perfetto: Annotated[
        Path | None, typer.Option(help="Write the timeline as a trace for ui.perfetto.dev.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="A small engine with random weights and a pool that is "
                           "too small: queueing, chunks, shared blocks, preemption.")
    ] = False,
    model: Model = None,
    max_tokens: MaxTokens = 16,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Write a trace of the engine, or read one (chapters 3, 10 and 11).

    Examples: infero trace "The capital of France"

    infero trace run.jsonl --html run.html --perfetto run.json.gz

    infero trace --demo
    """
    if demo:
        _draw(demonstration(), html or Path("timeline.html"), perfetto)
    elif source.endswith(TIMELINES):
        from infero import timeline

        _draw(timeline.read(_existing(source)), html, perfetto)
    elif source.endswith(TRACES) and (Path(source).exists() or "/" in source):
        report(_existing(source))
    else:
        _generate(source, output, html, perfetto, model, max_tokens, mine, dtype, device)


def _existing(name: str) -> Path:
    if not Path(name).is_file():
        raise ParameterError(f"There is no file {name}. Record a timeline with `infero generate "
                             "TEXT --trace run.jsonl` or `infero bench throughput --trace "
                             "run.jsonl`; `infero trace --demo` needs no file.")
    return Path(name)


def _generate(prompt: str, output: Path | None, html: Path | None, perfetto: Path | None,
              model: str | None, max_tokens: int, mine: bool, dtype: str, device: str | None
              ) -> None:
    """Generate once: the calls inside each step, or with `html` or `perfetto` the steps."""
    from infero import timeline
    from infero import trace as t

    llm = load_llm(model, dtype, device, mine)
    params = sampling_params(max_tokens=max_tokens, temperature=0.0)
    if output is not None or (html is None and perfetto is None):
        output = output or Path("trace.json")
        text = t.generation(llm, prompt, params, output)
        out.print(prompt + text, markup=False)
        _wrote_trace(output)
    if html is not None or perfetto is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.jsonl"
            with timeline.recording(llm, path, title=prompt):
                text = llm.generate(prompt, params)[0].text
            if output is None:
                out.print(prompt + text, markup=False)
            _draw(timeline.read(path), html, perfetto)


def _draw(run: Run, html: Path | None, perfetto: Path | None) -> None:
    from infero import timeline, timeline_html

    for line in timeline.summary(run):
        out.print(line, markup=False)
    if html is not None:
        timeline_html.write(run, html)
        err.print(f"Wrote {html} ({html.stat().st_size / 1e3:,.0f} kB): open it in a browser.",
                  style="dim")
    if perfetto is not None:
        timeline.to_perfetto(run, perfetto)
        _wrote_trace(perfetto)
    if html is None and perfetto is None:
        err.print("Draw it with --html PAGE.html or --perfetto TRACE.json.gz.", style="dim")


def _wrote_trace(path: Path) -> None:
    err.print(f"Wrote {path} ({path.stat().st_size / 1e3:,.0f} kB): open it at "
              "https://ui.perfetto.dev; it stays on your machine.", style="dim")


def demonstration() -> Run:
    """Fourteen requests at an engine with room for few: random weights, no file, a second."""
    from infero import timeline
    from infero.engine import Engine, EngineConfig
    from infero.model import ModelConfig, random_model
    from infero.sampling import SamplingParams

    model = random_model(ModelConfig("llama", 128, 32, 64, 2, 4, 2, 8, 256), seed=1)
    model.name = "random weights"
    engine = Engine(model, EngineConfig(block_size=4, num_blocks=48, max_num_seqs=6,
                                        max_num_batched_tokens=24))
    draw = random.Random(4)
    system = [draw.randrange(128) for _ in range(16)]  # a prompt that every second request shares
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.jsonl"
        with timeline.recording(engine, path, "A small engine under pressure"):
            for i in range(14):
                own = [draw.randrange(128) for _ in range(draw.randint(4, 30))]
                engine.add_request(
                    f"request {i + 1}", (system + own[:12]) if i % 2 else own,
                    SamplingParams(temperature=0.0, max_tokens=draw.randint(6, 36),
                                   ignore_eos=True, n=2 if i == 13 else 1))
            while engine.has_unfinished():
                engine.step()
                if engine.stats.steps == 30:
                    engine.abort("request 9")
        return timeline.read(path)


def report(path: Path, rows: int = 10) -> None:
    """What a torch.profiler trace says about the GPU: busy share, gaps, kernels, launches."""
    from rich import box
    from rich.table import Table

    from infero import bench
    from infero import trace as t

    found = t.profile(path)
    if not found.device:
        kinds = (f"{len(found.ops)} operators and {len(found.marks)} marks of the host"
                 if found.ops or found.marks else "no spans that torch.profiler names")
        out.print(f"{path} holds no work of a GPU ({kinds}). Open it at https://ui.perfetto.dev.")
        return
    gaps = t.gaps_s(found.device)
    out.print(f"The GPU was busy {100 * t.busy_share(found.device):.1f} % of "
              f"{1e3 * (found.device[-1].end_s - found.device[0].start_s):,.2f} ms, with "
              f"{len(gaps)} gaps of {1e3 * sum(gaps):,.2f} ms together.")
    table = Table("kernel", "count", "total", "mean", "share", box=box.SIMPLE)
    for row in t.kernel_table(found.kernels)[:rows]:
        table.add_row(row.name[:60], str(row.count), f"{1e3 * row.total_s:,.3f} ms",
                      f"{1e6 * row.mean_s:,.1f} µs", f"{100 * row.share:.1f} %")
    out.print(table)
    delays = t.launch_delays_s(found)
    if delays:
        out.print(f"A kernel starts {1e6 * bench.percentile(delays, 50):,.1f} µs after its launch "
                  f"(median of {len(delays)}); {len(t.waits(found))} times the host waited for "
                  "the GPU.")
