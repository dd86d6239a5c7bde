"""Timelines: what the engine did, step by step, as a file, a Perfetto trace and a page.

`recording` writes every StepRecord of an engine to a JSONL file as it happens; `read` brings it
back, `lives` follows each request through it (queued, prefill, decode, preempted, recompute), and
`to_perfetto` draws that with `trace.Trace`. `timeline_html.py` makes the page that needs nothing
but a browser. Chapters 10 and 11 read their batches off it.

The first line of a file describes the engine, every other line is one step. A block table is
written only in the steps in which it differs from the request's last one.
"""

from __future__ import annotations

import bisect
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from infero.errors import ConfigError, InferoError
from infero.trace import Trace

if TYPE_CHECKING:
    from infero.engine import Engine, StepRecord
    from infero.llm import LLM

FORMAT = "infero-timeline"
VERSION = 1


class TimelineError(InferoError):
    """A timeline file that cannot be read."""


# ---------------------------------------------------------------- writing


class Recorder:
    """Writes step records to a JSONL file (gzipped where the name ends in .gz), one a line.

    Give it to an engine as `on_step`, or use `recording`. Its memory holds one block table a
    request, however long the run is.
    """

    def __init__(self, path: str | Path, *, title: str = "", num_blocks: int = 0,
                 block_size: int = 0, **facts: Any) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        opened = gzip.open if self.path.suffix == ".gz" else open
        self._file: IO[str] | None = opened(self.path, "wt", encoding="utf-8")  # type: ignore[assignment]
        self._tables: dict[str, list[int]] = {}
        self.steps = 0
        self._put({"format": FORMAT, "version": VERSION, "title": title,
                   "num_blocks": num_blocks, "block_size": block_size, **facts})

    def __call__(self, record: StepRecord) -> None:
        if self._file is None:
            return
        entries = []
        for entry in record.entries:
            entry = dict(entry)
            if self._tables.get(entry["id"]) == entry["blocks"]:
                del entry["blocks"]
            else:
                self._tables[entry["id"]] = list(entry["blocks"])
            entries.append(entry)
        for id in (*record.finished, *record.aborted, *record.preempted):
            if id not in record.admitted:
                self._tables.pop(id, None)
        self._put({name: getattr(record, name) for name in _fields()} | {"entries": entries})
        self.steps += 1

    def _put(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file; what comes later is ignored."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def recording(engine: Engine | LLM, path: str | Path, title: str = "") -> Iterator[Recorder]:
    """Inside the block every step of the engine (or of an LLM's engine) goes to the file."""
    from infero.llm import LLM

    if isinstance(engine, LLM):
        if engine.engine is None:
            raise ConfigError("Only the paged engine has steps to record; leave use_cache and "
                              "paged on (on the command line: no --naive).")
        engine = engine.engine
    config, model = engine.config, engine.model
    with Recorder(path, title=title, num_blocks=engine.num_blocks, block_size=config.block_size,
                  model=model.name or model.config.architecture, device=str(model.device),
                  dtype=str(model.dtype).removeprefix("torch."), policy=config.policy,
                  max_num_seqs=config.max_num_seqs,
                  max_num_batched_tokens=config.max_num_batched_tokens) as recorder:
        before, engine.on_step = engine.on_step, both(recorder, engine.on_step)
        try:
            yield recorder
        finally:
            engine.on_step = before


def both(one: Callable[[StepRecord], None], other: Callable[[StepRecord], None] | None
         ) -> Callable[[StepRecord], None]:
    """A listener that tells two."""
    if other is None:
        return one

    def tell(record: StepRecord) -> None:
        one(record)
        other(record)

    return tell


# ---------------------------------------------------------------- reading


@dataclass
class Run:
    """A timeline: facts about the engine, and its steps with whole block tables."""

    steps: list[StepRecord]
    title: str = ""
    num_blocks: int = 0
    block_size: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # model, device, dtype, policy, limits
    cut_off: bool = False  # the file ends in the middle of a line

    @property
    def start_s(self) -> float:
        first = [life.arrival_s for life in lives(self)]
        return min([step.start_s for step in self.steps[:1]] + first, default=0.0)

    @property
    def duration_s(self) -> float:
        return self.steps[-1].end_s - self.start_s if self.steps else 0.0


def _fields() -> list[str]:
    from dataclasses import fields

    from infero.engine import StepRecord

    return [f.name for f in fields(StepRecord)]


def read(path: str | Path) -> Run:
    """A timeline file. One that was cut off gives the steps it has; TimelineError otherwise."""
    from infero.engine import StepRecord

    path = Path(path)
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    run: Run | None = None
    tables: dict[str, list[int]] = {}
    known = set(_fields())
    with (gzip.open if zipped else open)(path, "rt", encoding="utf-8") as file:
        for number, text in enumerate(_lines(file, path), 1):
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                if run is None:
                    raise TimelineError(_NO_TIMELINE.format(path=path)) from None
                if text.endswith("\n"):
                    raise TimelineError(f"{path}, line {number}, is not JSON: the file was "
                                        "changed; record it again.") from None
                run.cut_off = True
                break
            if run is None:
                run = _header(line, path)
                continue
            try:
                for entry in line["entries"]:
                    entry["blocks"] = tables[entry["id"]] = entry.get(
                        "blocks") or tables.get(entry["id"], [])
                run.steps.append(StepRecord(**{k: v for k, v in line.items() if k in known}))
            except (KeyError, TypeError) as problem:
                raise TimelineError(f"{path}, line {number}, is no step of a timeline "
                                    f"({problem}); record it again.") from None
    if run is None:
        raise TimelineError(_NO_TIMELINE.format(path=path))
    return run


_NO_TIMELINE = ("{path} is no timeline. Record one with `infero generate TEXT --trace run.jsonl` "
                "or `infero bench throughput --trace run.jsonl`.")


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    try:
        yield from file
    except EOFError:  # a gzipped file without its end
        return
    except UnicodeDecodeError:
        raise TimelineError(_NO_TIMELINE.format(path=path)) from None


def _header(line: Any, path: Path) -> Run:
    if not isinstance(line, dict) or line.get("format") != FORMAT:
        raise TimelineError(_NO_TIMELINE.format(path=path))
    if line.get("version") != VERSION:
        raise TimelineError(f"{path} has version {line.get('version')}, this code reads {VERSION}; "
                            "record it again.")
    own = ("title", "num_blocks", "block_size")
    facts = {k: v for k, v in line.items() if k not in (*own, "format", "version")}
    return Run([], **{k: line[k] for k in own if k in line}, facts=facts)


# ---------------------------------------------------------------- the life of each request


@dataclass
class Stretch:
    """Consecutive steps, from `first` to `last`, in which a request did one thing.

    kind: "queued" and "preempted" (it waits: no steps of its own), "prefill" (one chunk of its
    prompt), "decode" (one token a step), "recompute" (a chunk that it had computed before it was
    preempted). `tokens`: how many it computed.
    """

    kind: str
    first: int
    last: int
    start_s: float
    end_s: float
    tokens: int = 0


@dataclass
class Life:
    """One request from its arrival to its end: "finished", "aborted", or "" while it runs."""

    id: str
    arrival_s: float
    stretches: list[Stretch] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    ended: str = ""
    reach: int = 0  # tokens computed so far, and how many of them were lost to a preemption
    lost: int = 0

    def see(self, kind: str, index: int, step: StepRecord, tokens: int) -> None:
        """Enter what it did in one step."""
        last = self.stretches[-1] if self.stretches else None
        if last and kind == last.kind == "decode" and last.last == index - 1:
            last.last, last.end_s, last.tokens = index, step.end_s, last.tokens + tokens
        else:
            self.stretches.append(
                Stretch(kind, index, index, step.start_s, step.end_s, tokens))

    def wait(self, kind: str, index: int, start_s: float) -> None:
        """It begins to wait."""
        self.stretches.append(Stretch(kind, index, index, start_s, start_s))

    def resume(self, index: int, now_s: float) -> None:
        """It waited until now."""
        if self.stretches and self.stretches[-1].kind in ("queued", "preempted"):
            self.stretches[-1].last, self.stretches[-1].end_s = index, now_s


def kind_of(life: Life, entry: dict[str, Any]) -> str:
    """What an entry of a step is to its request: "prefill", "decode" or "recompute"."""
    if life.output_tokens == 0 and life.prompt_tokens == 0:
        return "recompute" if entry["start"] < life.lost else "prefill"
    return "recompute" if entry["start"] < life.lost else "decode"


def lives(run: Run) -> list[Life]:
    """Every request that was admitted, in the order of arrival."""
    found: dict[str, Life] = {}
    ended: list[Life] = []
    ends = [step.end_s for step in run.steps]
    for index, step in enumerate(run.steps):
        for id in step.aborted:
            if id in found:
                found[id].resume(index, step.start_s)
                found[id].ended = "aborted"
                ended.append(found.pop(id))
        for id in step.preempted:
            if id in found:
                life = found[id]
                life.lost, life.preemptions = life.reach, life.preemptions + 1
                life.wait("preempted", index, step.start_s)
        for entry in step.entries:
            id = entry["id"]
            if id not in found:
                arrival_s = step.arrivals_s.get(id, step.start_s)
                found[id] = Life(id, arrival_s, cached_tokens=step.cached_tokens.get(id, 0))
                found[id].wait("queued", min(bisect.bisect(ends, arrival_s), index), arrival_s)
            life = found[id]
            life.resume(index, step.start_s)
            life.see(kind_of(life, entry), index, step, entry["n"])
            end = entry["start"] + entry["n"]
            life.reach = max(life.reach, end)
            if entry["samples"]:
                life.prompt_tokens = life.prompt_tokens or end
                life.output_tokens += entry["token"] is not None
        for id in step.finished:
            if id in found:
                found[id].ended = "finished"
                ended.append(found.pop(id))
    return sorted([*ended, *found.values()],
                  key=lambda one: (one.arrival_s, one.stretches[0].end_s))


def summary(run: Run) -> list[str]:
    """The run in a few sentences."""
    if not run.steps:
        return ["The timeline has no steps."]
    every, steps = lives(run), run.steps
    tokens = sum(life.output_tokens for life in every)
    computed = sum(entry["n"] for step in steps for entry in step.entries)
    took, busy = run.duration_s or 1e-9, sum(s.end_s - s.start_s for s in steps) or 1e-9
    forward = sum(step.forward_s for step in steps)
    done = sum(life.ended == "finished" for life in every)
    lines = [
        f"{len(every)} requests, {done} finished, in {len(steps)} steps and {took:.3g} s: "
        f"{tokens:,} output tokens, {tokens / took:,.1f} a second.",
        f"{computed / len(steps):.1f} tokens a step, from {max(s.running for s in steps)} requests "
        f"at most; at most {max(s.waiting for s in steps)} waited.",
        f"{100 * (1 - forward / busy):.1f} % of the steps' time was not the forward pass.",
    ]
    if run.num_blocks:
        least = min(step.free_blocks for step in steps)
        lines.append(f"KV cache: {run.num_blocks:,} blocks of {run.block_size} tokens; at the "
                     f"fullest {100 * (1 - least / run.num_blocks):.0f} % were in use.")
    lost, hits = sum(life.preemptions for life in every), sum(life.cached_tokens for life in every)
    prompts = sum(life.prompt_tokens for life in every)
    lines.append(f"{lost} preemptions; {hits:,} of {prompts:,} prompt tokens came from the prefix "
                 "cache.")
    if run.cut_off:
        lines.append("The file was cut off: the run was longer than this.")
    return lines


# ---------------------------------------------------------------- Perfetto


def to_perfetto(run: Run, path: str | Path) -> None:
    """Write the run as a Chrome trace: a track of steps, counters, and a track a request."""
    now = [run.start_s]
    with Trace(path, process=run.title or "infero", now_s=lambda: now[0]) as trace:
        for step in run.steps:
            tokens = sum(entry["n"] for entry in step.entries)
            trace.complete(f"step {step.step}", step.start_s, step.end_s, "engine",
                           requests=len(step.entries), tokens=tokens, forward_s=step.forward_s,
                           admitted=step.admitted, preempted=step.preempted,
                           finished=step.finished, aborted=step.aborted, copies=step.copies)
            now[0] = step.start_s
            trace.counter("requests", running=step.running, waiting=step.waiting)
            trace.counter("tokens a step", tokens=tokens)
            trace.counter("KV blocks", free=step.free_blocks - step.cached_blocks,
                          cached=step.cached_blocks,
                          used=max(0, run.num_blocks - step.free_blocks))
        for life in lives(run):
            for one in life.stretches:
                words = {"prefill": f"prefill {one.tokens}", "decode": f"decode {one.tokens}",
                         "recompute": f"recompute {one.tokens}"}
                steps = {} if one.kind in ("queued", "preempted") else {
                    "tokens": one.tokens, "steps": f"{one.first}–{one.last}"}
                trace.complete(words.get(one.kind, one.kind), one.start_s, one.end_s, life.id,
                               **steps)
