"""How fast the other engines on this machine are: what `infero bench compare` runs.

transformers in the ways a user would choose: `generate` as it comes, with its static cache and
compiled forward pass, and its continuous batching. vLLM, where it can be imported, in a process of
its own, because it takes the GPU for itself. Chapter 16 reads the numbers. Each peer is run as its
documentation says; nothing of infero depends on them.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from infero.bench_throughput import Job, Run, Seen
from infero.errors import InferoError
from infero.peers import PeerMissing

if TYPE_CHECKING:
    from infero.model import Model


WARM = 16  # tokens of a run that is not timed


class TokenClock:
    """A streamer: transformers calls it with each token it made, after waiting for the device."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def put(self, tokens: torch.Tensor) -> None:
        if tokens.dim() < 2:  # the first call brings the prompt
            self.times_s.append(time.perf_counter())

    def end(self) -> None:
        pass


@torch.inference_mode()
def transformers_alone(peer: Any, prompt: Sequence[int], new: int, runs: int, *,
                       static: bool = False, warm: int = 1) -> list[float]:
    """Seconds from the first to the last of `new` greedy tokens of one request, of each run.

    static: its cache of fixed size, with which transformers compiles the decode step on a GPU and
    captures it as a CUDA graph.
    """
    ids = torch.tensor([list(prompt)], device=peer.device)
    options: dict[str, Any] = {"cache_implementation": "static"} if static else {}
    found = []
    for run in range(warm + runs):
        clock = TokenClock()
        made = min(new, WARM) if run < warm and not static else new  # its cache has one size
        peer.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                      max_new_tokens=made, min_new_tokens=made, streamer=clock, **options)
        if len(clock.times_s) != made:
            raise InferoError(f"transformers made {len(clock.times_s)} of {made} tokens.")
        found.append(clock.times_s[-1] - clock.times_s[0])
    return found[warm:]


# ---------------------------------------------------------------- continuous batching


def has_flash_attention() -> str:
    """The FlashAttention package that transformers would find here, or nothing."""
    for name in ("flash_attn_interface", "flash_attn"):
        if importlib.util.find_spec(name) is not None:
            return name
    return ""


def continuous_problem(peer: Any) -> str:
    """Why transformers' continuous batching cannot run here, or nothing."""
    if not hasattr(peer, "init_continuous_batching"):
        return "this transformers has no continuous batching"
    return ""


def transformers_continuous(peer: Any, job: Job, limit_s: float, *, seen: Seen | None = None
                            ) -> Run:
    """The job through transformers' continuous batching, stopped after `limit_s`.

    With sdpa it is slow and tokens are streamed, so that those of unfinished requests count when
    time is up; with FlashAttention a request is counted when it ends.
    """
    if problem := continuous_problem(peer):
        raise PeerMissing(problem)
    from transformers import GenerationConfig

    flash = has_flash_attention()
    draw: dict[str, Any] = (dict(do_sample=True, temperature=job.temperature, top_k=0)
                            if job.temperature else dict(do_sample=False))
    config = GenerationConfig(eos_token_id=-1, pad_token_id=0, max_new_tokens=max(job.lengths),
                              **draw)
    options: dict[str, Any] = {"generation_config": config}
    before = peer.config._attn_implementation
    extra = _continuous_config(bool(flash), job if peer.device.type == "cpu" else None)
    if extra is not None:
        options["continuous_batching_config"] = extra
    run = Run(f"transformers, continuous batching ({flash or 'sdpa'})", len(job.prompts))
    known = inspect.signature(peer.init_continuous_batching).parameters
    manager = peer.init_continuous_batching(**{k: v for k, v in options.items() if k in known})
    try:
        if hasattr(manager, "warmup"):
            manager.warmup()
        manager.start()
        _drain(manager, Job(job.prompts[:2], [2, 2], job.temperature), not flash, limit_s,
               Run("", 2), None, "warm")
        start_s = time.perf_counter()
        try:
            _drain(manager, job, not flash, limit_s, run, seen, "job")
        except KeyboardInterrupt:
            run.stopped = "Ctrl-C"
        run.duration_s = time.perf_counter() - start_s
    finally:
        _stop(manager, [f"job-{i}" for i in range(len(job.prompts))])
        if peer.config._attn_implementation != before:
            peer.set_attn_implementation(before)
    return run


