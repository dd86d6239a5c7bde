"""What a step costs: over the batch, beside somebody's prefill, and with token masks.

    python -m benchmarks.batching_steps [--device cuda|cpu] [--smoke] [--out DIR]

On a CPU it runs SmolLM2, on a GPU random bf16 weights of Llama-3-8B's shape, through
`infero.runner` as the engine does: plan, pack, forward pass, argmax. Chapter 10 quotes and draws
the results.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

from infero import grammar, results, runner, sampling
from infero.logits import RowState
from infero.model import Model, ModelConfig, random_model
from infero.request import Plan, Request, Scheduled
from infero.runner import Runner

LLAMA = ModelConfig("llama", 128_256, 4096, 14_336, 32, 32, 8, 128, 8192, rope_theta=500_000.0)
SMOKE = ModelConfig("llama", 512, 64, 128, 2, 4, 2, 16, 8192)
BLOCK = 16
GREEDY = RowState(sampling.SamplingParams(temperature=0.0), 0, 1,
                  torch.zeros(0, dtype=torch.int64))


def step(engine: Runner, decodes: int, context: int, prefill: int = 0) -> Plan:
    """A plan of `decodes` requests with `context` tokens each and one new prompt of `prefill`."""
    vocab, entries, first = engine.model.config.vocab_size, [], 0
    for i in range(decodes + (prefill > 0)):
        n, total = (1, context) if i < decodes else (prefill, prefill)
        blocks = -(-total // BLOCK)
        request = Request(str(i), [(7 * i + j) % vocab for j in range(total)], total, 1)
        request.block_table = list(range(first, first + blocks))
        first += blocks
        entries.append(Scheduled(request, total - n, n, True, 0, 0))
    return Plan(0, entries)


def timed(run: Callable[[], object], samples: int) -> list[float]:
    """Seconds of each call; `run` ends with the result on the host. Three calls warm up."""
    found = []
    for i in range(samples + 3):
        start = time.perf_counter()
        run()
        if i >= 3:
            found.append(time.perf_counter() - start)
    return found


def steps(r: results.Recorder, model: Model, sizes: Sequence[int], context: int,
          prompts: Sequence[int], samples: int) -> None:
    """Time of a step over the batch, and of a step that also prefills somebody's prompt."""
    needed = max(sizes) * -(-context // BLOCK) + -(-max(prompts) // BLOCK) + 1
    engine = Runner(model, needed, BLOCK, max_rows=max(sizes) + 1, cuda_graphs=True)
    engine.cache.k.normal_()
    engine.cache.v.normal_()

    def times(plan: Plan) -> list[float]:
        states = [GREEDY] * len(plan.entries)
        return timed(lambda: engine.execute(plan, states).read(), samples)

    note, rows = f"context {context}", []
    for batch in sizes:
        found = times(step(engine, batch, context))
        rows.append([batch, statistics.median(found), batch / statistics.median(found)])
        if batch in (1, 16, max(sizes)):
            r.value(f"step_b{batch}", found, unit="s", note=note)
            r.value(f"rate_b{batch}", [batch / t for t in found], unit="token/s", note=note)
    r.table("step_by_batch", [("batch", "request"), ("time", "s"), ("rate", "token/s")], rows)
    r.value("context", context, unit="")
    r.value("batch_gain", rows[-1][2] / rows[0][2], unit="")
    r.value("largest_batch", max(sizes), unit="")
    rows = []
    for prompt in prompts:
        found = times(step(engine, 15, context, prompt))
        rows.append([prompt, statistics.median(found)])
        if prompt in (0, max(prompts)):
            r.value("itl_alone" if prompt == 0 else "itl_with_prefill", found, unit="s",
                    note=f"15 decodes, context {context}")
    r.table("step_with_prefill", [("prompt", "token"), ("time", "s")], rows)
    r.value("prefill_tokens", max(prompts), unit="")
    r.value("itl_growth", rows[-1][1] / rows[0][1], unit="")
    plan = step(engine, 32, min(context, needed * BLOCK // 32 // BLOCK * BLOCK))
    spans = [runner.Span(e.request.tokens[e.start :], e.start, e.request.block_table, True)
             for e in plan.entries]
    r.value("pack_time", timed(lambda: runner.pack(spans, BLOCK), 10 * samples), unit="s",
            note="32 decoding requests")


def masks(r: results.Recorder, samples: int) -> None:
    """Compile a schema, find the mask at each place of a document, apply 32 of them."""
    from benchmarks.batching import DOCUMENT, SCHEMA
    from infero.loading import load

    model = load(device="cpu")
    tokenizer, vocab = model.tokenizer, model.config.vocab_size
    assert tokenizer is not None

    def fresh() -> grammar.GrammarMatcher:
        tokenizer.__dict__.pop("_grammars", None)
        return grammar.compile(tokenizer, vocab, model.config.eos_token_ids, json_schema=SCHEMA)

    r.value("mask_first_compile", timed(fresh, 3), unit="s", note="tokenizer and schema")
    fresh()
    again = timed(lambda: grammar.compile(tokenizer, vocab, model.config.eos_token_ids,
                                          json_schema=SCHEMA), samples)
    r.value("mask_next_matcher", again, unit="s", note="schema compiled before")
    found: list[float] = []
    for _ in range(samples):
        matcher = grammar.compile(tokenizer, vocab, model.config.eos_token_ids, json_schema=SCHEMA)
        for token in tokenizer.encode(DOCUMENT):
            start = time.perf_counter()
            matcher.bitmask()
            found.append(time.perf_counter() - start)
            matcher.accept(token)
    r.value("mask_time", found, unit="s", note="one row of bits, over a document")
    r.value("mask_time_mean", statistics.fmean(found), unit="s")
    bits = torch.randint(-2**31, 2**31, (32, grammar.words(vocab))).to(torch.int32)
    logits = torch.randn(32, vocab)
    r.value("mask_apply", timed(lambda: sampling.token_mask(logits, bits), samples), unit="s",
            note="32 rows on the CPU")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching_steps",
                                     description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    with results.record("batching_steps", argv=given, out=args.out, device=args.device) as r:
        if args.device == "cuda":
            model = random_model(SMOKE if args.smoke else LLAMA, dtype=torch.bfloat16,
                                 device="cuda")
            sizes = (1, 4, 16) if args.smoke else (1, 2, 4, 8, 16, 32, 64, 128, 256)
            steps(r, model, sizes, 64 if args.smoke else 512,
                  (0, 64) if args.smoke else (0, 128, 256, 512, 1024, 2048),
                  2 if args.smoke else 10)
            return
        if args.smoke:
            steps(r, random_model(SMOKE), (1, 4, 16), 64, (0, 64), 2)
        else:
            from infero.loading import load

            steps(r, load(device="cpu"), (1, 2, 4, 8, 16, 32, 64), 128,
                  (0, 32, 64, 128, 256, 512), 9)
        masks(r, 2 if args.smoke else 30)


if __name__ == "__main__":
    main(sys.argv[1:])
