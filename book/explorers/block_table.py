"""Data and table of the block table explorer: a recorded run of the engine, step by step.

The engine serves a few requests on a tiny random model over a pool of ten blocks. `FRAMES` are what
its bookkeeping looked like after every step; the words say what changed. Nothing is drawn by hand:
shared prefixes, copy-on-write, eviction and a preemption happen because the engine did them.
"""

from __future__ import annotations

import functools
import html
from typing import Any

BLOCK_SIZE = 4
NUM_BLOCKS = 10
SYSTEM = [1, 2, 3, 4, 5, 6, 7, 8]  # the beginning that A, B and D share: two full blocks

#: step -> (id, prompt, tokens to generate, samples)
ARRIVALS: dict[int, tuple[str, list[int], int, int]] = {
    0: ("A", [*SYSTEM, 9, 10], 6, 1),
    2: ("B", [*SYSTEM, 11, 12, 13], 5, 1),
    8: ("C", [20, 21, 22, 23, 24, 25], 7, 2),
    11: ("D", [*SYSTEM, 14, 15], 14, 1),
    13: ("E", list(range(10, 22)), 11, 1),
}


@functools.cache
def data() -> dict[str, Any]:
    """`{"block_size", "num_blocks", "frames": [...]}`; a frame is the pool after one step."""
    from infero.engine import Engine, EngineConfig
    from infero.lab.configurations import tiny_model
    from infero.sampling import SamplingParams

    records: list[Any] = []
    config = EngineConfig(block_size=BLOCK_SIZE, num_blocks=NUM_BLOCKS, max_num_batched_tokens=64)
    engine = Engine(tiny_model(), config, on_step=records.append)
    frames = [_frame(engine, None, [], None)]
    for tick in range(200):
        if tick in ARRIVALS:
            id, prompt, new, samples = ARRIVALS[tick]
            params = SamplingParams(temperature=0.0 if samples == 1 else 1.0, seed=7, n=samples,
                                    max_tokens=new, ignore_eos=True)
            engine.add_request(id, prompt, params)
        if not engine.has_unfinished():
            if tick > max(ARRIVALS):
                break
            continue
        before = len(records)
        engine.step()
        engine.check_integrity()
        if len(records) > before:
            arrived = [ARRIVALS[tick][0]] if tick in ARRIVALS else []
            frames.append(_frame(engine, records[-1], arrived, frames[-1]))
    return {"block_size": BLOCK_SIZE, "num_blocks": NUM_BLOCKS, "frames": frames}


def _frame(engine: Any, record: Any, arrived: list[str], before: dict[str, Any] | None
           ) -> dict[str, Any]:
    """The pool and the requests now, and what changed since `before` in words."""
    pool, running = engine.scheduler.pool, engine.scheduler.running
    frame: dict[str, Any] = {
        "step": 0 if record is None else record.step + 1,
        "refs": list(pool.ref_count),
        "free": list(pool.free),
        "named": [digest is not None for digest in pool.hash_of],
        "names": [digest.hex()[:4] if digest else "" for digest in pool.hash_of],
        "tables": {r.id: list(r.block_table) for r in running},
        "tokens": {r.id: r.computed for r in running},
        "waiting": sorted(r.id for r in engine.scheduler.requests.values()
                          if r.status == "waiting"),
        "finished": [] if record is None else list(record.finished),
        "copies": [] if record is None else record.copies,
        "preempted": [] if record is None else list(record.preempted),
        "gave_way": [],
        "hits": {} if record is None else {e["id"]: e["start"] for e in record.entries
                                           if e["id"] in record.admitted and e["start"]},
    }
    if before is not None:
        frame["gave_way"] = [*before["gave_way"], *frame["preempted"]]
    frame["words"] = _words(frame, record, arrived, before)
    return frame


