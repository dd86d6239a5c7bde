"""Constrained decoding: which tokens may come next, so that the output obeys a grammar.

Chapter 10 explains it. A JSON schema, a regular expression or a context-free grammar is compiled
once; each request then has a `Matcher` that knows, after any prefix of the output, the set of
tokens with which some valid output can still go on. The set is a row of bits that
`sampling.token_mask` applies to the logits. Willard and Louf, arXiv:2307.09702; XGrammar, Dong et
al., arXiv:2411.15100. The automata are those of the `llguidance` library, imported only when a
request asks for one; without it everything else works.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from infero.errors import MissingPackage, ParameterError

if TYPE_CHECKING:
    from infero.sampling import SamplingParams
    from infero.tokenizer import Tokenizer

log = logging.getLogger("infero.grammar")
KEPT = 64  # compiled grammars remembered for each tokenizer, the least recently used forgotten

# One way to write each document: a model that may choose its whitespace can go on choosing it.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Matcher(Protocol):
    """What the engine needs of a constraint: one object a request, fed with its output."""

    @property
    def finished(self) -> bool:
        """The output is complete and can only end."""

    def bitmask(self) -> Tensor:
        """[ceil(vocab / 32)] int32: the tokens that may come next, as `token_mask` reads it."""

    def follow(self, tokens: Sequence[int]) -> None:
        """Go to the state after exactly these output tokens, forwards or backwards."""


class FixedMatcher:
    """The same set of tokens at every step: `SamplingParams.allowed_token_ids`."""

    finished = False

    def __init__(self, allowed: Sequence[int], vocab_size: int) -> None:
        if max(allowed) >= vocab_size:
            raise ParameterError(f"allowed_token_ids holds {max(allowed)}, but the vocabulary has "
                                 f"{vocab_size} entries; use ids of this model's tokenizer.")
        self._bits = pack_bits(allowed, vocab_size)

    def bitmask(self) -> Tensor:
        return self._bits

    def follow(self, tokens: Sequence[int]) -> None:
        pass


class GrammarMatcher:
    """A grammar and the output so far. Cheap to make from a compiled grammar (`compile`).

    `error` says why the automaton gave up, if it did (a grammar can grow past the library's
    limits); the output can then only end, and no other request is harmed.
    """

    def __init__(self, automaton: Any, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self.error = ""
        self._automaton = automaton
        self._eos_ids = frozenset(eos_ids)
        self._end = pack_bits(eos_ids, vocab_size)
        self._tokens: list[int] = []  # with the one that ends, which the automaton never sees
        self._row: Tensor | None = None  # the bits of this state, once somebody asked

    @property
    def finished(self) -> bool:
        return not bool((self.bitmask() & ~self._end).any())

    @property
    def may_end(self) -> bool:
        """The output is valid as it stands, though it might go on."""
        return self._ended() or self._automaton.is_accepting()

    def bitmask(self) -> Tensor:
        """End-of-sequence tokens are among the allowed ones exactly where the grammar may end."""
        if self._row is None:
            self._row = self._compute()
        return self._row

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says (jump-forward decoding)."""
        return [] if self.finished else list(self._automaton.compute_ff_tokens())

    def accept(self, token: int) -> None:
        """One more output token. Raises ParameterError if the grammar does not allow it."""
        ends = token in self._eos_ids and self.may_end
        if not ends and (self._ended() or not self._automaton.consume_token(token)):
            raise ParameterError(f"Token {token} cannot follow the {len(self._tokens)} tokens so "
                                 f"far: {_first_line(self._automaton) or 'the output has ended'}.")
        self._tokens.append(token)
        self._row = None

    def rollback(self, n: int) -> None:
        """Forget the last n tokens: rejected drafts, or output that is computed again."""
        if not 0 <= n <= len(self._tokens):
            raise ParameterError(f"cannot take back {n} tokens of {len(self._tokens)}.")
        for _ in range(n):
            if self._tokens.pop() not in self._eos_ids:
                self._automaton.rollback(1)
        self._row = None

    def follow(self, tokens: Sequence[int]) -> None:
        known = len(self._tokens)
        if list(tokens[:known]) != self._tokens:
            pairs = zip(tokens, self._tokens, strict=False)
            known = next((i for i, (a, b) in enumerate(pairs) if a != b), len(tokens))
            self.rollback(len(self._tokens) - known)
        try:
            for token in tokens[known:]:
                self.accept(token)
        except ParameterError as problem:
            self._give_up(str(problem))

    def _ended(self) -> bool:
        return bool(self._tokens) and self._tokens[-1] in self._eos_ids

    def _compute(self) -> Tensor:
        if self.error or self._ended():
            return self._end
        row = torch.zeros_like(self._end)
        self._automaton.unsafe_compute_mask_ptr(row.data_ptr(), row.numel() * row.element_size())
        if self._automaton.is_error():
            self._give_up(_first_line(self._automaton))
            return self._end
        return row | self._end if bool((row & self._end).any()) else row

    def _give_up(self, reason: str) -> None:
        self.error, self._row = reason, None
        log.warning("A constrained output ends early, after %d tokens: %s", len(self._tokens),
                    reason)


# ---------------------------------------------------------------- from parameters to matchers


