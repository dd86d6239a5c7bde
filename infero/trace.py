"""Traces: write what the engine does as Chrome trace events, and read the GPU's side back.

`Trace` writes spans, counters and instants as JSON that ui.perfetto.dev opens; it streams to the
file, so its memory is bounded however long the run. The second half reads traces that
`torch.profiler` exported (plain or gzipped, event by event) and answers chapter 3's questions: how
busy was the GPU, which kernels took the time, how long did each wait between launch and start.

Format: Trace Event Format (Google, "Trace Event Format", docs.google.com/document/d/1CvAClvFfyA5R-
PhYUmn5OOQtYMH4h6I0nSsKchNAySU); times in the file are microseconds. All times here are seconds.
"""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from infero.errors import InferoError

if TYPE_CHECKING:
    from infero.llm import LLM
    from infero.sampling import SamplingParams

CHUNK = 1024  # events held in memory before they go to the file


class TraceError(InferoError):
    """A trace file that cannot be read."""


# ---------------------------------------------------------------- writing


class _Span(AbstractContextManager["_Span"]):
    """One span; its event is written when the block ends."""

    __slots__ = ("args", "name", "start_s", "trace", "track")

    def __init__(self, trace: Trace, name: str, track: str, args: dict[str, Any]) -> None:
        self.trace, self.name, self.track, self.args = trace, name, track, args

    def __enter__(self) -> _Span:
        self.start_s = self.trace.now_s()
        return self

    def __exit__(self, *_: object) -> None:
        self.trace.complete(self.name, self.start_s, self.trace.now_s(), self.track, **self.args)


_NOTHING: AbstractContextManager[Any] = nullcontext()


