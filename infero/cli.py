"""The `infero` command. Each subcommand is a thin layer over a function of the package.

Errors that infero raises on purpose are printed as one message without a traceback, with exit
status 2; `--debug` shows the traceback. Ctrl-C ends with status 130.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

import infero
from infero import cli_bench, cli_eval, cli_quantize, cli_speed, cli_trace
from infero.cli_common import (
    Device,
    Dtype,
    Kernels,
    MaxTokens,
    Mine,
    Model,
    Quantization,
    Record,
    engine_options,
    err,
    load_llm,
    out,
    sampling_params,
    settings,
)
from infero.errors import InferoError

if TYPE_CHECKING:
    from infero.llm import LLM

app = typer.Typer(
    name="infero",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A small engine for large language models, built chapter by chapter in the Infero book.",
)
app.add_typer(cli_bench.app, name="bench")
app.command()(cli_trace.trace)
app.command("eval")(cli_eval.evaluate)
app.command()(cli_speed.tune)
app.command()(cli_quantize.quantize)

Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(help="Keep the nucleus of this probability; 1 keeps all.")]
MinP = Annotated[float, typer.Option(help="Drop tokens below this share of the likeliest.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1 discourages repetition.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same text. Default: a fresh one.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"infero {infero.__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    settings["debug"] = debug


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads standard input.")],
    model: Model = None,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    naive: Annotated[
        bool, typer.Option("--naive", help="Recompute everything each token: no KV cache.")
    ] = False,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    kernels: Kernels = "auto",
    trace: Record = None,
    stats: Annotated[bool, typer.Option(help="Print times and tokens a second to stderr.")] = True,
) -> None:
    """Continue a text and print it as it is made.

    Example: infero generate "The capital of France is" -n 32
    """
    params = sampling_params(max_tokens=max_tokens, temperature=temperature, top_k=top_k,
                             top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
                             seed=seed, stop=stop)
    if prompt == "-":
        prompt = sys.stdin.read()
    llm = load_llm(model, dtype, device, mine, use_cache=not naive,
                   **engine_options(quantization, kernels))
    recording: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if trace is not None:
        from infero import timeline

        recording = timeline.recording(llm, trace, title=prompt)
    with recording:
        out.out(prompt, end="")
        _answer(llm, llm.stream(prompt, params), stats)


@app.command()
def chat(
    model: Model = None,
    system: Annotated[str, typer.Option(help="The system message.")] = "",
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.05,
    seed: Seed = None,
    mine: Mine = False,
    dtype: Dtype = "auto",
    device: Device = None,
    quantization: Quantization = None,
    kernels: Kernels = "auto",
    stats: Annotated[bool, typer.Option(help="Print times after each answer.")] = True,
) -> None:
    """Talk with the model. Ctrl-C stops an answer; /clear forgets, /exit or Ctrl-D leaves."""
    params = sampling_params(max_tokens=max_tokens, temperature=temperature, top_k=top_k,
                             top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
                             seed=seed)
    llm = load_llm(model, dtype, device, mine, **engine_options(quantization, kernels))
    start = [{"role": "system", "content": system}] if system else []
    messages = list(start)
    err.print(f"{llm.model.name or 'model'} · Ctrl-C stops an answer · /clear · /exit", style="dim")
    while True:
        try:
            text = out.input("[bold]you ›[/bold] ").strip()
        except EOFError:
            out.print()
            return
        except KeyboardInterrupt:
            out.print("\n(/exit or Ctrl-D leaves)", style="dim")
            continue
        if text in ("/exit", "/quit"):
            return
        if text == "/clear":
            messages = list(start)
            continue
        if not text:
            continue
        messages.append({"role": "user", "content": text})
        try:
            answer = _answer(llm, llm.chat(messages, params), stats)
        except InferoError as problem:  # for example: the conversation outgrew the context
            err.print(str(problem), style="red")
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})


def _answer(llm: LLM, chunks: Any, stats: bool) -> str:
    """Print a stream as it comes; on Ctrl-C stop it there. Returns the text."""
    import time

    text, times, start, stopped = "", [], time.perf_counter(), False
    try:
        for chunk in chunks:
            if chunk.token is not None:
                times.append(time.perf_counter() - start)
            text += chunk.text
            out.out(chunk.text, end="")
            out.file.flush()
    except KeyboardInterrupt:
        stopped = True
    out.print()
    if stats and times:
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else float("nan")
        note = " · stopped" if stopped else ""
        cache = "" if llm.use_cache else " · no KV cache"
        name = str(llm.model.dtype).removeprefix("torch.")
        err.print(f"{len(times)} tokens · TTFT {times[0] * 1e3:.0f} ms · decode {rate:.1f} tok/s · "
                  f"{name} on {llm.model.device}{cache}{note}", style="dim")
    return text


@app.command()
def pieces() -> None:
    """List every piece of the engine: whose it is, its lab, its last check, its speed."""
    from infero.lab import report

    report.print_pieces()


@app.command()
def check(
    piece: Annotated[
        str | None, typer.Argument(help="A piece's name, for example sampling.top_p. Default: all.")
    ] = None,
) -> None:
    """Check your saved pieces again, and say what is wrong with the ones that fail."""
    from infero.lab import report

    if not report.check_saved(piece):
        raise typer.Exit(1)


@app.command()
def roofline(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A shape: smollm2-135m, qwen3-0.6b, llama-3-8b …")
    ] = "llama-3-8b",
    hardware: Annotated[
        str | None, typer.Option("--device", "-d", help="h100, a100-80gb, t4 …; default: this one.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Requests decoded together.")] = 1,
    context: Annotated[int, typer.Option("--context", "-c", help="Tokens of each request.")] = 1024,
    weights: Annotated[str, typer.Option(help="bf16, fp8, int8 or int4.")] = "bf16",
    kv: Annotated[str, typer.Option(help="bf16, fp8 or int8.")] = "bf16",
) -> None:
    """Predict prefill and decode from the shape of a model and the limits of a device."""
    from infero import roofline as r

    r.print_prediction(model, hardware, batch=batch, context=context, weights=weights, kv=kv)


def main() -> None:
    """Entry point: turns infero's own errors into one message and an exit status."""
    try:
        app()
    except InferoError as problem:
        if settings["debug"]:
            raise
        err.print(f"[red]error:[/red] {problem}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone (`infero … | head`): not an error
        raise SystemExit(0) from None
    except OSError as problem:  # a full disk, a folder that may not be written, …
        if settings["debug"]:
            raise
        err.print(f"[red]error:[/red] {problem.filename or 'the system'}: {problem.strerror}. "
                  "Check the path, its permissions and the free space.")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
