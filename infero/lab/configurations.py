"""Engine runs that really call each piece: `CONFIGURATIONS[piece.configuration]()`.

Each runs the engine itself, on a random model of a few thousand weights made here, so it needs no
file and takes milliseconds. A test counts that every piece of the table is called by its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infero.model import Model


@cache
def tiny_model() -> Model:
    """Two layers, four query and two KV heads of 8, vocabulary 32; random weights, no tokenizer."""
    from infero.model import ModelConfig, random_model

    return random_model(
        ModelConfig(
            architecture="llama",
            vocab_size=32,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            max_context=64,
        ),
        seed=1,
    )


def generate(use_cache: bool, temperature: float = 0.0) -> list[int]:
    """Six tokens of the tiny model after a prompt of three."""
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    params = SamplingParams(
        temperature=temperature, top_k=8, top_p=0.9, seed=3, max_tokens=6, ignore_eos=True
    )
    return LLM(tiny_model(), use_cache=use_cache).generate([1, 2, 3], params)[0].tokens


def naive() -> None:
    """Chapter 1's engine: greedy, everything recomputed for every token."""
    generate(use_cache=False)


def cached() -> None:
    """Greedy with the contiguous KV cache, one request alone."""
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    LLM(tiny_model(), paged=False).generate([1, 2, 3], params)


def paged() -> None:
    """The engine: two samples of a prompt share its blocks, and a second prompt its prefix."""
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    llm = LLM(tiny_model(), block_size=4, kv_memory_bytes=1 << 20)
    params = SamplingParams(n=2, seed=3, max_tokens=6, ignore_eos=True)
    prompt = list(range(10))
    llm.generate(prompt, params)
    llm.generate([prompt, [*prompt, 7]], params)


def constrained() -> None:
    """Two requests at once, one of which may only use some tokens."""
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    free = SamplingParams(seed=3, max_tokens=6, ignore_eos=True)
    bound = SamplingParams(seed=3, max_tokens=6, ignore_eos=True, allowed_token_ids=[4, 9, 31])
    LLM(tiny_model(), kv_memory_bytes=1 << 20).generate([[1, 2, 3], [1, 2, 3]], [free, bound])


def batching() -> None:
    """The ideal gain that `infero bench throughput` prints beside the measured one."""
    from infero import batching as module

    module.ideal_gain([4, 9, 2, 7, 3, 8, 5, 2], slots=4)


def scheduled(**config: Any) -> None:
    """Four requests through an engine that holds two of them at a time."""
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    llm = LLM(tiny_model(), block_size=4, max_num_seqs=2, max_num_batched_tokens=16, **config)
    llm.generate([[i] * 6 for i in range(1, 5)], params)


def sjf() -> None:
    """Shortest job first, two requests at a time."""
    scheduled(policy="sjf", num_blocks=32)


def priority() -> None:
    """By priority, two requests at a time."""
    scheduled(policy="priority", num_blocks=32)


def tight() -> None:
    """A pool of four blocks of four: two requests start, and one of them must be preempted."""
    scheduled(num_blocks=4, watermark=0.0)


def sampled() -> None:
    """With the cache, temperature 0.8, top-k 8 and top-p 0.9."""
    generate(use_cache=True, temperature=0.8)


def roofline() -> None:
    """The table of `infero roofline` for a card of the datasheet table."""
    from infero import roofline as module

    module.main_table("llama-3-8b", "h100", batch=(1, 64), context=512)


def bench() -> None:
    """`infero bench` on the tiny model: a timer, an open and a closed load, and their table."""
    from infero import bench_engine
    from infero.llm import LLM

    llm = LLM(tiny_model())
    work = bench_engine.Workload(4, prompt_tokens=3, new_tokens=3)
    bench_engine.service(llm, work, min_time_s=0.0)
    bench_engine.open_load(llm, work, 500.0).percentile("e2e_s", 95)
    bench_engine.closed_load(llm, work, 2)


def mla() -> None:
    """Six tokens of a tiny model with latent attention, decoded over its latent cache."""
    from infero import mla as module

    config = module.MLAConfig(layers=2, hidden=16, heads=2, dim=4, rope_dim=4, v_dim=6, rank=5)
    module.greedy(module.random_model(config), [1, 2, 3], 6, absorbed=True)


def lanes() -> None:
    """The two lanes of a decode step, as the benchmark of launches predicts it."""
    from infero import lanes as module

    module.predict(150, 1e-3, module.Costs(launch_s=5e-6, graph_s=1e-5, gap_s=1e-6))
    module.step_gain(plan_s=3e-4, run_s=1e-3, steps=8)


def taped() -> None:
    """Three requests decode from captured steps, and the batch shrinks from bucket to bucket."""
    from infero import taped as module

    module.greedy(tiny_model(), [[1, 2, 3], [4, 5], [6]], [4, 6, 2], block_size=4)


def steps_elementwise() -> None:
    """The engine on the labs' kernels for norm, activation and rotation (chapter 13)."""
    from infero.kernels import language
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    language.need()
    params = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    llm = LLM(tiny_model(), kernels="steps", block_size=4, kv_memory_bytes=1 << 20)
    llm.generate([1, 2, 3], params)


def steps_attention() -> None:
    """The engine on the labs' attention: two samples of a prompt share two blocks (chapter 14)."""
    from infero.kernels import language
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    language.need()
    params = SamplingParams(n=2, seed=3, max_tokens=3, ignore_eos=True)
    llm = LLM(tiny_model(), kernels="steps", block_size=4, kv_memory_bytes=1 << 20)
    llm.generate(list(range(10)), params)


def steps_matmul() -> None:
    """The engine on the lab's products for 8-bit and 4-bit weights, and a prompt beyond them."""
    import torch

    from infero.kernels import formats, language
    from infero.kernels.steps import matmul as module
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    language.need()
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    for kind in ("int8", "int4"):
        llm = LLM(tiny_model(), kernels="steps", quantization=kind, block_size=4,
                  kv_memory_bytes=1 << 20)
        llm.generate([1, 2, 3], params)
    long = torch.ones(module.crossover_batch(5, module.INSTRUCTIONS, module.H100), 32)
    module.linear(long, formats.quantize(torch.ones(8, 32), "int4", 32))


def coalescing() -> None:
    """The bandwidth that chapter 13 expects of an access pattern."""
    from infero.kernels.steps import coalescing as module

    module.bandwidth(range(0, 64, 2), 4, 3e12)


CONFIGURATIONS: dict[str, Callable[[], None]] = {
    "naive": naive,
    "cached": cached,
    "paged": paged,
    "constrained": constrained,
    "batching": batching,
    "sjf": sjf,
    "priority": priority,
    "tight": tight,
    "sampled": sampled,
    "roofline": roofline,
    "bench": bench,
    "mla": mla,
    "steps_elementwise": steps_elementwise,
    "steps_attention": steps_attention,
    "coalescing": coalescing,
    "steps_matmul": steps_matmul,
    "lanes": lanes,
    "taped": taped,
}
