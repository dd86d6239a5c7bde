"""SmolLM2 on this CPU: how long loading takes, and tokens a second beside transformers.

    python -m benchmarks.generate_cpu [--tokens 64] [--runs 5] [--smoke] [--out DIR]

Loading is timed in fresh processes, from `import infero` to a model that is ready, with torch
already imported: the first load decodes the GGUF file into an empty cache, a warm load maps what
it left. Then one greedy continuation is timed in four ways on the same weights: infero's naive
loop that recomputes the sequence for every token, its loop over a contiguous cache, its engine over
a paged one, and transformers' `generate` with its dynamic cache. They take turns, so that a busy
moment meets all alike, and their tokens are compared before anything is timed.

Last, where one step goes: a decode step with a clock around each kind of operation, beside the
bytes of weights that it reads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import infero
from infero import generate, kernels, results
from infero import model as model_module
from infero.cache import contiguous, kv
from infero.llm import LLM
from infero.loading.source import DEFAULT_MODEL
from infero.model import Model
from infero.sampling import SamplingParams

PROMPT = "Decoding one token reads every weight of the model once, and therefore"
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}

LOAD = """
import json, sys, time, torch
start = time.perf_counter()
import infero
model = infero.load(dtype=sys.argv[1], device="cpu")
ready_s = time.perf_counter() - start
print(json.dumps(ready_s))
"""
LOAD_PEER = """
import json, sys, time, torch
start = time.perf_counter()
from transformers import AutoModelForCausalLM, logging
logging.disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=sys.argv[1])
print(json.dumps(time.perf_counter() - start))
"""


def in_new_process(program: str, *args: str, **environment: str) -> float:
    """Run a program in a fresh interpreter; the number that it prints last."""
    environment = {"PYTHONPATH": str(Path(infero.__file__).parents[1]), **environment}
    done = subprocess.run([sys.executable, "-c", program, *args], check=True, text=True,
                          stdout=subprocess.PIPE, env=os.environ | environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def load_times_s(dtype: str, first: int, warm: int) -> tuple[list[float], list[float]]:
    """Seconds until ready: of loads into an empty cache, and of loads from a filled one."""
    cold, hot = [], []
    for _ in range(first):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(in_new_process(LOAD, dtype, INFERO_CACHE=cache, INFERO_MODEL=""))
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(1 + warm):
            hot.append(in_new_process(LOAD, dtype, INFERO_CACHE=cache, INFERO_MODEL=""))
    return cold, hot[1:]


def transformers_peer(model: Model) -> torch.nn.Module:
    """transformers' Llama over the very same weights (views of ours, no copy)."""
    import transformers

    transformers.logging.disable_progress_bar()
    c = model.config
    with torch.device("meta"):
        peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, num_hidden_layers=c.num_layers,
            intermediate_size=c.intermediate_size, num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads, head_dim=c.head_dim, rms_norm_eps=c.norm_eps,
            max_position_embeddings=c.max_context, tie_word_embeddings=True, dtype=model.dtype,
            rope_parameters=dict(rope_type="default", rope_theta=c.rope_theta),
            bos_token_id=1, eos_token_id=None, pad_token_id=0))
    state = {"model.embed_tokens.weight": model.embedding, "lm_head.weight": model.embedding,
             "model.norm.weight": model.final_norm}
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    for i, layer in enumerate(model.layers):
        q, k, v = layer.qkv.split(sizes)
        gate, up = layer.gate_up.chunk(2)
        named = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                 "self_attn.o_proj": layer.o, "mlp.gate_proj": gate, "mlp.up_proj": up,
                 "mlp.down_proj": layer.down, "input_layernorm": layer.input_norm,
                 "post_attention_layernorm": layer.post_norm}
        state |= {f"model.layers.{i}.{name}.weight": weight for name, weight in named.items()}
    peer.load_state_dict(state, assign=True)
    peer.model.rotary_emb = type(peer.model.rotary_emb)(peer.config)  # its table was "meta" too
    return peer.eval()


