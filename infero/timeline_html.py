"""A timeline as one HTML file that needs nothing but a browser: no server, no network.

The page shows what each request did, the batch of every step with its block tables, and the block
pool, step by step. Its script and style are in `static/timeline.html`; here is the data it draws,
and the same in words and a table for those who cannot see the pictures.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from infero import timeline
from infero.timeline import Life, Run, Stretch

KINDS = ("queued", "prefill", "decode", "preempted", "recompute")
MOST_STEPS = 20_000  # more would make a page that no browser opens quickly
MOST_ROWS = 2_000  # of the table


def write(run: Run, path: str | Path) -> None:
    """Write the page of a run; a run of more than MOST_STEPS steps is shown up to there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run), encoding="utf-8")


def page(run: Run) -> str:
    """The whole page as text."""
    sentences = timeline.summary(run)
    if len(run.steps) > MOST_STEPS:
        sentences.append(f"The pictures show the first {MOST_STEPS:,} of {len(run.steps):,} steps.")
        run = Run(run.steps[:MOST_STEPS], run.title, run.num_blocks, run.block_size, run.facts)
    every = timeline.lives(run)
    facts = " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.facts.items())
    parts = {
        "__TITLE__": html.escape(run.title or "Infero timeline"),
        "__FACTS__": html.escape(facts),
        "__SUMMARY__": "".join(f"<li>{html.escape(line)}</li>" for line in sentences),
        "__TABLE__": table(every, run.start_s),
        "__DATA__": json.dumps(data(run, every), separators=(",", ":")).replace("<", "\\u003c"),
    }
    template = resources.files("infero").joinpath("static/timeline.html").read_text("utf-8")
    before, after = template.split("__DATA__")  # last, and alone: its text is the user's
    for name in ("__TITLE__", "__FACTS__", "__SUMMARY__", "__TABLE__"):
        before = before.replace(name, parts[name])
    return before + parts["__DATA__"] + after


def data(run: Run, every: Sequence[Life]) -> dict[str, Any]:
    """What the script draws; requests by their index, block tables by their changes."""
    index = {life.id: i for i, life in enumerate(every)}
    zero = run.start_s

    def known(ids: Sequence[str]) -> list[int]:
        return [index[id] for id in ids if id in index]

    kinds = _kinds(every, len(run.steps))
    tables: dict[int, list[int]] = {}
    steps = []
    for at, step in enumerate(run.steps):
        for r in known([*step.aborted, *step.preempted]):
            tables.pop(r, None)
        entries, changes = [], []
        for entry in step.entries:
            r = index[entry["id"]]
            token = -1 if entry["token"] is None else entry["token"]
            entries.append([r, entry["start"], entry["n"], KINDS.index(kinds[r, at]), token])
            old, new = tables.get(r, []), entry["blocks"]
            if old != new:
                keep = _common(old, new)
                changes.append([r, keep, new[keep:]])
                tables[r] = list(new)
        for r in known(step.finished):
            tables.pop(r, None)
        steps.append({
            "step": step.step, "start": _round(step.start_s - zero),
            "end": _round(step.end_s - zero), "forward": _round(step.forward_s),
            "tokens": sum(entry["n"] for entry in step.entries),
            "running": step.running, "waiting": step.waiting, "free": step.free_blocks,
            "cached": step.cached_blocks, "entries": entries, "changes": changes,
            "admitted": known(step.admitted), "preempted": known(step.preempted),
            "finished": known(step.finished), "aborted": known(step.aborted),
            "copies": [[c["kind"], c["source"], c["target"]] for c in step.copies],
            "hits": {index[id]: n for id, n in step.cached_tokens.items() if n and id in index},
        })
    requests = [{
        "id": life.id, "prompt": life.prompt_tokens, "cached": life.cached_tokens,
        "output": life.output_tokens, "preemptions": life.preemptions, "end": life.ended,
        "stretches": [_stretch(one, zero) for one in life.stretches],
    } for life in every]
    return {"num_blocks": run.num_blocks, "block_size": run.block_size, "kinds": KINDS,
            "start": 0.0, "requests": requests, "steps": steps}


def _kinds(every: Sequence[Life], steps: int) -> dict[tuple[int, int], str]:
    """What request r does in step i."""
    return {(r, i): one.kind for r, life in enumerate(every) for one in life.stretches
            if one.kind not in ("queued", "preempted")
            for i in range(one.first, min(one.last + 1, steps))}


def _stretch(one: Stretch, zero: float) -> list[Any]:
    return [KINDS.index(one.kind), one.first, one.last, _round(one.start_s - zero),
            _round(one.end_s - zero), one.tokens]


def _common(old: Sequence[int], new: Sequence[int]) -> int:
    """How many blocks two tables have in common from the front."""
    for i, (a, b) in enumerate(zip(old, new, strict=False)):
        if a != b:
            return i
    return min(len(old), len(new))


def _round(seconds: float) -> float:
    return round(seconds, 7)


def table(every: Sequence[Life], zero: float) -> str:
    """The requests as an HTML table: the text version of the pictures."""
    columns = ("Request", "Arrived (s)", "First step", "Last step", "Prompt tokens", "Cached",
               "Output tokens", "Preemptions", "End")
    rows = []
    for number, life in enumerate(every[:MOST_ROWS], 1):
        ran = [one for one in life.stretches if one.kind not in ("queued", "preempted")]
        cells = [f"{number}: {life.id}", f"{life.arrival_s - zero:.3f}", ran[0].first, ran[-1].last,
                 life.prompt_tokens, life.cached_tokens, life.output_tokens, life.preemptions,
                 life.ended or "unfinished"]
        kinds = ["", *["n"] * 7, ""]
        rows.append("<tr>" + "".join(
            f'<td class="{kind}">{html.escape(str(cell))}</td>' if kind else
            f"<td>{html.escape(str(cell))}</td>" for cell, kind in zip(cells, kinds, strict=True)
        ) + "</tr>")
    more = len(every) - MOST_ROWS
    note = f"<p>{more:,} more requests are not listed.</p>" if more > 0 else ""
    head = "".join(f"<th>{name}</th>" if name in ("Request", "End") else
                   f'<th class="n">{name}</th>' for name in columns)
    return ('<div class="scroll rows" tabindex="0" role="region" aria-label="All requests">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
            + note)
