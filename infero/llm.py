"""`LLM`: text in, text out, on one machine. The front door of the engine.

Chapter 1 uses it. Behind it stands the engine of chapters 8, 10 and 11, which serves many requests
at once over a paged cache; `paged=False` and `use_cache=False` go back to the loops of chapters 7
and 1, one request after another.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from infero import generate as loops
from infero.engine import ENGINE_FIELDS, Engine, EngineConfig, fork
from infero.errors import (
    ConfigError,
    InferoError,
    ParameterError,
    PromptError,
    StalePiecesError,
)
from infero.lab import swap
from infero.model import Model
from infero.outputs import Assembler, Chunk, Completion, Logprob, Metrics, Output, StopStrings
from infero.sampling import SamplingParams

__all__ = ["LLM", "Chunk", "Completion", "Logprob", "Metrics", "Output", "StopStrings"]

Prompt = str | Sequence[int]
Message = dict[str, str]


class LLM:
    """A model ready to generate.

    `model` is a `Model` or anything `infero.load` takes: a hub id, a folder, a .gguf file.
    `use_cache=False` recomputes the whole sequence for every token (chapter 1's naive engine);
    `paged=False` keeps a contiguous cache for one request at a time (chapter 7's). Further options
    are the fields of `EngineConfig`: max_num_seqs, num_blocks, policy and so on.
    Pieces must be installed before an LLM is built: it refuses to go on if one changes later.
    """

    def __init__(self, model: Model | str | None = None, *, dtype: str | torch.dtype = "auto",
                 device: str | None = None, use_cache: bool = True, paged: bool = True,
                 on_step: Any = None, **options: Any) -> None:
        unknown = sorted(set(options) - set(ENGINE_FIELDS))
        if unknown:
            raise ConfigError(f"LLM has no option {unknown[0]!r}; the engine's options are "
                              f"{', '.join(ENGINE_FIELDS)}.")
        if not isinstance(model, Model):
            from infero.loading import load

            config = EngineConfig(**options) if use_cache and paged else EngineConfig()
            kind = config.quantization
            model = load(model, dtype=dtype, device=device, keep_quantized=kind == "stored")
            if kind is not None and kind != "stored":
                from infero.kernels import cpu_products, formats

                # nobody else holds the weights: they go as they are rounded
                model = formats.quantize_model(model, kind, release=True)
                if config.kernels in ("auto", "torch"):
                    model = cpu_products.adopt_model(model)
        self.model = model
        self.use_cache = use_cache
        self.engine: Engine | None = None
        if use_cache and paged:
            self.engine = Engine(model, EngineConfig(**options), on_step=on_step)
        elif options or on_step is not None:
            given = sorted(options) or ["on_step"]
            raise ConfigError(f"{given[0]} is an option of the paged engine; leave it away, or "
                              "leave use_cache and paged on.")
        self._pieces_generation = swap.generation()
        self._ids = itertools.count()
        self._inbox: dict[str, deque[Chunk]] = {}

    # ------------------------------------------------------------ text in, text out

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 params: SamplingParams | Sequence[SamplingParams] | None = None, *,
                 priority: int | Sequence[int] = 0,
                 expected_tokens: Sequence[int] | None = None,
                 progress: bool | None = None) -> list[Output]:
        """Complete one prompt or several: texts or lists of token ids. One Output a prompt.

        params: one for all, or one for each prompt; priority likewise. expected_tokens: estimated
        output lengths for the policy "sjf". progress: draw a bar; by default where standard error
        is a terminal and there are several prompts.
        """
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        several = cast(Sequence[Prompt], [prompts] if one else prompts)
        count = len(several)
        each = _spread("params", params or SamplingParams(), SamplingParams, count)
        urgency = _spread("priority", priority, int, count)
        expected: Sequence[int | None] = expected_tokens or [None] * count
        if len(expected) != count:
            raise ParameterError(f"{len(expected)} expected_tokens were given for {count} prompts.")
        ids = [self.encode(prompt) for prompt in several]
        if progress is None:
            progress = count > 1 and sys.stderr.isatty()
        outputs = [
            Output(p if isinstance(p, str) else None, i, [Completion(k, "", [], "", Metrics(0))
                   for k in range(one_params.n)])
            for p, i, one_params in zip(several, ids, each, strict=True)]
        if self.engine is None:
            streams = [(i, self._sequential(tokens, p, k)) for i, tokens in enumerate(ids)
                       for k, p in enumerate(fork(each[i]))]
            chunks: Iterator[tuple[int, Chunk]] = (
                (i, chunk) for i, stream in streams for chunk in stream)
        else:
            chunks = self._together(ids, each, urgency, expected)
        with _Bar(sum(p.n for p in each), on=progress) as bar:
            for i, chunk in chunks:
                _extend(outputs[i].completions[chunk.index], chunk, each[i])
                bar.saw(chunk)
        return outputs

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Yield the completion piece by piece, as its text becomes certain. n must be 1.

        Several streams may be read in turn: they share the engine's steps. A stream that is closed
        before its end aborts its request.
        """
        params = params or SamplingParams()
        if params.n != 1:
            raise ParameterError(f"n is {params.n}; a stream carries one completion: use n=1 or "
                                 "generate().")
        ids = self.encode(prompt)
        if self.engine is None:
            return self._sequential(ids, params, 0)
        return (chunk for _, chunk in self._together([ids], [params], [0], [None]))

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
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else loops.as_ids(prompt)

    # ------------------------------------------------------------ through the engine

    def _together(self, prompts: Sequence[list[int]], params: Sequence[SamplingParams],
                  priority: Sequence[int], expected: Sequence[int | None]
                  ) -> Iterator[tuple[int, Chunk]]:
        """Chunks of all prompts as they come, each with its prompt's index."""
        engine = cast(Engine, self.engine)
        index: dict[str, int] = {}
        inbox: deque[Chunk] = deque()
        try:
            for i, prompt in enumerate(prompts):
                id = f"llm-{next(self._ids)}"
                engine.add_request(id, prompt, params[i], priority=priority[i],
                                   expected_tokens=expected[i])
                index[id], self._inbox[id] = i, inbox
            left = sum(one.n for one in params)
            while left:
                while inbox:
                    chunk = inbox.popleft()
                    left -= chunk.finish_reason is not None
                    yield index[chunk.id], chunk
                if left:
                    if not engine.has_unfinished():  # a step that failed took all with it
                        raise InferoError(f"{left} completions were aborted from elsewhere or by a "
                                          "step that failed; submit them again.")
                    for chunk in engine.step():
                        if chunk.id in self._inbox:
                            self._inbox[chunk.id].append(chunk)
        finally:
            for id in index:
                engine.abort(id)
                del self._inbox[id]

    # ------------------------------------------------------------ one after another

    def _sequential(self, ids: list[int], params: SamplingParams, index: int) -> Iterator[Chunk]:
        """The loops of chapters 1 and 7, one request alone."""
        loops.check_prompt(self.model.config, ids, 1)
        loops.check_params(self.model.config, params)
        # A request may ask for more than the context holds: it then ends there, with "length".
        room = self.model.config.max_context - len(ids)
        params = replace(params, max_tokens=min(params.max_tokens, room),
                         min_tokens=min(params.min_tokens, room))
        stops = loops.stop_tokens_of(self.model, params)
        picker = loops.Picker(self.model, params, ids, stops)
        text = Assembler(params, stops, params.max_tokens, self.model.tokenizer, index)
        metrics, start = Metrics(len(ids)), time.perf_counter()
        tokens = loops.stream(self.model, ids, params, use_cache=self.use_cache, picker=picker)
        for token in self._guard(tokens):
            chunk = text.push(token, picker.logprob(token))
            metrics.token_times_s.append(time.perf_counter() - start)
            if chunk.finish_reason is not None:
                chunk.metrics = metrics
                yield chunk
                return
            yield chunk
        yield replace(text.end("stop"), metrics=metrics)

    def _guard(self, tokens: Iterator[int]) -> Iterator[int]:
        """Refuse to take a step once a piece was installed after this LLM was built."""
        while True:
            if swap.generation() != self._pieces_generation:
                raise StalePiecesError(
                    "A piece was installed or removed after this LLM was built; build a new LLM() "
                    "so that the whole engine runs the same pieces.")
            token = next(tokens, None)
            if token is None:
                return
            yield token


def _spread(name: str, value: Any, kind: type, count: int) -> list[Any]:
    """One value for each of `count` prompts."""
    if isinstance(value, kind):
        return [value] * count
    if len(value) != count:
        raise ParameterError(f"{len(value)} {name} were given for {count} prompts; give one for "
                             "all or one for each.")
    return list(value)


def _extend(done: Completion, chunk: Chunk, params: SamplingParams) -> None:
    """Add what a chunk brought to its completion."""
    done.text += chunk.text
    if chunk.token is not None:
        done.tokens.append(chunk.token)
        if params.logprobs is not None and chunk.logprob is not None:
            done.logprobs = [*(done.logprobs or []), chunk.logprob]
    if chunk.finish_reason is not None:
        done.finish_reason = chunk.finish_reason
        if params.logprobs is not None:
            done.logprobs = done.logprobs or []
    if chunk.metrics is not None:
        done.metrics = chunk.metrics


class _Bar:
    """A progress bar of completions and tokens on standard error; nothing when off."""

    def __init__(self, total: int, on: bool) -> None:
        self.bar: Any = None
        if on:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self.bar = Progress(TextColumn("generating"), BarColumn(), MofNCompleteColumn(),
                                TextColumn("{task.fields[tokens]:,} tokens · {task.fields[rate]}"),
                                TimeRemainingColumn(), console=Console(stderr=True))
            self.task = self.bar.add_task("", total=total, tokens=0, rate="")
        self.tokens, self.start = 0, time.perf_counter()

    def __enter__(self) -> _Bar:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def saw(self, chunk: Chunk) -> None:
        """Count a chunk."""
        if self.bar is None:
            return
        self.tokens += chunk.token is not None
        rate = f"{self.tokens / (time.perf_counter() - self.start):,.0f} tok/s"
        self.bar.update(self.task, advance=int(chunk.finish_reason is not None),
                        tokens=self.tokens, rate=rate)
