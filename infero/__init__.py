"""Infero: a textbook that ends in a working engine. This package is the engine.

    import infero
    llm = infero.LLM()                       # SmolLM2-135M-Instruct, on this machine
    print(llm.generate("The capital of France is")[0].text)

Importing it costs almost nothing: torch and the rest come with the first name used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from infero.llm import LLM as LLM
    from infero.loading import load as load
    from infero.model import ModelConfig as ModelConfig
    from infero.sampling import SamplingParams as SamplingParams

_HOME = {
    "LLM": "infero.llm",
    "load": "infero.loading",
    "ModelConfig": "infero.model",
    "SamplingParams": "infero.sampling",
}
__all__ = ["LLM", "ModelConfig", "SamplingParams", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'infero' has no attribute {name!r}")