def matcher(params: SamplingParams, tokenizer: Tokenizer | None, vocab_size: int,
            eos_ids: Sequence[int]) -> Matcher | None:
    """A fresh matcher for one request, or None when its parameters constrain nothing.

    Raises ParameterError for a constraint that is not valid and MissingPackage where the grammar
    library is not installed, before the request runs.
    """
    if params.allowed_token_ids is not None:
        return FixedMatcher(params.allowed_token_ids, vocab_size)
    if params.json_schema is None and params.regex is None and params.grammar is None:
        return None
    if tokenizer is None:
        raise ParameterError("A grammar speaks of text, and this model has no tokenizer; "
                             "constrain token ids with allowed_token_ids.")
    return compile(tokenizer, vocab_size, eos_ids, json_schema=params.json_schema,
                   regex=params.regex, grammar=params.grammar)


def compile(tokenizer: Tokenizer, vocab_size: int, eos_ids: Sequence[int], *,
            json_schema: Mapping[str, Any] | str | None = None, regex: str | None = None,
            grammar: str | None = None) -> GrammarMatcher:
    """A matcher at the start of its grammar; compiled once and remembered with the tokenizer.

    Exactly one of: json_schema, a schema as a dict or JSON text; regex, which the whole output
    matches (Rust's syntax, no look-around); grammar, in llguidance's variant of Lark.
    """
    kind, source = _source(json_schema, regex, grammar)
    compiled: _Compiled | None = tokenizer.__dict__.get("_grammars")
    if compiled is None or compiled.key != (vocab_size, tuple(eos_ids)):
        compiled = tokenizer.__dict__["_grammars"] = _Compiled(tokenizer, vocab_size, eos_ids)
    return GrammarMatcher(compiled.automaton(kind, source).deep_copy(), vocab_size, eos_ids)


def from_response_format(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's `response_format` as fields of SamplingParams.

    {"type": "text"} constrains nothing, {"type": "json_object"} asks for any JSON object, and
    {"type": "json_schema", "json_schema": {"schema": {...}}} for one that its schema allows.
    """
    kind = response_format.get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": {"type": "object"}}
    if kind == "json_schema":
        holder = response_format.get("json_schema")
        if isinstance(holder, Mapping) and isinstance(holder.get("schema"), Mapping):
            return {"json_schema": holder["schema"]}
        raise ParameterError("response_format of type json_schema needs "
                             '{"json_schema": {"schema": {...}}}.')
    raise ParameterError(f"response_format's type is {kind!r}; it must be 'text', 'json_object' or "
                         "'json_schema'.")


def words(vocab_size: int) -> int:
    """32-bit words in a row of one bit a token."""
    return -(-vocab_size // 32)


def pack_bits(tokens: Sequence[int], vocab_size: int) -> Tensor:
    """[ceil(vocab / 32)] int32 with the bits of these tokens set."""
    bits = torch.zeros(words(vocab_size) * 32, dtype=torch.int64)
    bits[torch.tensor(list(tokens), dtype=torch.int64)] = 1
    values = (bits.view(-1, 32) << torch.arange(32)).sum(-1)  # below 2**32
    return torch.where(values < 2**31, values, values - 2**32).to(torch.int32)


# ---------------------------------------------------------------- the library


class _Compiled:
    """The library's view of one tokenizer, and its compiled grammars."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self.key = (vocab_size, tuple(eos_ids))
        self._library = _library()
        if not eos_ids:
            raise ParameterError("This model names no end-of-sequence token, so a constrained "
                                 "output could never end.")
        try:
            self._tokenizer = self._library.LLTokenizer(
                tokenizer.backend.to_str(), n_vocab=vocab_size, eos_token=eos_ids[0])
        except ValueError as error:
            raise ParameterError(f"llguidance cannot read this model's tokenizer: {error}; "
                                 "constrain it with allowed_token_ids.") from error
        self._automata: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def automaton(self, kind: str, source: str) -> Any:
        known = self._automata.pop((kind, source), None)
        if known is None:
            known = self._compile(kind, source)
        self._automata[kind, source] = known  # at the back: most recently used
        if len(self._automata) > KEPT:
            self._automata.popitem(last=False)
        return known

    def _compile(self, kind: str, source: str) -> Any:
        library = self._library.LLMatcher
        try:
            text = {
                "json_schema": lambda: library.grammar_from_json_schema(source, JSON_STYLE),
                "regex": lambda: library.grammar_from_regex(source),
                "grammar": lambda: library.grammar_from_lark(source),
            }[kind]()
        except ValueError as error:
            raise ParameterError(f"{kind} {_short(source)} is not valid: {error}.") from error
        automaton = library(self._tokenizer, text, log_level=0)
        if automaton.is_error():
            reason = automaton.get_error().partition("\n<state>")[0].strip()
            raise ParameterError(f"{kind} {_short(source)} cannot be compiled: {reason}")
        return automaton


def _source(json_schema: Mapping[str, Any] | str | None, regex: str | None, grammar: str | None
            ) -> tuple[str, str]:
    """(kind, text) of the one constraint that is set."""
    named = (("json_schema", json_schema), ("regex", regex), ("grammar", grammar))
    given = [(kind, value) for kind, value in named if value is not None]
    if len(given) != 1:
        raise ParameterError(f"{len(given)} of json_schema, regex and grammar are given; give "
                             "exactly one.")
    kind, value = given[0]
    if isinstance(value, str):
        return kind, value
    try:
        return kind, json.dumps(value)  # the order of properties is the order of the output
    except (TypeError, ValueError) as error:
        raise ParameterError(f"json_schema is not JSON: {error}.") from error


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingPackage(
            "Constrained decoding (json_schema, regex, grammar) needs the package llguidance, "
            "which is not installed: pip install 'llguidance>=1.3'."
        ) from error
    return llguidance


def _first_line(automaton: Any) -> str:
    return automaton.get_error().partition("\n")[0].strip()


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
