"""Text to token ids and back, chat templates, and text that streams without broken characters.

Chapter 1 uses it as a black box with three rules worth knowing: a token is a run of *bytes*,
not of characters; one character can span several tokens; so text may only be shown once its
bytes are complete. `StreamDecoder` keeps that rule at constant cost a token.

The merging itself is done by the `tokenizers` library. Byte-pair encoding: Sennrich et al.,
arXiv:1508.07909. `infero.loading.vocabulary` builds the backend from GGUF metadata.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from infero.errors import ConfigError, ParameterError, PromptError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer as Backend


@cache
def byte_alphabet() -> dict[str, int]:
    """The 256 printable characters in which byte-level BPE vocabularies spell bytes.

    Bytes that print keep their own character; the others take the next one from U+0100 on,
    which is how a space became the well-known "Ġ" (U+0120) in GPT-2's vocabulary.
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printing}
    others = [byte for byte in range(256) if byte not in set(printing)]
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


@dataclass(repr=False)
class Tokenizer:
    """A vocabulary with its merge rules, its special tokens and its chat template."""

    backend: Backend
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    chat_template: str | None = None
    special_names: dict[str, str] = field(default_factory=dict)  # "bos_token" → "<s>", …

    def __post_init__(self) -> None:
        added = self.backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._byte_level, self._strip = _decoder_style(self.backend)
        self._pieces: dict[int, bytes] = {}
        self._template: Template | None = None

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size:,} entries>"

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary. The model's embedding may have a few unused rows more."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    # ------------------------------------------------------------ text to ids

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of `text`; with `add_special`, framed as the model expects (BOS …).

        Special tokens written out in the text, such as <|im_end|>, become their single id.
        """
        if not isinstance(text, str):
            raise PromptError(f"A text must be a str, not {type(text).__name__}; "
                              "token ids go to the engine as they are.")
        try:
            text.encode("utf-8")
            return self.backend.encode(text, add_special_tokens=add_special).ids
        except UnicodeEncodeError as error:
            raise PromptError(
                f"The text holds half of a surrogate pair at character {error.start}, which no "
                "UTF-8 text contains; clean it with "
                "text.encode('utf-8', 'replace').decode('utf-8')."
            ) from error

    # ------------------------------------------------------------ ids to text

    def piece(self, token: int) -> bytes:
        """The bytes that one token stands for; empty for an id outside the vocabulary."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> bytes:
        if token < 0:
            raise ParameterError(f"Token id {token} is negative; ids start at 0.")
        text = self.backend.id_to_token(token)
        if text is None:
            return b""
        if self._byte_level:
            alphabet = byte_alphabet()
            if all(c in alphabet for c in text):
                return bytes(alphabet[c] for c in text)
            return text.encode("utf-8")
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):  # byte fallback
            return bytes.fromhex(text[3:5])
        return text.replace("\u2581", " ").encode("utf-8")

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`. Bytes that form no character become U+FFFD.

        Special tokens are left out unless `skip_special` is False.
        """
        stream = self.stream(skip_special)
        return "".join([*map(stream.push, ids), stream.flush()])

    def stream(self, skip_special: bool = True) -> StreamDecoder:
        """A decoder that takes one token at a time."""
        return StreamDecoder(self, skip_special, strip=self._strip)

    # ------------------------------------------------------------ conversations

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]],
                            add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of a conversation as the model was trained to see it.

        messages: [{"role": "user", "content": "…"}, …]. `variables` reach the template too.
        The template is code that came with the weights, so it runs in Jinja's sandbox.
        """
        if self.chat_template is None:
            raise PromptError("This model has no chat template (it is not tuned for "
                              "conversations); use generate() with plain text.")
        for i, message in enumerate(messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise PromptError(f"Message {i} is {message!r}; each needs a 'role' and a "
                                  "'content', like {'role': 'user', 'content': 'Hello'}.")
        import jinja2

        try:
            if self._template is None:
                self._template = _environment().from_string(self.chat_template)
            return self._template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt,
                **{"tools": None, "documents": None, **self.special_names, **variables},
            )
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"The model's chat template does not parse at line {error.lineno}: "
                              f"{error.message}; use generate() with plain text.") from error
        except Exception as error:  # the template's code may raise anything at all
            raise PromptError(f"The model's chat template refused the conversation: {error}"
                              ) from error


class StreamDecoder:
    """Turns tokens into text as they come, holding back the bytes of unfinished characters.

    The texts returned by `push`, and by `flush` at the end, join to exactly what
    `Tokenizer.decode` gives for the same ids. Each token costs only its own bytes.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool, strip: bool) -> None:
        self._tokenizer = tokenizer
        self._hidden = tokenizer.special_ids if skip_special else frozenset()
        self._strip = strip  # the vocabulary begins every text with a space of its own
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Take one token; return the text that became certain, possibly none."""
        if token in self._hidden:
            return ""
        piece = self._tokenizer.piece(token)
        if self._strip and piece:
            piece, self._strip = piece.removeprefix(b" "), False
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """End the text: an unfinished character becomes U+FFFD."""
        return self._utf8.decode(b"", final=True)


def _decoder_style(backend: Backend) -> tuple[bool, bool]:
    """(pieces are spelled in the byte alphabet, a leading space is dropped) of a backend."""
    decoder = json.loads(backend.decoder.__getstate__()) if backend.decoder else {}
    parts = {part.get("type"): part for part in decoder.get("decoders", [decoder])}
    if "ByteLevel" in parts:
        return True, False
    if "ByteFallback" in parts:
        return False, "Strip" in parts
    if "Metaspace" in parts:
        return False, parts["Metaspace"].get("prepend_scheme", "always") != "never"
    raise ConfigError(f"The tokenizer's decoder is of type {decoder.get('type')!r}; infero reads "
                      "byte-level BPE (ByteLevel) and SentencePiece (ByteFallback, Metaspace).")


@cache
def _environment() -> Any:
    """The Jinja environment that chat templates are written for: sandboxed, with four extras."""
    from datetime import datetime

    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks the assistant's words for training; here it is transparent."""

        tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None,
               separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent,
                          separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
