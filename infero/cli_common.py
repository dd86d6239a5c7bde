"""What the commands of `infero` share: consoles, options, and how a model is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from infero.llm import LLM
    from infero.sampling import SamplingParams

# emoji off: rich would turn ":100:" of "uniform:100:1024" into a picture
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)
settings = {"debug": False}

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Hub id, folder with safetensors, or .gguf file. "
                 "Default: $INFERO_MODEL, else SmolLM2-135M-Instruct."),
]
Dtype = Annotated[
    str, typer.Option(help="auto, float32, bfloat16 or float16; auto measures and picks.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: cuda if present.")]
Mine = Annotated[bool, typer.Option("--mine", help="Run the pieces you wrote in the labs.")]
Quantization = Annotated[
    str | None,
    typer.Option(help="Round the weights at the start: int8, int4, fp8 or w8a8; or run a GGUF "
                 "file's as they are stored: stored. Default: in the model's dtype."),
]
Kernels = Annotated[
    str, typer.Option(help="auto, triton, torch, or steps: the short kernels of labs 13 to 15.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", help="Most new tokens to make.")]
Record = Annotated[
    Path | None,
    typer.Option("--trace", help="Record every step of the engine in this .jsonl file; "
                 "`infero trace FILE --html PAGE` draws it."),
]


def install_mine(mine: bool) -> None:
    """Put the learner's pieces into the engine, if asked."""
    if mine:
        from infero.lab import swap

        for line in swap.install_mine():
            err.print(line, style="dim")


def load_llm(model: str | None, dtype: str, device: str | None, mine: bool, **options: Any) -> LLM:
    """Open a model as an `LLM`."""
    install_mine(mine)
    from infero.llm import LLM

    with err.status("Loading the model …"):
        return LLM(model, dtype=dtype, device=device, **options)


def engine_options(quantization: str | None, kernels: str) -> dict[str, Any]:
    """The engine's options that differ from their defaults."""
    chosen = {"quantization": quantization, "kernels": kernels if kernels != "auto" else None}
    return {name: value for name, value in chosen.items() if value is not None}


def sampling_params(**fields: Any) -> SamplingParams:
    """SamplingParams of the options that were given."""
    from infero.sampling import SamplingParams

    return SamplingParams(**{k: v for k, v in fields.items() if v is not None})
