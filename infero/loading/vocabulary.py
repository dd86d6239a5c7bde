"""Builds a `Tokenizer`: from the metadata of a GGUF file, or from a folder's tokenizer.json.

A GGUF file holds the vocabulary and the merges, but of the rule that cuts text into words
before merging it holds only a *name* ("smollm", "llama-bpe", "qwen2", …). The table below
gives the rule behind each name. Byte-level BPE comes from GPT-2; the vocabularies of kind
"llama" are SentencePiece's (arXiv:1808.06226), whose merges follow from the scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infero.errors import ConfigError, LoadError
from infero.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# name of the rule in GGUF → (cut digits one by one first, regular expression; None = GPT-2's)
_RULES: dict[str, tuple[bool, str | None]] = {
    **dict.fromkeys(["gpt-2", "gpt2", "olmo", "phi-2", "mpt"], (False, None)),
    **dict.fromkeys(["smollm", "starcoder", "refact", "codeshell", "command-r"], (True, None)),
    **dict.fromkeys(["llama-bpe", "llama3", "llama-v3", "smaug-bpe", "falcon3"], (False, _LLAMA3)),
    **dict.fromkeys(["qwen2", "deepseek-r1-qwen", "megrez"], (False, _QWEN2)),
    "tekken": (False, _TEKKEN),
}
_IGNORE_MERGES = {"llama-bpe", "llama3", "llama-v3", "falcon3", "tekken"}  # whole words first
_BOS_BY_DEFAULT = {"llama-bpe", "llama3", "llama-v3", "falcon3", "tekken"}
# Names of tokens that end a turn or a text whatever the metadata says about `eos`.
_ENDS = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>"}
_LONGEST_PIECE = 512  # characters; longer ones occur in damaged files only
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # token types of the GGUF format


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer described by a GGUF file's metadata, or None if it describes none."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or kind in ("none", "no_vocab"):
        return None
    try:
        return _from_gguf(str(kind), metadata)
    except LoadError:
        raise
    except Exception as error:  # whatever a corrupt vocabulary makes the library raise
        raise LoadError(f"The GGUF file's vocabulary cannot be read ({error}); the file is "
                        "damaged: fetch it again.") from error


def _from_gguf(kind: str, metadata: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import AddedToken, processors

    def field(name: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", default)

    tokens: list[str] = field("tokens", [])
    types: list[int] = field("token_type") or [1] * len(tokens)
    if not tokens or len(types) != len(tokens):
        raise LoadError(f"The GGUF file's vocabulary has {len(tokens)} tokens and {len(types)} "
                        "token types; both must be equal and not zero. Fetch the file again.")
    vocab = {t: i for i, (t, type_) in enumerate(zip(tokens, types, strict=True))
             if type_ != _UNUSED}
    pre = str(field("pre", "gpt-2"))
    if kind == "gpt2":
        backend = _byte_level(vocab, field("merges", []), pre)
    elif kind == "llama":
        backend = _sentencepiece(vocab, field("scores", []), bool(field("add_space_prefix", True)),
                                 unknown=_named(tokens, field("unknown_token_id")))
    else:
        raise ConfigError(f"The GGUF file's tokenizer is of kind {kind!r}; infero reads 'gpt2' "
                          "(byte-level BPE) and 'llama' (SentencePiece).")
    backend.add_tokens([
        AddedToken(token, special=type_ == _CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=True) if type_ in (_CONTROL, _USER_DEFINED)
    ])

    bos, eos = field("bos_token_id"), field("eos_token_id")
    bos_default = kind == "llama" or pre in _BOS_BY_DEFAULT
    frame = {
        "bos": bos if field("add_bos_token", bos_default) else None,
        "eos": eos if field("add_eos_token", False) else None,
    }
    used = {key: (tokens[i], i) for key, i in frame.items() if i is not None}
    if used:
        parts = [used["bos"][0]] if "bos" in used else []
        parts += ["$A"] + ([used["eos"][0]] if "eos" in used else [])
        backend.post_processor = processors.TemplateProcessing(
            single=[f"{p}:0" if p != "$A" else "$A:0" for p in parts],
            special_tokens=list(dict.fromkeys(used.values())),
        )
    ends = [eos, field("eot_token_id"), field("eom_token_id")]
    ends += [i for i, t in enumerate(tokens) if types[i] == _CONTROL and t in _ENDS]
    names = {"bos_token": bos, "eos_token": eos, "unk_token": field("unknown_token_id"),
             "pad_token": field("padding_token_id")}
    template = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        backend,
        eos_ids=tuple(dict.fromkeys(int(i) for i in ends if i is not None)),
        bos_id=None if bos is None else int(bos),
        chat_template=template if isinstance(template, str) else None,
        special_names={k: tokens[i] for k, i in names.items() if i is not None},
    )


def _named(tokens: list[str], index: int | None) -> str | None:
    return None if index is None else tokens[index]


def _byte_level(vocab: dict[str, int], merges: list[str], pre: str) -> Backend:
    """Byte-level BPE: cut into words, spell the bytes in 256 letters, merge."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if pre not in _RULES:
        raise ConfigError(f"The GGUF file cuts words by the rule {pre!r}, which infero does not "
                          f"know; known: {', '.join(sorted(_RULES))}. Use the safetensors "
                          "version of the model with its tokenizer.json.")
    digits, pattern = _RULES[pre]
    halves = [merge.partition(" ") for merge in merges]
    pairs = [(left, right) for left, _, right in halves]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre in _IGNORE_MERGES))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if pattern == _QWEN2:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece(vocab: dict[str, int], scores: list[float], space_prefix: bool,
                   unknown: str | None) -> Backend:
    """SentencePiece BPE: a space is spelled "▁", unknown characters as <0x..> bytes.

    The file has no merges: two pieces merge wherever their union is a piece, the union with
    the best score first.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    found = []
    for piece, index in vocab.items():
        for cut in range(1, len(piece) if len(piece) <= _LONGEST_PIECE else 0):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                found.append((-scores[index], vocab[left], vocab[right], left, right))
    merges = [(left, right) for *_, left, right in sorted(found)]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True,
                                   byte_fallback=True))
    prefix = [normalizers.Prepend("\u2581")] if space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                         decoders.Fuse(), *strip])
    return backend


def from_folder(folder: Path, eos_ids: tuple[int, ...] = ()) -> Tokenizer | None:
    """The tokenizer of a folder with tokenizer.json, or None where there is none.

    `eos_ids` are the ends that the model's own configuration names; the tokenizer's is added.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    settings = read_json(folder / "tokenizer_config.json", {})
    names = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = settings.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            names[key] = value
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, each with a name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        template = jinja.read_text(encoding="utf-8", errors="replace")
    return from_text(path.read_bytes(), names, template, eos_ids, where=str(path))


def from_text(content: bytes, names: dict[str, str], template: Any, eos_ids: tuple[int, ...],
              where: str) -> Tokenizer:
    """A tokenizer from the content of a tokenizer.json; `where` names it in errors."""
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise LoadError(f"{where} is no tokenizer.json that the tokenizers library reads "
                        f"({error}); fetch it again.") from error
    ids = {key: backend.token_to_id(token) for key, token in names.items()}
    eos = ids.get("eos_token")
    if eos is not None and eos not in eos_ids:
        eos_ids = (*eos_ids, eos)
    return Tokenizer(backend, eos_ids, ids.get("bos_token"),
                     template if isinstance(template, str) else None, names)


def read_json(path: Path, default: Any = None) -> Any:
    """The object in a JSON file; `default` where there is no file; LoadError where it is bad."""
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LoadError(f"There is no {path.name} in {path.parent}; a model folder needs "
                        "config.json beside its *.safetensors.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path} holds a JSON {type(value).__name__}; it must hold an object. "
                        "Fetch it again.")
    return value
