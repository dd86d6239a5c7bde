"""`LLM`: text in, text out, on one machine. The front door of the engine.

Chapter 1 uses it; chapters 10 and 11 put a scheduler behind the same methods. Requests run one
after another for now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from infero import generate as loops
from infero import sampling
from infero.errors import ParameterError, PromptError, StalePiecesError
from infero.lab import swap
from infero.model import Model
from infero.sampling import SamplingParams

Prompt = str | Sequence[int]
Message = dict[str, str]


@dataclass
class Logprob:
    """Log-probability in nats of one generated token, and of the likeliest alternatives."""

    token: int
    logprob: float
    top: dict[int, float]


@dataclass
class Chunk:
    """What became known with one more token: its id and the text that is now certain."""

    index: int
    text: str
    token: int | None = None  # None: only text held back until the end
    finish_reason: str | None = None  # "stop" | "length" on the last chunk
    logprob: Logprob | None = None


@dataclass
class Metrics:
    """Times of one request in seconds since it started; one timestamp for each token."""

    prompt_tokens: int
    token_times_s: list[float] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.token_times_s[0] if self.token_times_s else float("nan")

    @property
    def itl_s(self) -> list[float]:
        """Inter-token latencies."""
        return [b - a for a, b in zip(self.token_times_s, self.token_times_s[1:], strict=False)]

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens a second after the first one."""
        gaps = self.itl_s
        return len(gaps) / sum(gaps) if gaps else float("nan")


@dataclass
class Completion:
    """One finished answer to a prompt."""

    index: int
    text: str
    tokens: list[int]
    finish_reason: str
    metrics: Metrics
    logprobs: list[Logprob] | None = None


@dataclass
class Output:
    """A prompt with its `n` completions; `text` and `tokens` are those of the first."""

    prompt: str | None
    prompt_tokens: list[int]
    completions: list[Completion]

    @property
    def text(self) -> str:
        return self.completions[0].text

    @property
    def tokens(self) -> list[int]:
        return self.completions[0].tokens

    @property
    def metrics(self) -> Metrics:
        return self.completions[0].metrics