class Trace:
    """A trace being written. Without a path it is off: every call returns at once.

        with Trace("run.json.gz") as trace:
            with trace.span("prefill", tokens=512):
                ...
            trace.counter("running", requests=3)

    Spans on one `track` (a row in the viewer) must nest; give things that overlap tracks of their
    own. `limit` is the largest number of events kept: later ones are counted and dropped.
    """

    def __init__(self, path: str | Path | None = None, *, process: str = "infero",
                 limit: int = 1_000_000, now_s: Callable[[], float] = time.perf_counter) -> None:
        self.path = Path(path) if path is not None else None
        self.on = path is not None
        self.now_s, self.limit = now_s, limit
        self.written = self.dropped = 0
        self._tracks: dict[str, int] = {}
        self._pending: list[str] = []
        self._file: IO[str] | None = None
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        opened = gzip.open if self.path.suffix == ".gz" else open
        self._file = opened(self.path, "wt", encoding="utf-8")  # type: ignore[assignment]
        self._file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        self._zero_s = now_s()
        self._put({"ph": "M", "name": "process_name", "pid": os.getpid(), "tid": 0,
                   "args": {"name": process}})

    def span(self, name: str, track: str = "engine", **args: Any) -> AbstractContextManager[Any]:
        """A stretch of time: `with trace.span("prefill", tokens=512): ...`."""
        return _Span(self, name, track, args) if self.on else _NOTHING

    def complete(self, name: str, start_s: float, end_s: float, track: str = "engine",
                 **args: Any) -> None:
        """A span whose ends are known, as `now_s()` gave them."""
        if self.on:
            self._event("X", name, track, start_s, args, dur=round(1e6 * (end_s - start_s), 3))

    def instant(self, name: str, track: str = "engine", **args: Any) -> None:
        """Something that happened at one moment."""
        if self.on:
            self._event("i", name, track, self.now_s(), args, s="t")

    def counter(self, name: str, **values: float) -> None:
        """The values of quantities from now on, drawn as a graph of their own."""
        if self.on:
            self._event("C", name, "", self.now_s(), values)

    def _event(self, kind: str, name: str, track: str, at_s: float, args: dict[str, Any],
               **more: Any) -> None:
        if self.written >= self.limit:
            self.dropped += 1
            return
        self.written += 1
        self._put({"ph": kind, "name": name, "pid": os.getpid(), "tid": self._track(track),
                   "ts": round(1e6 * (at_s - self._zero_s), 3), **more, "args": args})

    def _track(self, track: str) -> int:
        if track and track not in self._tracks:
            number = self._tracks[track] = len(self._tracks) + 1
            for name, value in (("thread_name", {"name": track}),
                                ("thread_sort_index", {"sort_index": number})):
                self._put({"ph": "M", "name": name, "pid": os.getpid(), "tid": number,
                           "args": value})
        return self._tracks.get(track, 0)

    def _put(self, event: dict[str, Any]) -> None:
        self._pending.append(json.dumps(event, default=str))
        if len(self._pending) >= CHUNK:
            self._flush(last=False)

    def _flush(self, last: bool) -> None:
        assert self._file is not None
        self._file.write(",\n".join(self._pending) + ("" if last else ",\n"))
        self._pending.clear()

    def close(self) -> None:
        """Finish the file; what comes later is ignored."""
        if self._file is None:
            return
        self._put({"ph": "M", "name": "trace_end", "pid": os.getpid(), "tid": 0,
                   "args": {"dropped": self.dropped}})
        if self._pending:
            self._flush(last=True)
        else:  # the chunk ended exactly here and left a comma behind
            self._file.write('{"ph": "M", "name": "trace_end", "pid": 0, "tid": 0, "args": {}}')
        self._file.write("\n]}\n")
        self._file.close()
        self._file, self.on = None, False

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def functions(trace: Trace, names: Sequence[str], track: str = "engine") -> Iterator[None]:
    """Inside the block every call of these functions ("infero.model.attention") is a span.

    It works for functions that are called by their module's name, as the engine calls its own.
    """
    places = [(importlib.import_module(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in names]
    before = [getattr(module, attribute) for module, attribute in places]

    def traced(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with trace.span(label, track):
                return function(*args, **kwargs)

        return call

    try:
        for (module, attribute), function in zip(places, before, strict=True):
            setattr(module, attribute, traced(function, attribute))
        yield
    finally:
        for (module, attribute), function in zip(places, before, strict=True):
            setattr(module, attribute, function)


INSIDE = ("infero.model.block", "infero.kernels.attention", "infero.kernels.rms_norm",
          "infero.kernels.rope", "infero.kernels.swiglu", "infero.kernels.linear")


def generation(llm: LLM, prompt: str | Sequence[int], params: SamplingParams, path: str | Path,
               inside: Sequence[str] = INSIDE) -> str:
    """Generate once and write its trace: a span a step, and one for each call of `inside`.

    Returns the text. The engine runs its plain pass meanwhile, one function an operation, and its
    steps take a little longer. On a GPU the spans show when the host called, not when the GPU
    worked: use `torch.profiler` there.
    """
    plain = llm.engine.runner.one_by_one() if llm.engine is not None else nullcontext()
    with plain, Trace(path, process="infero generate") as trace, functions(trace, inside):
        text, start_s, index = "", trace.now_s(), 0
        for chunk in llm.stream(prompt, params):
            if chunk.token is not None:
                name = "prefill" if index == 0 else f"decode {index}"
                trace.complete(name, start_s, trace.now_s(), "steps", token=chunk.token,
                               text=chunk.text)
                trace.counter("tokens", made=index + 1)
                start_s, index = trace.now_s(), index + 1
            text += chunk.text
    return text


# ---------------------------------------------------------------- reading


def events(path: str | Path) -> Iterator[dict[str, Any]]:
    """The events of a trace file one by one, plain or gzipped, without holding the file in memory.

    Reads both forms of the format: an object with a `traceEvents` list, and a bare list. A file
    that ends too early (a crash, a full disk) gives the events it has, then a TraceError.
    """
    decoder = json.JSONDecoder()
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with (gzip.open if zipped else open)(path, "rt", encoding="utf-8") as file:
        text = file.read(1 << 16)
        while '"traceEvents"' not in text and not text.lstrip().startswith("["):
            more = file.read(1 << 16)
            if not more:
                raise TraceError(f"{path} holds no traceEvents: is it a Chrome trace?")
            text += more
        key = text.find('"traceEvents"')
        at = text.index("[", max(key, 0)) + 1
        while True:
            while at < len(text) and text[at] in " \t\r\n,":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                event, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as problem:
                more = file.read(1 << 18)
                if not more:
                    raise TraceError(f"{path} ends in the middle ({problem.msg} at the end); it "
                                     "was cut off: record it again.") from None
                text, at = text[at:] + more, 0
                continue
            yield event


def recorded(name: str, device: str = "gpu") -> Path:
    """The file of a trace that `benchmarks/traces.py` recorded: "decode_eager", "prefill" …"""
    from infero import results

    for slug in results.GPU_ALIASES if device == "gpu" else (device,):
        path = results.root() / slug / "traces" / f"{name}.json.gz"
        if path.is_file():
            return path
    raise results.ResultMissing(f"There is no trace {name!r} of {device!r} in {results.root()}. "
                                "Record it with: python -m benchmarks.traces")


class Interval(NamedTuple):
    """One thing that took time: what, when, and on which row."""

    name: str
    start_s: float
    end_s: float
    stream: str = ""
    correlation: int = -1

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass
class Profile:
    """What a torch.profiler trace says about a GPU, in order of start.

    `kernels` are computations, `copies` memory copies and fills, both on the GPU; `calls` are the
    host's calls into the driver (launches, copies, synchronisations) and `ops` the framework's
    operators; `marks` are the spans that the program named with `record_function`.
    """

    kernels: list[Interval] = field(default_factory=list)
    copies: list[Interval] = field(default_factory=list)
    calls: list[Interval] = field(default_factory=list)
    ops: list[Interval] = field(default_factory=list)
    marks: list[Interval] = field(default_factory=list)

    @property
    def device(self) -> list[Interval]:
        """Everything the GPU did, kernels and copies, in order of start."""
        return sorted(self.kernels + self.copies, key=lambda one: one.start_s)


_KINDS = {"kernel": "kernels", "gpu_memcpy": "copies", "gpu_memset": "copies",
          "cuda_runtime": "calls", "cuda_driver": "calls", "cpu_op": "ops",
          "user_annotation": "marks"}
_LISTS = ("kernels", "copies", "calls", "ops", "marks")


def profile(source: str | Path | Iterable[dict[str, Any]]) -> Profile:
    """Read a torch.profiler trace; times start at 0 with its first event."""
    raw: dict[str, list[tuple[str, float, float, str, int]]] = {name: [] for name in _LISTS}
    for event in events(source) if isinstance(source, (str, Path)) else source:
        kind = _KINDS.get(event.get("cat", ""))
        if kind is None or event.get("ph") != "X":
            continue
        args = event.get("args", {})
        stream = str(args.get("stream", event.get("tid", "")))
        raw[kind].append((event["name"], float(event["ts"]), float(event.get("dur", 0)), stream,
                          int(args.get("correlation", -1))))
    zero = min((row[1] for rows in raw.values() for row in rows), default=0.0)
    found = Profile()
    for kind, rows in raw.items():
        rows.sort(key=lambda row: row[1])
        getattr(found, kind).extend(
            Interval(name, 1e-6 * (at - zero), 1e-6 * (at - zero + took), stream, correlation)
            for name, at, took, stream, correlation in rows)
    return found


def within(one: Profile, start_s: float, end_s: float) -> Profile:
    """The part of a profile that starts inside a window."""
    def keep(group: list[Interval]) -> list[Interval]:
        return [o for o in group if start_s <= o.start_s < end_s]

    return Profile(keep(one.kernels), keep(one.copies), keep(one.calls), keep(one.ops),
                   keep(one.marks))


def merged(intervals: Iterable[Interval]) -> list[tuple[float, float]]:
    """The stretches of time that at least one interval covers, in order."""
    stretches: list[tuple[float, float]] = []
    for one in sorted(intervals, key=lambda o: o.start_s):
        if stretches and one.start_s <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], one.end_s))
        else:
            stretches.append((one.start_s, one.end_s))
    return stretches


