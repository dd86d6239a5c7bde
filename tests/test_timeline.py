"""Timelines: what is recorded reads back, each request's life is followed, the page says it."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from pathlib import Path

import pytest

from infero import timeline, timeline_html, trace
from infero.engine import Engine, EngineConfig, StepRecord
from infero.errors import ConfigError
from infero.lab.configurations import tiny_model
from infero.llm import LLM
from infero.sampling import SamplingParams
from infero.timeline import Recorder, Run, Stretch, TimelineError


def step(index: int, *, entries: list[tuple[str, int, int, int | None, list[int]]] = (),  # type: ignore[assignment]
         **more: object) -> StepRecord:
    """A step of one second at second `index`; entries are (id, start, n, token, blocks)."""
    fields: dict = dict(
        step=index, start_s=float(index), end_s=index + 0.9, forward_s=0.8, waiting=0, running=1,
        free_blocks=5, cached_blocks=0,
        entries=[{"id": id, "start": start, "n": n, "samples": token is not None, "token": token,
                  "blocks": blocks} for id, start, n, token, blocks in entries],
        admitted=[], preempted=[], finished=[], aborted=[], copies=[], cached_tokens={},
        arrivals_s={})
    return StepRecord(**(fields | more))


def story() -> list[StepRecord]:
    """a: a prompt in two chunks, two tokens, preempted, recomputed, finished. b: aborted."""
    return [
        step(0, entries=[("a", 0, 4, None, [0, 1])], admitted=["a"], cached_tokens={"a": 0},
             arrivals_s={"a": -1.5}, waiting=1),
        step(1, entries=[("a", 4, 2, 7, [0, 1]), ("b", 4, 3, 9, [2, 3])], admitted=["b"],
             cached_tokens={"b": 4}, arrivals_s={"b": 0.5}, running=2),
        step(2, entries=[("a", 6, 1, 8, [0, 1]), ("b", 7, 1, 1, [2, 3])], running=2),
        step(3, entries=[("b", 8, 1, 1, [2, 3, 4])], preempted=["a"], waiting=1),
        step(4, entries=[("a", 0, 4, None, [5, 0])], aborted=["b"], admitted=["a"],
             cached_tokens={"a": 0}, arrivals_s={"a": -1.5},
             copies=[{"kind": "cow", "source": 1, "target": 5}]),
        step(5, entries=[("a", 4, 4, 3, [5, 0])]),
        step(6, entries=[("a", 8, 1, 2, [5, 0, 1])], finished=["a"], running=0),
    ]


def written(path: Path, steps: list[StepRecord], **facts: object) -> Path:
    with Recorder(path, title="a story", num_blocks=6, block_size=4, **facts) as recorder:
        for one in steps:
            recorder(one)
    return path


def told() -> Run:
    return Run(story(), "a story", 6, 4, {"model": "none"})


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("name", ["run.jsonl", "deep/run.jsonl.gz"])
def test_what_is_recorded_reads_back(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, story(), model="none")
    run = timeline.read(path)
    assert run.steps == story()
    assert (run.title, run.num_blocks, run.block_size) == ("a story", 6, 4)
    assert run.facts == {"model": "none"} and not run.cut_off


def test_a_block_table_is_written_only_when_it_changed(tmp_path: Path) -> None:
    lines = written(tmp_path / "run.jsonl", story()).read_text().splitlines()
    with_table = [["blocks" in entry for entry in json.loads(line)["entries"]]
                  for line in lines[1:]]
    assert with_table == [[True], [False, True], [False, False], [True], [True], [False], [True]]


def test_a_file_that_was_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", story())
    path.write_text(path.read_text()[:-30])
    run = timeline.read(path)
    assert run.cut_off and run.steps == story()[:-1]
    assert "cut off" in timeline.summary(run)[-1]
    zipped = tmp_path / "run.jsonl.gz"
    whole = gzip.compress(path.read_bytes())
    zipped.write_bytes(whole[: len(whole) // 2])
    assert len(timeline.read(zipped).steps) < 7


@pytest.mark.parametrize("text, words", [
    ("", "is no timeline"),
    ("hello\n", "is no timeline"),
    ('{"traceEvents": []}\n', "is no timeline"),
    ('{"format":"infero-timeline","version":99}\n', "version 99"),
    ('{"format":"infero-timeline","version":1}\n{"a":1}\n', "line 2, is no step"),
    ('{"format":"infero-timeline","version":1}\nwhat\n{}\n', "line 2, is not JSON"),
])
def test_other_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(TimelineError, match=words):
        timeline.read(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TimelineError, match="is no timeline"):
        timeline.read(path)


def test_a_closed_recorder_ignores_what_comes_later(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.close()
    recorder(story()[0])
    recorder.close()
    assert recorder.steps == 0 and timeline.read(tmp_path / "run.jsonl").steps == []


# ---------------------------------------------------------------- lives


def test_the_life_of_a_request() -> None:
    a, b = timeline.lives(told())
    assert a.stretches == [
        Stretch("queued", 0, 0, -1.5, 0.0),
        Stretch("prefill", 0, 0, 0.0, 0.9, 4),
        Stretch("prefill", 1, 1, 1.0, 1.9, 2),
        Stretch("decode", 2, 2, 2.0, 2.9, 1),
        Stretch("preempted", 3, 4, 3.0, 4.0),
        Stretch("recompute", 4, 4, 4.0, 4.9, 4),
        Stretch("recompute", 5, 5, 5.0, 5.9, 4),
        Stretch("decode", 6, 6, 6.0, 6.9, 1),
    ]
    assert (a.prompt_tokens, a.output_tokens, a.preemptions, a.ended) == (6, 4, 1, "finished")
    assert [(s.kind, s.first, s.last, s.tokens) for s in b.stretches] == [
        ("queued", 0, 1, 0), ("prefill", 1, 1, 3), ("decode", 2, 3, 2)]
    assert (b.prompt_tokens, b.cached_tokens, b.output_tokens, b.ended) == (7, 4, 3, "aborted")


def test_a_summary() -> None:
    text = " ".join(timeline.summary(told()))
    assert "2 requests, 1 finished, in 7 steps and 8.4 s: 7 output tokens" in text
    assert "11.1 % of the steps' time" in text  # 0.1 of 0.9 seconds
    assert "1 preemptions; 4 of 13 prompt tokens" in text
    assert "6 blocks of 4 tokens" in text
    assert timeline.summary(Run([])) == ["The timeline has no steps."]


# ---------------------------------------------------------------- Perfetto


def test_perfetto(tmp_path: Path) -> None:
    path = tmp_path / "run.json.gz"
    timeline.to_perfetto(told(), path)
    events = list(trace.events(path))
    tracks = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert set(tracks) == {"engine", "a", "b"}
    spans = [e for e in events if e["ph"] == "X"]
    assert [e["name"] for e in spans if e["tid"] == tracks["a"]] == [
        "queued", "prefill 4", "prefill 2", "decode 1", "preempted", "recompute 4", "recompute 4",
        "decode 1"]
    first = next(e for e in spans if e["name"] == "step 0")
    assert first["ts"] == 1.5e6 and first["dur"] == 0.9e6  # zero is the first arrival
    counters = [e for e in events if e["ph"] == "C"]
    assert {e["name"] for e in counters} == {"requests", "tokens a step", "KV blocks"}
    assert counters[0]["args"] == {"running": 1, "waiting": 1}
    for tid in tracks.values():  # spans on one track nest: here they do not even overlap
        own = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if e["tid"] == tid)
        assert all(a[1] <= b[0] + 1e-3 for a, b in itertools.pairwise(own))


# ---------------------------------------------------------------- the page


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_run_and_nothing_from_elsewhere() -> None:
    page = timeline_html.page(told())
    data = data_of(page)
    assert [r["id"] for r in data["requests"]] == ["a", "b"]
    assert data["steps"][1]["entries"] == [[0, 4, 2, 1, 7], [1, 4, 3, 1, 9]]
    assert data["steps"][3]["changes"] == [[1, 2, [4]]]  # b keeps two blocks and gets another
    assert data["steps"][4]["changes"] == [[0, 0, [5, 0]]]  # a lost all of its
    assert data["steps"][4]["aborted"] == [1] and data["steps"][3]["preempted"] == [0]
    assert data["steps"][4]["copies"] == [["cow", 1, 5]]
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page), "it loads something"
    assert "1 preemptions" in page and "<noscript>" in page
    assert "__" not in page.split("<script")[0]


def test_the_page_survives_hostile_names() -> None:
    run = told()
    for one in run.steps:
        for entry in one.entries:
            entry["id"] = entry["id"].replace("a", "</script><b>&__DATA__")
    run.title = "<img src=x onerror=alert(1)> __DATA__ __TABLE__"
    page = timeline_html.page(run)
    assert "<b>&" not in page and "<img" not in page
    assert data_of(page)["requests"][0]["id"] == "</script><b>&__DATA__"


def test_a_page_of_nothing_and_one_of_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The timeline has no steps." in timeline_html.page(Run([]))
    monkeypatch.setattr(timeline_html, "MOST_STEPS", 3)
    page = timeline_html.page(told())
    assert "first 3 of 7 steps" in page and len(data_of(page)["steps"]) == 3


# ---------------------------------------------------------------- a real engine


def engine_run(path: Path) -> tuple[Run, list[StepRecord]]:
    """Eight requests at a pool too small for them; also what on_step was told."""
    heard: list[StepRecord] = []
    engine = Engine(tiny_model(), EngineConfig(block_size=4, num_blocks=20, max_num_seqs=6,
                                               max_num_batched_tokens=16), on_step=heard.append)
    draw = random.Random(0)
    with timeline.recording(engine, path, "a real one"):
        for i in range(8):
            prompt = [draw.randrange(32) for _ in range(draw.randint(3, 24))]
            params = SamplingParams(temperature=0, max_tokens=draw.randint(3, 20), ignore_eos=True,
                                    n=2 if i == 3 else 1)
            engine.add_request(f"r{i}", prompt, params)
        while engine.has_unfinished():
            engine.step()
            if engine.stats.steps == 12:
                engine.abort("r7")
    engine.check_integrity()
    assert engine.on_step == heard.append
    return timeline.read(path), heard


def test_a_real_run_is_followed(tmp_path: Path) -> None:
    run, heard = engine_run(tmp_path / "run.jsonl.gz")
    assert run.steps == heard and run.num_blocks == 20 and run.block_size == 4
    assert run.facts["max_num_seqs"] == 6
    every = timeline.lives(run)
    assert sum(life.preemptions for life in every) == sum(len(s.preempted) for s in heard) > 0
    tokens = sum(e["token"] is not None for s in heard for e in s.entries)
    assert sum(life.output_tokens for life in every) == tokens
    assert {life.ended for life in every} == {"finished", "aborted"} or all(
        life.ended == "finished" for life in every)
    for life in every:
        kinds = [one.kind for one in life.stretches]
        assert kinds[0] == "queued" and kinds.count("preempted") == life.preemptions
        computed = sum(s.tokens for s in life.stretches)
        assert computed == sum(e["n"] for s in heard for e in s.entries if e["id"] == life.id)


def test_the_pages_block_tables_are_the_engines(tmp_path: Path) -> None:
    """Replaying the page's changes gives each step's tables, and they fit the free blocks."""
    run, heard = engine_run(tmp_path / "run.jsonl")
    data = data_of(timeline_html.page(run))
    names = [request["id"] for request in data["requests"]]
    tables: dict[int, list[int]] = {}
    for shown, record in zip(data["steps"], heard, strict=True):
        for r in (*shown["aborted"], *shown["preempted"]):
            tables.pop(r, None)
        for r, keep, more in shown["changes"]:
            tables[r] = tables.get(r, [])[:keep] + more
        for entry in record.entries:
            assert tables[names.index(entry["id"])] == entry["blocks"]
        for r in shown["finished"]:
            tables.pop(r, None)
        held = {block for table in tables.values() for block in table}
        assert len(held) == 20 - record.free_blocks


def test_only_the_paged_engine_has_steps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paged engine"):
        with timeline.recording(LLM(tiny_model(), use_cache=False), tmp_path / "x.jsonl"):
            pass
