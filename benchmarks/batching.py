"""Three ways of batching, counted in forward passes, and the tokens a grammar leaves: a simulation.

    python -m benchmarks.batching [--smoke] [--out DIR]

Nothing is timed and no model runs, so the numbers are the same on every machine. The first part
serves random requests with `infero.batching`: the workload of `infero bench throughput` all at
once, and Poisson arrivals at several loads. The second part walks through one JSON document token
by token and counts what its schema allows at each place. Chapter 10 quotes and draws the results.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from infero import batching, bench, grammar, results

REQUESTS, SLOTS, MEAN, CAP = 128, 16, 32, 256  # the workload of `infero bench throughput`
WINDOWS = (0, 8, 32)
LOADS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.4, 0.6, 0.8, 0.95)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "languages": {"type": "array", "items": {"type": "string", "maxLength": 16},
                      "maxItems": 4},
        "member": {"type": "boolean"},
    },
    "required": ["name", "age", "languages", "member"],
    "additionalProperties": False,
}
DOCUMENT = ('{"name": "Ada Lovelace", "age": 36, "languages": ["English", "French"], '
            '"member": true}')


def all_at_once(r: results.Recorder, seeds: int) -> None:
    """The workload with every request waiting from the start, over the number of slots too."""
    lengths = batching.geometric_lengths(REQUESTS, MEAN, CAP, seed=0)
    tokens = sum(lengths)
    static = batching.static_steps(lengths, SLOTS)
    continuous = batching.continuous_steps(lengths, SLOTS)
    r.value("requests", REQUESTS, unit="")
    r.value("slots", SLOTS, unit="")
    r.value("tokens", tokens, unit="")
    r.value("static_passes", static, unit="")
    r.value("continuous_passes", continuous, unit="")
    r.value("static_utilisation", tokens / (SLOTS * static), unit="")
    r.value("continuous_utilisation", tokens / (SLOTS * continuous), unit="")
    r.value("ideal_gain", static / continuous, unit="")
    rows = []
    for slots in (1, 2, 4, 8, 16, 32, 64):
        shares: dict[bool, list[float]] = {True: [], False: []}
        for seed in range(seeds):
            many = batching.geometric_lengths(32 * slots, MEAN, CAP, seed)
            for refill, count in ((False, batching.static_steps),
                                  (True, batching.continuous_steps)):
                shares[refill].append(sum(many) / (slots * count(many, slots)))
        rows.append([slots, MEAN / batching.expected_longest(MEAN, CAP, slots),
                     sum(shares[False]) / seeds, sum(shares[True]) / seeds])
    r.table("by_slots", [("slots", ""), ("predicted", ""), ("static", ""), ("continuous", "")],
            rows)


def arriving(r: results.Recorder, count: int) -> None:
    """Poisson arrivals at a share of what the slots can carry; times in passes."""
    rows = []
    for load in LOADS:
        draw = random.Random(7)
        lengths = batching.geometric_lengths(count, MEAN, CAP, seed=7)
        rate, now, arrivals = load * SLOTS / MEAN, 0.0, []
        for _ in lengths:
            now += draw.expovariate(rate)
            arrivals.append(int(now))
        ways = [("static", 0), *(("dynamic", window) for window in WINDOWS), ("continuous", 0)]
        for policy, window in ways:
            trace = batching.simulate(policy, lengths, SLOTS, arrivals, window)
            waits = [s.waited for s in trace.services]
            returned = [(s.end if policy == "continuous" else s.released) - s.arrival
                        for s in trace.services]
            name = f"dynamic {window}" if policy == "dynamic" else policy
            rows.append([name, load, trace.utilisation, sum(waits) / count,
                         bench.percentile(waits, 95), sum(returned) / count])
    r.table("arrivals", [("policy", ""), ("load", ""), ("utilisation", ""), ("wait", "step"),
                         ("wait_p95", "step"), ("answer", "step")], rows)


def masks(r: results.Recorder) -> None:
    """Allowed tokens at each place of one document, by its schema."""
    from infero.loading import load

    model = load(device="cpu")
    tokenizer, vocab = model.tokenizer, model.config.vocab_size
    assert tokenizer is not None
    matcher = grammar.compile(tokenizer, vocab, model.config.eos_token_ids, json_schema=SCHEMA)
    rows, forced, tokens = [], 0, tokenizer.encode(DOCUMENT)
    for token in tokens:
        allowed = sum((int(word) & 0xFFFFFFFF).bit_count() for word in matcher.bitmask())
        ahead = matcher.forced()[:1] == [token]
        forced += ahead
        rows.append([tokenizer.decode([token]), allowed, int(ahead)])
        matcher.accept(token)
    if not matcher.may_end:
        raise RuntimeError("the document is not complete by its own schema")
    r.table("mask", [("token", ""), ("allowed", "token"), ("forced", "")], rows)
    r.value("mask_tokens", len(tokens), unit="")
    r.value("mask_forced", forced, unit="")
    r.value("mask_forced_share", forced / len(tokens), unit="")
    r.value("vocabulary", vocab, unit="")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    with results.record("batching", argv=given, out=args.out, device="cpu") as r:
        all_at_once(r, 2 if args.smoke else 20)
        arriving(r, 200 if args.smoke else 4000)
        masks(r)


if __name__ == "__main__":
    main(sys.argv[1:])