def agreeing(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens are the same before the first that differs."""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return i
    return len(ours)


def ways_of(model: Model, tokens: int) -> dict[str, Callable[[], list[int]]]:
    """The four ways to continue the prompt greedily by `tokens` tokens."""
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode(PROMPT)
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    peer, llm = transformers_peer(model), LLM(model, kv_memory_bytes=64 << 20)

    def theirs() -> list[int]:
        ids = torch.tensor([prompt])
        out = peer.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                            max_new_tokens=tokens)
        return out[0, len(prompt):].tolist()

    return {
        "naive": lambda: list(generate.stream(model, prompt, params, use_cache=False)),
        "cached": lambda: list(generate.stream(model, prompt, params)),
        "engine": lambda: llm.generate([prompt], params)[0].tokens,
        "transformers": theirs,
    }


# ---------------------------------------------------------------- where a step goes

PARTS = {  # label -> the function that the forward pass calls for it
    "matrix products": (kernels, "linear"),
    "attention": (kernels, "attention"),
    "RMS norm": (kernels, "rms_norm"),
    "cache write": (kv, "write"),
    "rotary embedding": (kernels, "rope"),
    "SwiGLU": (kernels, "swiglu"),
}
REST = "everything else"


class Clocks:
    """Seconds and calls inside each function of PARTS, while the block runs."""

    def __enter__(self) -> Clocks:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = dict.fromkeys(PARTS, 0)
        self._before = {label: getattr(*place) for label, place in PARTS.items()}
        for label, (module, name) in PARTS.items():
            setattr(module, name, self._timed(label, self._before[label]))
        return self

    def __exit__(self, *problem: object) -> None:
        for label, (module, name) in PARTS.items():
            setattr(module, name, self._before[label])

    def _timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            out = function(*args)
            self.seconds[label] += time.perf_counter() - start
            self.calls[label] += 1
            return out

        return call


def step_parts(model: Model, context: int, steps: int
               ) -> tuple[list[float], dict[str, list[float]], dict[str, int]]:
    """One request's decode step at `context` tokens, `steps` times.

    Returns the seconds of each step without clocks inside, then, from as many steps with them,
    the seconds of each part, and the calls of each part in a step.
    """
    cache = contiguous.allocate(model.config, 1, context, model.dtype, model.device)
    token, last = torch.tensor([17]), torch.tensor([0])

    def step() -> float:
        batch = contiguous.next_batch(cache, [context - 1], [1])
        start = time.perf_counter()
        model_module.forward(model, token, batch, cache, last)
        return time.perf_counter() - start

    step()
    whole, parts = [], dict[str, list[float]]()
    for _ in range(steps):
        whole.append(step())
        with Clocks() as clocks:
            total = step()
        for label, seconds in clocks.seconds.items():
            parts.setdefault(label, []).append(seconds)
        parts.setdefault(REST, []).append(total - sum(clocks.seconds.values()))
    return whole, parts, clocks.calls


def record_step(r: results.Recorder, name: str, model: Model, context: int, steps: int) -> None:
    """The table `step.DTYPE` and the bandwidth at which a step reads the weights."""
    whole, parts, calls = step_parts(model, context, steps)
    step_s = r.value(f"step.{name}", whole, unit="s",
                     note=f"one decode step of one request, {context} tokens in the cache")
    rows = [(label, calls.get(label), statistics.median(times)) for label, times in parts.items()]
    clocked_s = sum(seconds for _, _, seconds in rows)
    r.table(f"step.{name}", [("part", ""), ("calls", ""), ("seconds", "s"), ("share", "")],
            [[label, count, seconds, seconds / clocked_s] for label, count, seconds in rows])
    read = sum(t.nbytes for layer in model.layers for t in vars(layer).values() if t is not None)
    read += model.head.nbytes + model.final_norm.nbytes
    inside_s = statistics.median(parts["matrix products"])
    r.value(f"step_bandwidth.{name}", read / step_s, unit="byte/s", note="weights read / step")
    r.value(f"product_bandwidth.{name}", read / inside_s, unit="byte/s",
            note="weights read / time inside the matrix products")
    r.value(f"product_share.{name}", inside_s / clocked_s, unit="",
            note="of a step's time, with a clock around every operation")
    print(f"{name} step: {step_s * 1e3:.1f} ms, {read / step_s / 1e9:.1f} GB/s; products "
          f"{inside_s / clocked_s:.0%} at {read / inside_s / 1e9:.1f} GB/s", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each continuation")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each loop")
    parser.add_argument("--smoke", action="store_true", help="a few tokens, to see that it works")
    parser.add_argument("--out", help="folder for the results (default: results/)")
    args = parser.parse_args(argv)
    tokens, runs = (4, 2) if args.smoke else (args.tokens, args.runs)
    first, warm = (1, 1) if args.smoke else (3, 5)

    with results.record("generate_cpu", argv=argv, out=args.out, device="cpu") as r:
        for name, dtype in DTYPES.items():
            print(f"{name}: loading in fresh processes …", file=sys.stderr)
            cold, hot = load_times_s(dtype, first, warm)
            r.value(f"first_load.{name}", cold, unit="s", note="GGUF decoded, cache written")
            r.value(f"warm_load.{name}", hot, unit="s", note="mapped from the cache")

            model = infero.load(DEFAULT_MODEL, dtype=dtype, device="cpu")
            r.value(f"weights.{name}", model.parameter_bytes(), unit="byte")
            start = time.perf_counter()
            packed_bytes = kernels.prepare(model)
            r.value(f"pack.{name}", time.perf_counter() - start, unit="s",
                    note="weights copied once into the layout that products read in sequence")
            r.value(f"packed.{name}", packed_bytes, unit="byte", note="their second copy")
            ways = ways_of(model, tokens)
            out = {way: run() for way, run in ways.items()}  # warm-up and comparison in one
            same = agreeing(out["cached"], out["transformers"])
            ours = all(out[way] == out["cached"] for way in ("naive", "engine"))
            if name == "fp32" and (same < tokens or not ours):
                raise RuntimeError(f"In float32 only {same} of {tokens} greedy tokens equal "
                                   "transformers': find the mistake before timing anything.")
            r.value(f"same_tokens.{name}", same, unit="token",
                    note=f"of {tokens} greedy tokens, equal to transformers' from the start")
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for i in range(runs):
                for way, run in ways.items():
                    start = time.perf_counter()
                    run()
                    seconds[way].append(time.perf_counter() - start)
                print(f"{name}: run {i + 1} of {runs}", file=sys.stderr)
            for way, times in seconds.items():
                rate = r.value(f"{way}.{name}", [tokens / s for s in times], unit="token/s",
                               note=f"one request, {tokens} new tokens, prefill included")
                print(f"{name} {way:>12}: {rate:6.1f} tokens/s", file=sys.stderr)
            for way in ("cached", "engine"):
                r.value(f"gain.{way}.{name}", [theirs / mine for theirs, mine in zip(
                        seconds["transformers"], seconds[way], strict=True)], unit="",
                        note="transformers' time over ours, run by run")
            record_step(r, name, model, 128, 4 if args.smoke else 100)
            with tempfile.TemporaryDirectory() as folder:
                transformers_peer(model).save_pretrained(folder)
                peer = [in_new_process(LOAD_PEER, dtype, folder) for _ in range(warm)]
            r.value(f"transformers_load.{name}", peer, unit="s",
                    note="from_pretrained of a safetensors folder, its imports included")
            print(f"{name} load: first {sorted(cold)[len(cold) // 2]:.2f} s, warm "
                  f"{sorted(hot)[len(hot) // 2]:.2f} s, transformers "
                  f"{sorted(peer)[len(peer) // 2]:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
