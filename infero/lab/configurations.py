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


def _in_format(to: Callable[[Any], Any], model: Model | None = None) -> None:
    """Four tokens of a tiny model whose layers' matrices went through `to`."""
    import dataclasses

    from infero.llm import LLM
    from infero.quant.fold import MATRICES
    from infero.sampling import SamplingParams

    model = model or tiny_model()
    layers = [dataclasses.replace(layer, **{n: to(getattr(layer, n)) for n in MATRICES})
              for layer in model.layers]
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    rounded = dataclasses.replace(model, layers=layers)
    LLM(rounded, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)


def eight_bits() -> None:
    """The engine on int8 weights, with an embedding that was rounded and came back."""
    import dataclasses

    from infero.quant import affine, codes

    model = tiny_model()
    embedding = affine.fake_quantize(model.embedding, 8, granularity="channel", symmetric=False)
    _in_format(lambda weight: codes.pack(affine.rtn(weight, 8), weight.dtype),
               dataclasses.replace(model, embedding=embedding))


def w8a8() -> None:
    """The engine on int8 weights and activations, smoothed by what a few tokens showed."""
    import dataclasses

    import torch

    from infero.kernels import formats_dynamic
    from infero.quant import calibration, outliers

    model = tiny_model()
    model = dataclasses.replace(model, layers=[dataclasses.replace(x) for x in model.layers])
    ids = torch.randint(0, 32, (2, 8), generator=torch.Generator().manual_seed(0))
    hidden = calibration.embed(model, ids)
    for index, layer in enumerate(model.layers):
        stats = calibration.layer_stats(model, index, hidden, hessian=False)
        outliers.smooth(model.config, layer, stats)
        hidden = calibration.advance(model, index, hidden)
    _in_format(formats_dynamic.quantize_w8a8, model)


def e4m3() -> None:
    """The engine on weights of eight-bit floats."""
    from infero.quant import floats

    _in_format(floats.weight_e4m3)


def blocks() -> None:
    """The engine on weights that were packed as GGUF's blocks and came back."""
    from infero.quant import blocks as module

    def through(weight: Any) -> Any:
        return module.decode(module.encode(weight, "Q4_1"), "Q4_1").to(weight.dtype)

    _in_format(through, block_model())


@cache
def block_model() -> Model:
    """Like `tiny_model`, with an inner size that divides into blocks of 32."""
    import dataclasses

    from infero.model import random_model

    config = dataclasses.replace(tiny_model().config, intermediate_size=64)
    return random_model(config, seed=1)


def _quantized(method: str, **settings: Any) -> None:
    """Two tokens of the tiny model after a method of chapter 5, calibrated on random tokens."""
    import torch

    from infero.llm import LLM
    from infero.quant.quantizer import Settings, quantize_model
    from infero.sampling import SamplingParams

    ids = torch.randint(0, 32, (4, 16), generator=torch.Generator().manual_seed(0))
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    model = quantize_model(tiny_model(), Settings(method, length=16, **settings), ids)
    LLM(model, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)


def four_bits_gptq() -> None:
    """The engine on 4-bit weights chosen by GPTQ."""
    _quantized("gptq", bits=4, group=32)


def four_bits_awq() -> None:
    """The engine on 4-bit weights after AWQ's search."""
    _quantized("awq", bits=4, group=32)


def four_bits_trained() -> None:
    """One step of training through the rounding, and the engine on what came out."""
    import torch

    from infero.quant import affine, codes, qat

    def trained(weight: Any) -> Any:
        first = affine.rtn(weight, 4)
        x = weight.clone().requires_grad_()
        with torch.enable_grad():
            loss = (qat.fake(x, first.scales, first.zeros, 4) - weight).square().sum()
            (gradient,) = torch.autograd.grad(loss, x)
        return codes.pack(affine.rtn(weight - 0.01 * gradient, 4), weight.dtype)

    _in_format(trained)


def mixed_bits() -> None:
    """The engine on a plan of mixed precision."""
    _quantized("mixed", budget_bits=3.5, group=32)


def pruned() -> None:
    """Two layers as 2:4 by Wanda and SparseGPT, the better one of them alone, in the engine."""
    import torch

    from infero.compress import pruning, semi_structured, structured
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    ids = torch.randint(0, 32, (4, 16), generator=torch.Generator().manual_seed(0))
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    for method in ("wanda", "sparsegpt"):
        sparse = pruning.prune(tiny_model(), method, pattern=(2, 4), ids=ids)
        importance = structured.layer_importance(sparse, ids)
        smaller = semi_structured.sparsify(structured.drop_layers(sparse, 1, importance))
        LLM(smaller, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)


def distilled() -> None:
    """One training step of a student of one layer, which the engine then runs."""
    import torch

    from infero.compress import distill, structured
    from infero.llm import LLM
    from infero.sampling import SamplingParams

    teacher = tiny_model()
    student = distill.trainable(structured.keep_layers(teacher, [0]))
    optimizer = distill.optimizer_for(student, distill.Recipe())
    ids = torch.randint(0, 32, (2, 8), generator=torch.Generator().manual_seed(0))
    distill.step(student, teacher, ids, optimizer, temperature=2.0)
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    LLM(student, kv_memory_bytes=1 << 20).generate([1, 2, 3], params)


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
    "eight_bits": eight_bits,
    "w8a8": w8a8,
    "e4m3": e4m3,
    "blocks": blocks,
    "four_bits_gptq": four_bits_gptq,
    "four_bits_awq": four_bits_awq,
    "four_bits_trained": four_bits_trained,
    "mixed_bits": mixed_bits,
    "pruned": pruned,
    "distilled": distilled,
    "steps_matmul": steps_matmul,
    "lanes": lanes,
    "taped": taped,
}
