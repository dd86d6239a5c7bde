"""What the engine gives back: chunks of text as they become certain, and finished completions.

Chapter 1 explains log-probabilities and stop strings, chapter 3 the metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infero.sampling import SamplingParams
    from infero.tokenizer import Tokenizer


@dataclass
class Logprob:
    """Log-probability in nats of one generated token, and of the likeliest alternatives."""

    token: int
    logprob: float
    top: dict[int, float]


@dataclass
class Metrics:
    """Times of one request in seconds since it arrived; one timestamp for each token."""

    prompt_tokens: int
    token_times_s: list[float] = field(default_factory=list)
    queue_s: float = 0.0  # from arrival to its first forward pass
    cached_tokens: int = 0  # prompt tokens whose keys and values were found in the cache
    preemptions: int = 0

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
class Chunk:
    """What became known of completion `index` of request `id` with one more token."""

    index: int
    text: str
    token: int | None = None  # None: only text held back until the end
    finish_reason: str | None = None  # "stop" | "length" on the last chunk
    logprob: Logprob | None = None
    id: str = ""
    metrics: Metrics | None = None  # on the last chunk


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


class Assembler:
    """Turns one completion's tokens into chunks: text, stop tokens and strings, length."""

    def __init__(self, params: SamplingParams, stop_tokens: frozenset[int], max_tokens: int,
                 tokenizer: Tokenizer | None, index: int = 0, id: str = "") -> None:
        self.params, self.stop_tokens, self.max_tokens = params, stop_tokens, max_tokens
        self.decoder = tokenizer.stream() if tokenizer else None
        self.held = StopStrings(params.stop)
        self.index, self.id, self.produced = index, id, 0

    def push(self, token: int, logprob: Logprob | None = None) -> Chunk:
        """The chunk of one more token; its finish_reason says whether it was the last."""
        if token in self.stop_tokens:
            return self.end("stop")
        self.produced += 1
        text = self.held.push(self.decoder.push(token) if self.decoder else "",
                              self.produced >= self.params.min_tokens)
        reason = "stop" if self.held.found else None
        if reason is None and self.produced >= self.max_tokens:
            text += self._rest()
            reason = "stop" if self.held.found else "length"
        return Chunk(self.index, text, token, reason, logprob, self.id)

    def end(self, reason: str) -> Chunk:
        """The last chunk, without a token: the text that was held back."""
        return Chunk(self.index, self._rest(), None, reason, id=self.id)

    def _rest(self) -> str:
        return self.held.push(self.decoder.flush() if self.decoder else "") + self.held.flush()


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
