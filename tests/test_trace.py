"""Traces: what is written opens as Chrome trace JSON, and what is read is counted right."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
import torch

from infero import trace
from infero.trace import Interval, Profile, Trace


@pytest.mark.parametrize("n", [0, 1, 1020, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_what_is_written_is_json_and_reads_back(tmp_path: Path, n: int, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    with Trace(path) as t:
        for i in range(n):
            with t.span(f"step {i}", tokens=i):
                pass
    opened = gzip.open if suffix.endswith("gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        data = json.load(file)
    assert list(trace.events(path)) == data["traceEvents"]
    spans = [e for e in data["traceEvents"] if e["ph"] == "X"]
    assert [e["args"]["tokens"] for e in spans] == list(range(n))
    assert all(e["dur"] >= 0 and isinstance(e["ts"], float) for e in spans)


def test_tracks_counters_and_instants(tmp_path: Path) -> None:
    moments = iter(float(i) for i in range(100))
    path = tmp_path / "run.json"
    with Trace(path, process="demo", now_s=lambda: next(moments)) as t:
        with t.span("outer"), t.span("inner", track="other"):
            t.counter("running", requests=2)
            t.instant("arrived", request="a b\n\"c\"")
    kinds = [(e["ph"], e["name"]) for e in trace.events(path)]
    assert ("M", "process_name") in kinds
    assert {e["args"]["name"] for e in trace.events(path) if e["name"] == "thread_name"} == {
        "engine", "other"}
    by_name = {e["name"]: e for e in trace.events(path)}
    assert by_name["outer"]["ts"] <= by_name["inner"]["ts"]
    assert by_name["running"]["args"] == {"requests": 2}
    assert by_name["arrived"]["args"]["request"] == 'a b\n"c"'


def test_a_trace_that_is_off_costs_next_to_nothing(tmp_path: Path) -> None:
    off = Trace()
    start = time.perf_counter()
    for _ in range(20_000):
        with off.span("nothing"):
            pass
    assert (time.perf_counter() - start) / 20_000 < 2e-5
    off.counter("a", b=1.0)
    off.close()
    assert off.written == 0


def test_the_limit_bounds_the_file_and_an_exception_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    t = Trace(path, limit=10)

    def crash() -> None:
        with t:
            for _ in range(25):
                t.instant("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert sum(e["ph"] == "i" for e in trace.events(path)) == 10
    assert t.dropped == 15
    assert not t.on
    t.instant("ignored")


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"traceEvents": [{"ph": "X"}, {"ph": ')
    found = []
    with pytest.raises(trace.TraceError, match="cut off"):
        found += list(trace.events(path))
    path.write_text('{"other": 1}')
    with pytest.raises(trace.TraceError, match="no traceEvents"):
        list(trace.events(path))
    path.write_text('[{"ph": "X", "name": "a"}]')  # the format's other form
    assert [e["name"] for e in trace.events(path)] == ["a"]


def test_functions_are_traced_and_put_back(tmp_path: Path) -> None:
    from infero import model
    from infero.lab.configurations import tiny_model
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    before = model.attention
    path = tmp_path / "run.json"
    params = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    trace.generation(LLM(tiny_model()), [1, 2, 3], params, path)
    assert model.attention is before
    names = [e["name"] for e in trace.events(path) if e["ph"] == "X"]
    assert names.count("attention") == 2 * 3
    assert [n for n in names if n.startswith(("prefill", "decode"))] == [
        "prefill", "decode 1", "decode 2"]


# ---------------------------------------------------------------- reading


def fake(cat: str, name: str, ts: float, dur: float, **args: object) -> dict[str, object]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 0, "tid": 7,
            "args": args}


EVENTS = [
    fake("user_annotation", "step 0", 100.0, 60.0),
    fake("cpu_op", "aten::mm", 101.0, 8.0),
    fake("cuda_runtime", "cudaLaunchKernel", 104.0, 3.0, correlation=1),
    fake("cuda_runtime", "cudaLaunchKernel", 110.0, 3.0, correlation=2),
    fake("cuda_runtime", "cudaDeviceSynchronize", 120.0, 30.0, correlation=3),
    fake("kernel", "gemm", 110.0, 10.0, correlation=1, stream=7),
    fake("kernel", "add", 125.0, 5.0, correlation=2, stream=7),
    fake("kernel", "gemm", 128.0, 10.0, correlation=9, stream=8),
    fake("gpu_memcpy", "Memcpy DtoH", 140.0, 2.0, correlation=4, stream=7),
    {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}},
]


def test_a_profile_is_counted() -> None:
    found = trace.profile(EVENTS)
    assert [len(x) for x in (found.kernels, found.copies, found.calls, found.ops, found.marks)] == [
        3, 1, 3, 1, 1]
    assert found.marks[0].start_s == 0.0
    assert found.kernels[0].start_s == pytest.approx(10e-6)
    # busy 110-120, 125-138 (two streams overlap), 140-142, of 110-142
    assert trace.busy_share(found.device) == pytest.approx(25 / 32)
    assert trace.gaps_s(found.device) == pytest.approx([5e-6, 2e-6])
    rows = trace.kernel_table(found.kernels)
    assert [(r.name, r.count) for r in rows] == [("gemm", 2), ("add", 1)]
    assert rows[0].share == pytest.approx(0.8)
    assert rows[0].mean_s == pytest.approx(10e-6)
    assert trace.launch_delays_s(found) == pytest.approx([6e-6, 15e-6])
    assert [w.name for w in trace.waits(found)] == ["cudaDeviceSynchronize"]
    early = trace.within(found, 0.0, 22e-6)
    assert [k.name for k in early.kernels] == ["gemm"]


def test_an_empty_profile() -> None:
    assert trace.busy_share([]) == 0.0
    assert trace.gaps_s([]) == []
    assert trace.profile([]) == Profile()
    assert trace.kernel_table([]) == []
    assert trace.merged([Interval("a", 1, 2), Interval("b", 0, 3)]) == [(0, 3)]


def test_the_real_profilers_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        with torch.profiler.record_function("step 0"):
            torch.ones(8, 8) @ torch.ones(8, 8)
    profiler.export_chrome_trace(str(path))
    found = trace.profile(path)
    assert [m.name for m in found.marks] == ["step 0"]
    assert any("mm" in op.name for op in found.ops)