def _continuous_config(flash: bool, small: Job | None) -> Any:
    """Its configuration: no search for kernels on the hub, because a benchmark needs no network.

    small: a job on a CPU, where its cache would otherwise fill the machine's memory.
    """
    try:
        from transformers import ContinuousBatchingConfig
    except ImportError:
        return None
    wanted: dict[str, Any] = {"auto_switch_to_flash": flash}
    if small is not None:
        wanted |= {"num_blocks": 2 * len(small.prompts) * (1 + small.longest // 256),
                   "max_batch_tokens": 512}
    known = ContinuousBatchingConfig.__dataclass_fields__
    return ContinuousBatchingConfig(**{k: v for k, v in wanted.items() if k in known})


def _drain(manager: Any, job: Job, streaming: bool, limit_s: float, run: Run, seen: Seen | None,
           name: str) -> None:
    """Queue all requests and take what comes until the last has ended or time is up."""
    for i, prompt in enumerate(job.prompts):
        manager.add_request(list(prompt), request_id=f"{name}-{i}", max_new_tokens=job.lengths[i],
                            streaming=streaming)
    made: dict[str, int] = {}
    ended, start_s = 0, time.perf_counter()
    while ended < len(job.prompts):
        if time.perf_counter() - start_s > limit_s:
            run.stopped = f"time limit of {limit_s:g} s"
            break
        output = manager.get_result(timeout=0.1)
        if output is None:
            if not manager.is_running():
                raise PeerMissing("its generation thread ended: this machine or model is not for "
                                  "it.")
            continue
        if output.error is not None:
            raise PeerMissing(f"its continuous batching failed: {str(output.error)[:200]}")
        if not output.request_id.startswith(name):
            continue
        made[output.request_id] = len(output.generated_tokens)
        ended += output.is_finished()
        run.requests, run.tokens = ended, sum(made.values())
        if seen is not None:
            seen(run.requests, run.tokens)


def _stop(manager: Any, ids: Sequence[str]) -> None:
    """End the manager without waiting for requests that nobody wants any more."""
    for id in ids:
        manager.cancel_request(id)
    known = inspect.signature(manager.stop).parameters
    options = {k: v for k, v in {"hard_stop": True, "timeout": 20.0}.items() if k in known}
    manager.stop(block=True, **options)


# ---------------------------------------------------------------- vLLM

VLLM = """
import json, sys, time
from vllm import LLM, SamplingParams, TokensPrompt
given = json.load(open(sys.argv[1]))
llm = LLM(model=given["folder"], load_format="dummy", skip_tokenizer_init=True,
          dtype=given["dtype"], max_model_len=given["longest"], enable_prefix_caching=False)
def params(n, t=0.0):
    return SamplingParams(temperature=t, max_tokens=n, ignore_eos=True, detokenize=False)
def timed(prompts, lengths, t):
    start = time.perf_counter()
    llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts],
                 [params(n, t) for n in lengths], use_tqdm=False)
    return time.perf_counter() - start
one, new = given["prompt"], given["new"]
timed([one], [8], 0.0)
alone = []
for _ in range(given["runs"]):  # decoding only: the time of the first token is taken off
    first = timed([one], [1], 0.0)
    alone.append(timed([one], [new], 0.0) - first)
timed(given["prompts"][:8], [8] * 8, given["temperature"])
batch = timed(given["prompts"], given["lengths"], given["temperature"])
print("INFERO" + json.dumps({"alone": alone, "batch": batch}))
"""


def has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def vllm_times(model: Model, config: Any, prompt: Sequence[int], new: int, runs: int, job: Job
               ) -> tuple[list[float], float]:
    """Seconds of one request's decoding, each run, and of the whole job, in vLLM.

    Its weights are random ones of the same shape and dtype: speed does not depend on the values.
    `config` is transformers' configuration of the model. The GPU must be free of ours.
    """
    if not has_vllm():
        raise PeerMissing("vLLM is not installed: pip install vllm.")
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        given = dict(folder=folder, dtype=str(model.dtype).removeprefix("torch."), new=new,
                     prompt=list(prompt), runs=runs, prompts=job.prompts, lengths=job.lengths,
                     temperature=job.temperature, longest=max(job.longest, len(prompt) + new) + 8)
        path = Path(folder) / "given.json"
        path.write_text(json.dumps(given), encoding="utf-8")
        done = subprocess.run([sys.executable, "-c", VLLM, str(path)], text=True, check=False,
                              capture_output=True, timeout=600, env=dict(os.environ))
    lines = [line for line in done.stdout.splitlines() if line.startswith("INFERO")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PeerMissing(f"vLLM did not run here: {last[:200]}")
    said = json.loads(lines[-1].removeprefix("INFERO"))
    return [float(t) for t in said["alone"]], float(said["batch"])