def busy_share(intervals: Sequence[Interval]) -> float:
    """The share of the time from the first start to the last end in which something ran."""
    covered = merged(intervals)
    if not covered or covered[-1][1] == covered[0][0]:
        return 0.0
    return sum(end - start for start, end in covered) / (covered[-1][1] - covered[0][0])


def gaps_s(intervals: Sequence[Interval]) -> list[float]:
    """The idle stretches between the first start and the last end, in order."""
    covered = merged(intervals)
    return [b[0] - a[1] for a, b in itertools.pairwise(covered)]


@dataclass(frozen=True)
class KernelRow:
    """All runs of one kernel together; `share` is of all kernels' time."""

    name: str
    count: int
    total_s: float
    share: float

    @property
    def mean_s(self) -> float:
        return self.total_s / self.count


def kernel_table(intervals: Sequence[Interval]) -> list[KernelRow]:
    """One row a name, the longest total first."""
    groups: dict[str, list[float]] = {}
    for one in intervals:
        groups.setdefault(one.name, []).append(one.duration_s)
    all_s = sum(sum(group) for group in groups.values()) or 1.0
    rows = [KernelRow(name, len(g), sum(g), sum(g) / all_s) for name, g in groups.items()]
    return sorted(rows, key=lambda row: -row.total_s)


def launch_delays_s(one: Profile) -> list[float]:
    """For each kernel the time from the start of its launch call to its own start.

    A delay of a few microseconds means that the GPU was waiting for work; a long one that the work
    stood in a queue, so that the host was ahead.
    """
    calls = {call.correlation: call for call in one.calls if call.correlation >= 0}
    return [k.start_s - calls[k.correlation].start_s for k in one.kernels
            if k.correlation in calls]


def waits(one: Profile) -> list[Interval]:
    """Calls in which the host stood still until the GPU was done."""
    return [call for call in one.calls if "Synchronize" in call.name or call.name == "cudaMemcpy"]