def _words(frame: dict[str, Any], record: Any, arrived: list[str], before: dict[str, Any] | None
           ) -> list[str]:
    """What the step did, one sentence each."""
    if record is None or before is None:
        return [f"The pool is empty: {NUM_BLOCKS} blocks of {BLOCK_SIZE} tokens, all in the free "
                "queue."]
    said = []
    spans = {entry["id"]: entry for entry in record.entries}
    for id in record.preempted:
        said.append(f"A block is needed and none is free: {id}, which came last, gives its blocks "
                    "back and returns to the queue.")
    for id in record.admitted:
        again = id in before["gave_way"]
        said.append(_admission(id, spans[id], again))
    for copy in record.copies:
        said.append(f"Copy-on-write: block {copy['source']} is shared and about to be written; "
                    f"the writer gets a copy of it, block {copy['target']}.")
    lost = [b for b, name in enumerate(before["names"]) if name and frame["names"][b] != name]
    if lost:
        said.append(f"{_blocks(lost)} {'is' if len(lost) == 1 else 'are'} taken from the free "
                    "queue for new tokens: what was cached there is forgotten.")
    named = [b for b in range(NUM_BLOCKS) if frame["names"][b]
             and frame["names"][b] != before["names"][b]]
    if named:
        said.append(f"{_blocks(named)} {'is' if len(named) == 1 else 'are'} full and computed, and "
                    f"get{'s' if len(named) == 1 else ''} a name by which later prompts find "
                    f"{'it' if len(named) == 1 else 'them'}.")
    for id in record.finished:
        said.append(_ending(id, spans[id]["blocks"], frame))
    waiting = [id for id in frame["waiting"] if id.split(":")[0] in arrived]
    if waiting:
        said.append(f"{' and '.join(waiting)} wait{'s' if len(waiting) == 1 else ''} in the queue.")
    return said or [f"{_listed(list(spans))} compute{'s' if len(spans) == 1 else ''} one token."]


def _admission(id: str, span: dict[str, Any], again: bool) -> str:
    hit, starts = span["start"], "starts again" if again else "starts"
    if id.endswith(":1") and hit and not again:
        return (f"{id} starts as a second sample of the same prompt: it shares the blocks of "
                f"{id[:-2]}:0 and computes only the prompt's last token.")
    if hit:
        found = span["blocks"][: hit // BLOCK_SIZE]
        return (f"{id} {starts}: its first {hit} tokens are in {_blocks(found, lower=True)} still, "
                f"so it computes only {span['n']}.")
    return f"{id} {starts} and computes its {span['n']} tokens into " + (
        f"{_blocks(span['blocks'], lower=True)}.")


def _ending(id: str, table: list[int], frame: dict[str, Any]) -> str:
    free = [b for b in table if frame["refs"][b] == 0]
    kept = [b for b in table if frame["refs"][b]]
    parts = []
    if cached := [b for b in free if frame["named"][b]]:
        parts.append(f"{_blocks(cached)} go{'es' if len(cached) == 1 else ''} to the back of the "
                     f"free queue, and keep{'s' if len(cached) == 1 else ''} what "
                     "is cached")
    if blank := [b for b in free if not frame["named"][b]]:
        parts.append(f"{_blocks(blank, lower=bool(parts))}, not full, goes to the front")
    if kept:
        parts.append(f"{_blocks(kept, lower=bool(parts))} still "
                     f"{'has' if len(kept) == 1 else 'have'} owners")
    return f"{id} ends. {'; '.join(parts)}."


def _listed(items: list[Any]) -> str:
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _blocks(blocks: list[int], lower: bool = False) -> str:
    word = f"Block{'s' if len(blocks) > 1 else ''} {_listed(blocks)}"
    return word.lower() if lower else word


def fallback() -> str:
    """Every step as a row of an HTML table."""
    rows = []
    for frame in data()["frames"]:
        tables = "; ".join(f"{id}: {' '.join(map(str, table))}"
                           for id, table in sorted(frame["tables"].items())) or "none"
        cells = (" ".join(frame["words"]), tables, " ".join(map(str, frame["free"])) or "none")
        rows.append(f'<tr><th scope="row">{frame["step"]}</th>'
                    + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = ("step", "what happens", "block tables", "free queue, next first")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>A run of the engine over {NUM_BLOCKS} blocks of {BLOCK_SIZE} tokens."
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