class LLM:
    """A model ready to generate.

    `model` is a `Model` or anything `infero.load` takes: a hub id, a folder, a .gguf file.
    `use_cache=False` recomputes the whole sequence for every token (chapter 1's naive engine).
    Pieces must be installed before an LLM is built: it refuses to go on if one changes later.
    """

    def __init__(self, model: Model | str | None = None, *, dtype: str | torch.dtype = "auto",
                 device: str | None = None, use_cache: bool = True) -> None:
        if not isinstance(model, Model):
            from infero.loading import load

            model = load(model, dtype=dtype, device=device)
        self.model = model
        self.use_cache = use_cache
        self._pieces_generation = swap.generation()

    # ------------------------------------------------------------ text in, text out

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 params: SamplingParams | None = None) -> list[Output]:
        """Complete one prompt or several: texts or lists of token ids. One Output a prompt."""
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        several = cast(Sequence[Prompt], [prompts] if one else prompts)
        outputs = []
        for prompt in several:
            ids = self.encode(prompt)
            done = [self._complete(ids, p, i) for i, p in enumerate(self._fork(params))]
            outputs.append(Output(prompt if isinstance(prompt, str) else None, ids, done))
        return outputs

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Yield the completion piece by piece, as its text becomes certain. n must be 1."""
        params = params or SamplingParams()
        if params.n != 1:
            raise ParameterError(f"n is {params.n}; a stream carries one completion: use n=1 or "
                                 "generate().")
        return self._stream(self.encode(prompt), params, 0)

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None
             ) -> Iterator[Chunk]:
        """Stream the assistant's answer to a conversation, through the chat template."""
        return self.stream(self.chat_prompt(messages), params)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn."""
        tokenizer = self.tokenizer
        return tokenizer.encode(tokenizer.apply_chat_template(list(messages)))

    @property
    def tokenizer(self):
        if self.model.tokenizer is None:
            raise PromptError("This model has no tokenizer: pass token ids instead of text, or "
                              "load it from a folder that holds tokenizer.json.")
        return self.model.tokenizer

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; a list of ids is passed through."""
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    # ------------------------------------------------------------ one request

    def _fork(self, params: SamplingParams | None) -> list[SamplingParams]:
        """One parameter set a completion; further completions of a seeded request get seed + i."""
        params = params or SamplingParams()
        if params.seed is None:
            return [params] * params.n
        return [replace(params, seed=params.seed + i) for i in range(params.n)]

    def _complete(self, ids: list[int], params: SamplingParams, index: int) -> Completion:
        metrics, text, tokens = Metrics(len(ids)), "", []
        logprobs: list[Logprob] = []
        reason, start = "length", time.perf_counter()
        for chunk in self._stream(ids, params, index):
            text += chunk.text
            if chunk.token is not None:
                tokens.append(chunk.token)
                metrics.token_times_s.append(time.perf_counter() - start)
            if chunk.logprob is not None:
                logprobs.append(chunk.logprob)
            reason = chunk.finish_reason or reason
        wanted = logprobs if params.logprobs is not None else None
        return Completion(index, text, tokens, reason, metrics, wanted)

    def _stream(self, ids: list[int], params: SamplingParams, index: int) -> Iterator[Chunk]:
        loops.check_prompt(self.model.config, ids, 1)
        # A request may ask for more than the context holds: it then ends there, with "length".
        room = self.model.config.max_context - len(ids)
        params = replace(params, max_tokens=min(params.max_tokens, room),
                         min_tokens=min(params.min_tokens, room))
        stops = loops.stop_tokens_of(self.model, params)
        picker = loops.Picker(params, ids, self.model.config.vocab_size, stops, self.model.device)
        decoder = self.model.tokenizer.stream() if self.model.tokenizer else None
        held = StopStrings(params.stop)
        produced = 0
        tokens = loops.stream(self.model, ids, params, use_cache=self.use_cache, picker=picker)
        for token in self._guard(tokens):
            produced += 1
            text = held.push(decoder.push(token) if decoder else "", produced >= params.min_tokens)
            logprob = self._logprob(picker, token, params.logprobs)
            reason = "stop" if held.found else None
            yield Chunk(index, text, token, reason, logprob)
            if held.found:
                return
        rest = held.push(decoder.flush() if decoder else "", True)
        reason = "length" if produced == params.max_tokens and not held.found else "stop"
        yield Chunk(index, rest + held.flush(), None, reason)

    def _guard(self, tokens: Iterator[int]) -> Iterator[int]:
        """Refuse to take a step once a piece was installed after this LLM was built."""
        while True:
            if swap.generation() != self._pieces_generation:
                raise StalePiecesError(
                    "A piece was installed or removed after this LLM was built; build a new LLM() "
                    "so that the whole engine runs the same pieces."
                )
            token = next(tokens, None)
            if token is None:
                return
            yield token

    @staticmethod
    def _logprob(picker: loops.Picker, token: int, wanted: int | None) -> Logprob | None:
        if wanted is None:
            return None
        chosen: Tensor = torch.tensor([token], device=picker.last_logits.device)
        logp, ids, values = sampling.log_probabilities(picker.last_logits[None], chosen, wanted)
        top = dict(zip(ids[0].tolist(), values[0].tolist(), strict=True))
        return Logprob(token, float(logp[0]), top)


class StopStrings:
    """Cuts streamed text before the first stop string, holding back what might begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.pending = ""
        self.found = False

    def push(self, text: str, may_stop: bool = True) -> str:
        """Add text and return what can no longer become part of a stop string."""
        if not self.stops or self.found:
            return "" if self.found else text
        self.pending += text
        if may_stop:
            hits = [at for s in self.stops if (at := self.pending.find(s)) >= 0]
            if hits:
                self.found = True
                kept, self.pending = self.pending[: min(hits)], ""
                return kept
        keep = max(
            (n for s in self.stops for n in range(1, len(s)) if self.pending.endswith(s[:n])),
            default=0,
        )
        cut = len(self.pending) - keep
        ready, self.pending = self.pending[:cut], self.pending[cut:]
        return ready

    def flush(self) -> str:
        """The text still held back, once no more is coming."""
        rest, self.pending = self.pending, ""
        return rest
