"""The table of pieces: every function of the engine that a lab has the learner write.

One row a piece. The labs, the command line, the answer-key appendix, the instructors' export and
the tests all read this table, and nothing else lists the pieces. It imports nothing heavy, so it
can be read as data. A piece is a top-level function of an engine module; engine code reaches it
only as `module.name` at call time, which is what lets a learner's function take its place.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Lab:
    """One lab: its number, the stem that notebook and chapter share, and a learner's time."""

    number: str
    stem: str
    title: str
    minutes: int


@dataclass(frozen=True)
class Piece:
    """One row: the function, where it is taught, what checks it and what runs it.

    `contract` grows when the meaning of the arguments or of the result changes: a saved piece with
    another number is skipped. `check` is "module:function". `configuration` names an entry of
    `infero.lab.configurations` whose engine run really calls the piece.
    """

    name: str
    lab: str
    exercise: str
    title: str
    check: str
    configuration: str
    contract: int = 1
    points: int = 10

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def attribute(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def label(self) -> str:
        return f"Lab {int(self.lab)}, exercise {self.exercise}"


LABS: tuple[Lab, ...] = (
    Lab("01", "01_from_prompt_to_token", "From prompt to token", minutes=100),
    Lab("02", "02_gpus_and_the_memory_wall", "GPUs and the memory wall", minutes=75),
    Lab("03", "03_measuring_honestly", "Measuring honestly", minutes=90),
    Lab("04", "04_eight_bits", "Eight bits", minutes=90),
    Lab("05", "05_four_bits", "Four bits", minutes=110),
    Lab("06", "06_pruning_and_distillation", "Pruning and distillation", minutes=90),
    Lab("07", "07_the_kv_cache", "The KV cache", minutes=80),
    Lab("08", "08_paged_attention", "PagedAttention and prefix caching", minutes=90),
    Lab("10", "10_continuous_batching", "Continuous batching", minutes=80),
    Lab("11", "11_scheduling", "Scheduling", minutes=80),
    Lab("13", "13_triton", "Programming the GPU with Triton", minutes=100),
    Lab("14", "14_flash_attention", "FlashAttention", minutes=110),
    Lab("15", "15_quantized_kernels", "Quantized matmul kernels", minutes=100),
    Lab("16", "16_compilers_and_graphs", "Compilers and graphs", minutes=80),
)

_LAB01 = "infero.lab.checks.lab01"
_LAB02 = "infero.lab.checks.lab02"
_LAB03 = "infero.lab.checks.lab03"
_LAB04 = "infero.lab.checks.lab04"
_LAB05 = "infero.lab.checks.lab05"
_LAB06 = "infero.lab.checks.lab06"
_LAB07 = "infero.lab.checks.lab07"
_LAB08 = "infero.lab.checks.lab08"
_LAB10 = "infero.lab.checks.lab10"
_LAB11 = "infero.lab.checks.lab11"
_LAB13 = "infero.lab.checks.lab13"
_LAB14 = "infero.lab.checks.lab14"
_LAB15 = "infero.lab.checks.lab15"
_LAB16 = "infero.lab.checks.lab16"

PIECES: tuple[Piece, ...] = (
    # Lab 1: from prompt to token.
    Piece("infero.model.rms_norm", lab="01", exercise="1", check=f"{_LAB01}:rms_norm",
          title="Normalise by the root mean square", configuration="naive"),
    Piece("infero.model.rope", lab="01", exercise="2", check=f"{_LAB01}:rope",
          title="Rotate queries and keys by their position", configuration="naive"),
    Piece("infero.model.attention", lab="01", exercise="3", check=f"{_LAB01}:attention",
          title="Grouped-query causal attention", configuration="naive", points=20),
    Piece("infero.model.swiglu", lab="01", exercise="4", check=f"{_LAB01}:swiglu",
          title="The gated activation", configuration="naive"),
    Piece("infero.sampling.top_k", lab="01", exercise="5a", check=f"{_LAB01}:top_k",
          title="Keep the k most probable tokens", configuration="sampled"),
    Piece("infero.sampling.top_p", lab="01", exercise="5b", check=f"{_LAB01}:top_p",
          title="Keep the nucleus", configuration="sampled"),
    Piece("infero.generate.recompute_loop", lab="01", exercise="6",
          check=f"{_LAB01}:recompute_loop", title="The loop that makes text",
          configuration="naive"),
    # Lab 2: GPUs and the memory wall.
    Piece("infero.roofline.count_weights", lab="02", exercise="1",
          check=f"{_LAB02}:count_weights", title="Weights that every token meets",
          configuration="roofline"),
    Piece("infero.roofline.kv_bytes", lab="02", exercise="2", check=f"{_LAB02}:kv_bytes",
          title="Bytes of keys and values a step moves", configuration="roofline"),
    Piece("infero.roofline.step_flops", lab="02", exercise="3", check=f"{_LAB02}:step_flops",
          title="Operations of a step, prefill or decode", configuration="roofline", points=20),
    Piece("infero.roofline.roofline_time_s", lab="02", exercise="4",
          check=f"{_LAB02}:roofline_time_s", title="The roofline", configuration="roofline"),
    Piece("infero.roofline.critical_batch", lab="02", exercise="5",
          check=f"{_LAB02}:critical_batch", title="The batch at which decode turns compute-bound",
          configuration="roofline", points=15),
    # Lab 3: measuring honestly.
    Piece("infero.bench.time_it", lab="03", exercise="1", check=f"{_LAB03}:time_it",
          title="A trustworthy timer", configuration="bench", points=15),
    Piece("infero.bench.percentile", lab="03", exercise="2", check=f"{_LAB03}:percentile",
          title="Percentiles by linear interpolation", configuration="bench"),
    Piece("infero.bench.latency", lab="03", exercise="3a", check=f"{_LAB03}:latency",
          title="TTFT, TPOT and E2E from token times", configuration="bench"),
    Piece("infero.bench.goodput", lab="03", exercise="3b", check=f"{_LAB03}:goodput",
          title="Goodput under two limits", configuration="bench", points=5),
    Piece("infero.bench.open_loop", lab="03", exercise="4", check=f"{_LAB03}:open_loop",
          title="The open loop, counted from when a request was due", configuration="bench",
          points=15),
    Piece("infero.bench.closed_loop", lab="03", exercise="5", check=f"{_LAB03}:closed_loop",
          title="The closed loop of N clients", configuration="bench", points=15),
    # Lab 4: eight bits.
    Piece("infero.quant.affine.scale_and_zero", lab="04", exercise="1",
          check=f"{_LAB04}:scale_and_zero", title="A scale and a zero point for a range",
          configuration="eight_bits"),
    Piece("infero.quant.affine.quantize", lab="04", exercise="2a", check=f"{_LAB04}:quantize",
          title="Round to whole numbers", configuration="eight_bits"),
    Piece("infero.quant.affine.dequantize", lab="04", exercise="2b", check=f"{_LAB04}:dequantize",
          title="And back again", configuration="eight_bits", points=5),
    Piece("infero.quant.int8.quantize_tokens", lab="04", exercise="3",
          check=f"{_LAB04}:quantize_tokens", title="Round activations, token by token",
          configuration="w8a8", points=15),
    Piece("infero.quant.int8.multiply", lab="04", exercise="4", check=f"{_LAB04}:multiply",
          title="A product of bytes", configuration="w8a8", points=15),
    Piece("infero.quant.outliers.smoothing_factors", lab="04", exercise="5",
          check=f"{_LAB04}:smoothing_factors", title="Share an outlier with the weight",
          configuration="w8a8"),
    Piece("infero.quant.floats.to_e4m3", lab="04", exercise="6", check=f"{_LAB04}:to_e4m3",
          title="Eight bits that float", configuration="e4m3", points=20),
    # Lab 5: four bits.
    Piece("infero.quant.blocks.join_nibbles", lab="05", exercise="1a",
          check=f"{_LAB05}:join_nibbles", title="Two codes in a byte", configuration="blocks",
          points=5),
    Piece("infero.quant.blocks.decode_q4_1", lab="05", exercise="1b",
          check=f"{_LAB05}:decode_q4_1", title="Read the model's own four bits",
          configuration="blocks"),
    Piece("infero.quant.gptq.inverse_factor", lab="05", exercise="2",
          check=f"{_LAB05}:inverse_factor", title="The factor that holds every coefficient",
          configuration="four_bits_gptq"),
    Piece("infero.quant.gptq.quantize_block", lab="05", exercise="3",
          check=f"{_LAB05}:quantize_block", title="Round a column, hand its error on",
          configuration="four_bits_gptq", points=20),
    Piece("infero.quant.awq.search", lab="05", exercise="4", check=f"{_LAB05}:search",
          title="Which channels to enlarge", configuration="four_bits_awq", points=20),
    Piece("infero.quant.qat.straight_through", lab="05", exercise="5",
          check=f"{_LAB05}:straight_through", title="A gradient through the staircase",
          configuration="four_bits_trained"),
    Piece("infero.quant.sensitivity.choose", lab="05", exercise="6", check=f"{_LAB05}:choose",
          title="Share out a budget of bits", configuration="mixed_bits", points=20),
    # Lab 6: pruning and distillation.
    Piece("infero.compress.magnitude.keep_n_of_m", lab="06", exercise="1",
          check=f"{_LAB06}:keep_n_of_m", title="Keep n of every m", configuration="pruned"),
    Piece("infero.compress.wanda.scores", lab="06", exercise="2", check=f"{_LAB06}:scores",
          title="What a weight is multiplied by", configuration="pruned", points=5),
    Piece("infero.compress.sparsegpt.sweep", lab="06", exercise="3", check=f"{_LAB06}:sweep",
          title="Remove, and make up for it", configuration="pruned", points=20),
    Piece("infero.compress.semi_structured.compress", lab="06", exercise="4",
          check=f"{_LAB06}:compress", title="Two values and two positions",
          configuration="pruned", points=15),
    Piece("infero.compress.structured.block_influence", lab="06", exercise="5",
          check=f"{_LAB06}:block_influence", title="How far a layer turns its tokens",
          configuration="pruned"),
    Piece("infero.compress.distill.kd_loss", lab="06", exercise="6", check=f"{_LAB06}:kd_loss",
          title="The loss of a student", configuration="distilled", points=15),
    # Lab 7: the KV cache.
    Piece("infero.cache.kv.write", lab="07", exercise="1", check=f"{_LAB07}:write",
          title="Store keys and values in their slots", configuration="cached"),
    Piece("infero.cache.contiguous.next_batch", lab="07", exercise="2",
          check=f"{_LAB07}:next_batch", title="Positions and slots of a step",
          configuration="cached", points=20),
    Piece("infero.generate.cached_loop", lab="07", exercise="3", check=f"{_LAB07}:cached_loop",
          title="The loop that feeds only the newest token", configuration="cached"),
    Piece("infero.cache.memory.kv_bytes_per_token", lab="07", exercise="4",
          check=f"{_LAB07}:kv_bytes_per_token", title="What a token costs in memory",
          configuration="paged"),
    Piece("infero.mla.absorbed_attention", lab="07", exercise="5",
          check=f"{_LAB07}:absorbed_attention",
          title="Latent attention without expanding the cache", configuration="mla", points=20),
    # Lab 8: PagedAttention and prefix caching.
    Piece("infero.cache.pool.slots_of", lab="08", exercise="1", check=f"{_LAB08}:slots_of",
          title="Where a token lives: slots from a block table", configuration="paged"),
    Piece("infero.cache.pool.allocate", lab="08", exercise="2a", check=f"{_LAB08}:allocate",
          title="Take blocks from the pool", configuration="paged", points=15),
    Piece("infero.cache.pool.release", lab="08", exercise="2b", check=f"{_LAB08}:release",
          title="Give blocks back, in the right order", configuration="paged", points=15),
    Piece("infero.cache.pool.chain", lab="08", exercise="3", check=f"{_LAB08}:chain",
          title="Name a block by all that led to it", configuration="paged", points=15),
    Piece("infero.cache.pool.match_prefix", lab="08", exercise="4",
          check=f"{_LAB08}:match_prefix", title="Find a prefix that is cached",
          configuration="paged"),
    Piece("infero.cache.pool.copy_on_write", lab="08", exercise="5",
          check=f"{_LAB08}:copy_on_write", title="Copy a shared block before writing into it",
          configuration="paged", points=15),
    # Lab 10: continuous batching.
    Piece("infero.batching.static_steps", lab="10", exercise="1a", check=f"{_LAB10}:static_steps",
          title="Passes of static batching", configuration="batching", points=5),
    Piece("infero.batching.continuous_steps", lab="10", exercise="1b",
          check=f"{_LAB10}:continuous_steps", title="Passes of continuous batching",
          configuration="batching"),
    Piece("infero.runner.pack", lab="10", exercise="2", check=f"{_LAB10}:pack",
          title="Requests end to end, without padding", configuration="paged", points=20),
    Piece("infero.sampling.token_mask", lab="10", exercise="3", check=f"{_LAB10}:token_mask",
          title="Forbid what the grammar forbids", configuration="constrained", points=15),
    # Lab 11: scheduling.
    Piece("infero.policies.shortest_first", lab="11", exercise="1",
          check=f"{_LAB11}:shortest_first", title="Shortest job first, with ageing",
          configuration="sjf"),
    Piece("infero.policies.priority_first", lab="11", exercise="2",
          check=f"{_LAB11}:priority_first", title="Priority, with ageing",
          configuration="priority", points=5),
    Piece("infero.scheduler.share_budget", lab="11", exercise="3", check=f"{_LAB11}:share_budget",
          title="Sharing a step's token budget", configuration="paged", points=20),
    Piece("infero.scheduler.pick_victim", lab="11", exercise="4", check=f"{_LAB11}:pick_victim",
          title="Who gives up its blocks", configuration="tight"),
    Piece("infero.scheduler.may_admit", lab="11", exercise="5", check=f"{_LAB11}:may_admit",
          title="Whether a request may start", configuration="paged"),
    # Lab 13: programming the GPU with Triton.
    Piece("infero.kernels.steps.coalescing.sectors", lab="13", exercise="1",
          check=f"{_LAB13}:sectors", title="What a warp's addresses cost",
          configuration="coalescing"),
    Piece("infero.kernels.steps.elementwise.swiglu", lab="13", exercise="2",
          check=f"{_LAB13}:swiglu", title="A first kernel: the gated activation",
          configuration="steps_elementwise"),
    Piece("infero.kernels.steps.elementwise.rms_norm", lab="13", exercise="3",
          check=f"{_LAB13}:rms_norm", title="A reduction: one program a row",
          configuration="steps_elementwise", points=15),
    Piece("infero.kernels.steps.elementwise.rope", lab="13", exercise="4",
          check=f"{_LAB13}:rope", title="A grid of two axes: rotate the heads",
          configuration="steps_elementwise", points=15),
    # Lab 14: FlashAttention.
    Piece("infero.kernels.steps.attention.merge", lab="14", exercise="1", check=f"{_LAB14}:merge",
          title="Merge two partial results of attention", configuration="steps_attention"),
    Piece("infero.kernels.steps.attention.blockwise", lab="14", exercise="2",
          check=f"{_LAB14}:blockwise", title="Attention block by block",
          configuration="steps_attention", points=15),
    Piece("infero.kernels.steps.attention.flash", lab="14", exercise="3", check=f"{_LAB14}:flash",
          title="FlashAttention in one kernel", configuration="steps_attention", points=20),
    Piece("infero.kernels.steps.attention.paged_decode", lab="14", exercise="4",
          check=f"{_LAB14}:paged_decode", title="Decoding over the block table, in splits",
          configuration="steps_attention", points=20),
    Piece("infero.kernels.steps.attention.combine", lab="14", exercise="5",
          check=f"{_LAB14}:combine", title="Splits put together again",
          configuration="steps_attention"),
    # Lab 15: quantized matmul kernels.
    Piece("infero.kernels.steps.matmul.pack_nibbles", lab="15", exercise="1",
          check=f"{_LAB15}:pack_nibbles", title="Eight weights in a word",
          configuration="steps_matmul"),
    Piece("infero.kernels.steps.matmul.unpack_nibbles", lab="15", exercise="2",
          check=f"{_LAB15}:unpack_nibbles", title="Numbers by bits alone",
          configuration="steps_matmul"),
    Piece("infero.kernels.steps.matmul.int8_matvec", lab="15", exercise="3",
          check=f"{_LAB15}:int8_matvec", title="A product with 8-bit weights",
          configuration="steps_matmul", points=15),
    Piece("infero.kernels.steps.matmul.int4_matmul", lab="15", exercise="4",
          check=f"{_LAB15}:int4_matmul", title="A product with 4-bit groups",
          configuration="steps_matmul", points=20),
    Piece("infero.kernels.steps.matmul.matmul_time_s", lab="15", exercise="5",
          check=f"{_LAB15}:matmul_time_s", title="Three limits, and where 4 bits stop paying",
          configuration="steps_matmul"),
    # Lab 16: compilers and graphs.
    Piece("infero.lanes.device_ends", lab="16", exercise="1", check=f"{_LAB16}:device_ends",
          title="When a kernel ends that the host must launch", configuration="lanes"),
    Piece("infero.tape.replay", lab="16", exercise="2", check=f"{_LAB16}:replay",
          title="Capture and replay", configuration="taped", points=20),
    Piece("infero.graphs.bucket_of", lab="16", exercise="3", check=f"{_LAB16}:bucket_of",
          title="Which captured batch size holds a batch", configuration="taped", points=5),
    Piece("infero.graphs.fill", lab="16", exercise="4", check=f"{_LAB16}:fill",
          title="A step in fixed buffers, padded", configuration="taped", points=20),
    Piece("infero.lanes.overlapped", lab="16", exercise="5", check=f"{_LAB16}:overlapped",
          title="The host one step ahead", configuration="lanes", points=15),
)


class UnknownPiece(KeyError):
    """No such row in the table."""

    def __str__(self) -> str:
        return str(self.args[0])


def find(name: str) -> Piece:
    """The piece called `name`: its dotted name, or the end of it (`sampling.top_p`, `top_p`)."""
    for piece in PIECES:
        if piece.name == name:
            return piece
    short = [piece for piece in PIECES if piece.name.endswith(f".{name}")]
    if len(short) == 1:
        return short[0]
    if short:
        names = ", ".join(piece.name for piece in short)
        raise UnknownPiece(f"{name!r} is the name of several pieces: {names}; write the whole name")
    known = [piece.name for piece in PIECES] + [piece.attribute for piece in PIECES]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `infero pieces` lists them"
    raise UnknownPiece(f"no piece is called {name!r}{hint}")


def of_lab(lab: str) -> list[Piece]:
    """The pieces of one lab in the order of its exercises."""
    number = lab_number(lab)
    return [piece for piece in PIECES if piece.lab == number]


def lab_number(lab: str | int) -> str:
    """`1`, `"1"`, `"01"` and `"01_from_prompt_to_token"` all mean lab `"01"`."""
    digits = str(lab).partition("_")[0]
    known = {row.number for row in LABS}
    if digits.isdecimal() and f"{int(digits):02d}" in known:
        return f"{int(digits):02d}"
    raise ValueError(f"there is no lab {lab!r}; the labs are {', '.join(sorted(known))}")


def lab(number: str | int) -> Lab:
    """The row of one lab."""
    wanted = lab_number(number)
    return next(row for row in LABS if row.number == wanted)
