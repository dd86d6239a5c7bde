"""Loading quantized models: infero's own folders, damaged ones, and GPTQ and AWQ checkpoints.

The checkpoints are written here, number by number, as the programs of the hub write them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infero import loading
from infero.errors import ConfigError, LoadError
from infero.kernels import formats
from infero.kernels.ordered import OrderedWeight
from infero.llm import LLM
from infero.loading import quantized
from infero.model import Model, random_model
from infero.quant import manifest
from infero.quant.quantizer import Settings, quantize_to
from infero.sampling import SamplingParams
from tests.conftest import tiny_config
from tests.engine_tools import alone, check_same
from tests.test_loading import HF, hf_tensors

SHAPE = dict(vocab_size=260, hidden_size=64, intermediate_size=96, num_heads=4, num_kv_heads=2,
             head_dim=16, num_layers=2, tie_embeddings=True)
CONFIG = HF | dict(hidden_size=64, intermediate_size=96, num_attention_heads=4,
                   num_key_value_heads=2, num_hidden_layers=2)
MATRICES = ("qkv", "o", "gate_up", "down")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERO_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    return tmp_path / "cache"


# ---------------------------------------------------------------- writing checkpoints


@dataclass
class Style:
    """How a checkpoint is written."""

    method: str = "gptq"
    bits: int = 4
    group: int = 32  # -1: one scale a row
    v2: bool = False
    symmetric: bool = False
    shuffled: str = ""  # "": in order, "same": q, k and v alike, "each": each its own
    g_idx: bool = True
    zero_bias: bool = False
    skip: tuple[str, ...] = ()  # modules that stay as they are

    def config(self) -> dict[str, Any]:
        if self.method == "awq":
            return {"quant_method": "awq", "bits": self.bits, "group_size": self.group,
                    "zero_point": True, "version": "gemm",
                    "modules_to_not_convert": list(self.skip) or None}
        return {"quant_method": "gptq", "bits": self.bits, "group_size": self.group,
                "desc_act": bool(self.shuffled), "sym": self.symmetric, "lm_head": False,
                "damp_percent": 0.01, "checkpoint_format": "gptq_v2" if self.v2 else "gptq"}


def bits_of(numbers: Tensor, bits: int) -> Tensor:
    """Numbers along the first dimension as int32 words, lowest bits first, one number at a time."""
    n, columns = numbers.shape
    words = [[0] * columns for _ in range(-(-n * bits // 32))]
    for i, row in enumerate(numbers.tolist()):
        for j, number in enumerate(row):
            at = i * bits
            words[at // 32][j] |= number << at % 32 & 0xFFFFFFFF
            if at % 32 + bits > 32:
                words[at // 32 + 1][j] |= number >> 32 - at % 32
    signed = [[w - 2**32 if w >= 2**31 else w for w in row] for row in words]
    return torch.tensor(signed, dtype=torch.int32)


def awq_words(numbers: Tensor) -> Tensor:
    """numbers: [n, out] 0..15. Returns [n, out / 8] int32, eight outputs a word in AWQ's order."""
    words = torch.zeros(numbers.shape[0], numbers.shape[1] // 8, dtype=torch.int64)
    for column in range(words.shape[1]):
        for place, output in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
            words[:, column] |= numbers[:, 8 * column + output].long() << 4 * place
    return (words - (words >= 2**31).long() * 2**32).to(torch.int32)


def rounded(style: Style, base: str, out: int, inputs: int, seed: int
            ) -> tuple[dict[str, Tensor], Tensor]:
    """A random matrix as the tensors of a checkpoint, and as the weight [out, in] they mean."""
    generator = torch.Generator().manual_seed(seed)
    group = inputs if style.group == -1 else min(style.group, inputs)
    groups = -(-inputs // group)
    values = torch.randint(0, 2**style.bits, (inputs, out), generator=generator)
    scales = (torch.rand(groups, out, generator=generator) * 0.04 + 0.01).half()
    zeros = torch.randint(0, 2**style.bits, (groups, out), generator=generator)
    if style.symmetric:
        zeros[:] = 2 ** (style.bits - 1)
    belongs = torch.arange(inputs) // group
    if style.shuffled:
        order = torch.Generator().manual_seed(7 if style.shuffled == "same" else seed)
        belongs = belongs[torch.randperm(inputs, generator=order)]
    weight = ((values - zeros[belongs]) * scales.float()[belongs]).t().contiguous()
    if style.method == "awq":
        tensors = {"qweight": awq_words(values), "qzeros": awq_words(zeros)}
    else:
        kept = zeros if style.v2 else (zeros - 1) % 2**style.bits
        tensors = {"qweight": bits_of(values, style.bits),
                   "qzeros": bits_of(kept.t(), style.bits).t().contiguous()}
        if style.g_idx:
            tensors["g_idx"] = belongs.to(torch.int32)
        if style.zero_bias:
            tensors["bias"] = torch.zeros(out, dtype=torch.float16)
    tensors["scales"] = scales
    return {f"{base}.{name}": t for name, t in tensors.items()}, weight


def write(folder: Path, style: Style, **changes: object) -> Model:
    """A checkpoint in this style; returns the model that it means, in full precision."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    source = hf_tensors(random_model(tiny_config(**SHAPE), seed=4))
    tensors: dict[str, Tensor] = {}
    for i, (name, t) in enumerate(sorted(source.items())):
        base = name.removesuffix(".weight")
        if "proj" in name and not any(word in name for word in style.skip):
            packed, source[name] = rounded(style, base, *t.shape, seed=i)
            tensors |= packed
        else:
            source[name] = t.half().float()
            tensors[name] = t.half()
    raw = CONFIG | {"quantization_config": style.config()} | changes
    plain = folder.with_name(f"{folder.name}-plain")
    plain.mkdir(exist_ok=True)
    for place, saved, facts in ((folder, tensors, raw), (plain, source, CONFIG)):
        save_file({k: t.contiguous() for k, t in saved.items()}, place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(facts))
    return loading.load(plain, dtype="float32", device="cpu")


STYLES = {
    "gptq": Style(),
    "gptq v2": Style(v2=True),
    "gptq symmetric": Style(symmetric=True),
    "gptq per channel": Style(group=-1),
    "gptq group longer than a row": Style(group=128),
    "gptq ragged": Style(group=64),  # 96 inputs: one and a half groups
    "gptq without g_idx": Style(g_idx=False),
    "gptq with empty biases": Style(zero_bias=True),
    "gptq 3 bits": Style(bits=3),
    "gptq 2 bits v2": Style(bits=2, v2=True),
    "gptq 8 bits": Style(bits=8, group=-1, symmetric=True),
    "gptq desc_act": Style(shuffled="same"),
    "gptq desc_act v2": Style(shuffled="same", v2=True),
    "awq": Style("awq"),
    "awq group 64": Style("awq", group=64),
    "awq per channel": Style("awq", group=-1),
}
#: Where no kernel has a layout: the weight is in full precision then, and the log says so.
WHOLE = {
    "gptq desc_act, each matrix its own": Style(shuffled="each"),
    "gptq group 16": Style(group=16),
    "gptq 8 bits in groups": Style(bits=8, group=32, symmetric=True),
    "one of three is not quantized": Style(skip=("k_proj", "up_proj")),
}


@pytest.mark.parametrize("name", STYLES | WHOLE)
def test_a_checkpoint_means_what_it_says(name: str, tmp_path: Path,
                                         caplog: pytest.LogCaptureFixture) -> None:
    style = (STYLES | WHOLE)[name]
    with caplog.at_level(logging.WARNING, "infero"):
        meant = write(tmp_path / "model", style)
        model = loading.load(tmp_path / "model", dtype="float32", device="cpu")
    kinds = set()
    for i, (got, want) in enumerate(zip(model.layers, meant.layers, strict=True)):
        for key in MATRICES:
            weight = getattr(got, key)
            kinds.add(type(weight))
            full = weight if isinstance(weight, Tensor) else weight.dequantize()
            assert full.dtype == torch.float32
            # A product of half and whole numbers is exact in float32 but for the last bit.
            assert torch.allclose(full, getattr(want, key), rtol=1e-6, atol=0), f"layers.{i}.{key}"
        assert torch.equal(got.input_norm, want.input_norm)
    assert torch.equal(model.embedding, meant.embedding) and model.head is model.embedding
    assert (Tensor in kinds) == (name in WHOLE) == ("no kernel multiplies" in caplog.text)
    if name in STYLES:
        expected = (OrderedWeight if style.shuffled else formats.Int8Weight if style.bits == 8
                    else formats.Int4Weight)
        assert kinds == {expected}


@pytest.mark.parametrize("name", ["gptq", "gptq desc_act", "awq", "gptq 8 bits",
                                  "gptq desc_act, each matrix its own"])
def test_a_checkpoint_answers_like_its_weights(name: str, tmp_path: Path) -> None:
    meant = write(tmp_path / "model", (STYLES | WHOLE)[name])
    llm = LLM(str(tmp_path / "model"), dtype="float32", device="cpu", block_size=4, num_blocks=64)
    params = SamplingParams(temperature=0, max_tokens=12)
    prompts = [[1, 2, 3], [4] * 9, list(range(20))]
    for prompt, out in zip(prompts, llm.generate(prompts, params), strict=True):
        check_same(out.tokens, alone(meant, prompt, params), name)


def test_the_settings_may_lie_beside_the_configuration(tmp_path: Path) -> None:
    style = Style()
    meant = write(tmp_path / "model", style, quantization_config=None)
    beside = {k: v for k, v in style.config().items() if k != "quant_method"}
    (tmp_path / "model" / "quantize_config.json").write_text(json.dumps(beside))
    model = loading.load(tmp_path / "model", dtype="float32", device="cpu")
    assert torch.allclose(model.layers[1].down.dequantize(), meant.layers[1].down, rtol=1e-6)


def test_an_ordered_weight_behaves_like_any_other() -> None:
    weight = torch.randn(40, 64)
    plain = formats.quantize(weight, "int4", 32)
    assert isinstance(plain, formats.Int4Weight)
    ordered = OrderedWeight(plain, torch.randperm(64))
    assert ordered.shape == (40, 64) and ordered.dim() == 2 and ordered.dtype == torch.float32
    assert ordered.nbytes == plain.nbytes + 64 * 8 and not ordered.is_cuda
    moved = ordered.to("cpu")
    x, bias = torch.randn(5, 64), torch.randn(40)
    want = torch.nn.functional.linear(x, moved.dequantize(), bias)
    assert torch.allclose(ordered.multiply(x, bias), want, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_unpacking_is_packing_undone(bits: int) -> None:
    numbers = torch.randint(0, 2**bits, (96, 5), dtype=torch.uint8)
    assert torch.equal(quantized.unpack(bits_of(numbers, bits), bits), numbers)


# ---------------------------------------------------------------- checkpoints that do not fit


@pytest.mark.parametrize(("changes", "message"), [
    ({"quant_method": "bitsandbytes"}, r"by 'bitsandbytes'; infero reads 'gptq', 'awq'"),
    ({"quant_method": None}, "infero reads 'gptq', 'awq'"),
    ({"bits": 5}, r"bits is 5; it must be one of \[2, 3, 4, 8\]"),
    ({"bits": "4"}, r"bits is '4'; it must be a whole number"),
    ({"group_size": 0}, "group_size is 0; it must be a number of inputs, or -1"),
    ({"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'; it must be 'gptq'"),
    ({"group_size": 48}, r"qzeros has shape \[2, 8\].*groups of 48"),
    ({"bits": 8}, r"8 bits in groups of 32 make it"),
    ({"quant_method": "awq", "version": "gemv"}, "version is 'gemv'; it must be 'gemm'"),
])
def test_a_configuration_that_does_not_fit(changes: dict, message: str, tmp_path: Path) -> None:
    write(tmp_path / "model", Style())
    config = CONFIG | {"quantization_config": Style().config() | changes}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    if changes.get("group_size") == 48:  # 64 inputs: two groups either way, but 96: 2 and not 3
        message = r"\[3, 8\].*groups of 48 make it \[2, 8\]"
    with pytest.raises((ConfigError, LoadError), match=message):
        loading.load(tmp_path / "model", dtype="float32", device="cpu")


def edited(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


FIRST = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop(f"{FIRST}.scales"), rf"{FIRST}\.scales has shape None"),
    (lambda t: t.pop(f"{FIRST}.qzeros"), rf"{FIRST}\.qzeros has shape None"),
    (lambda t: t.pop(f"{FIRST}.qweight"), rf"no tensor '{FIRST}\.weight'"),
    (lambda t: t.update({f"{FIRST}.scales": torch.ones(3, 64).half()}),
     r"scales has shape \[3, 64\], but 4 bits in groups of 32 make it \[2, 64\]"),
    (lambda t: t.update({"extra.weight": torch.ones(3)}), "no place for, such as 'extra.weight'"),
    (lambda t: t[f"{FIRST}.g_idx"].fill_(0), r"g_idx puts 64 to 64 inputs into a group"),
    (lambda t: [t.pop(k) for k in list(t) if "qweight" in k], "holds no tensor named"),
])
def test_tensors_that_do_not_fit(change: Callable, message: str, tmp_path: Path) -> None:
    write(tmp_path / "model", Style())
    edited(tmp_path / "model", change)
    with pytest.raises(LoadError, match=message):
        loading.load(tmp_path / "model", dtype="float32", device="cpu")


def test_a_bias_that_is_not_empty_is_not_dropped(tmp_path: Path) -> None:
    write(tmp_path / "model", Style(zero_bias=True))
    edited(tmp_path / "model", lambda t: t[f"{FIRST}.bias"].fill_(1))
    with pytest.raises(LoadError, match=rf"no place for, such as '{FIRST}\.bias'"):
        loading.load(tmp_path / "model", dtype="float32", device="cpu")


# ---------------------------------------------------------------- own folders


@pytest.fixture
def own(tmp_path: Path) -> Path:
    model = random_model(tiny_config(**SHAPE), seed=4)
    return quantize_to(model, Settings("rtn", group=32), tmp_path / "own")


def changed(own: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit infero.json."""
    path = own / manifest.NAME
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


LAYER = "layer-001.safetensors"


def _cut(own: Path) -> None:
    path = own / LAYER
    path.write_bytes(path.read_bytes()[:-100])


def _flip(own: Path) -> None:
    path = own / LAYER
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def _swap(own: Path) -> None:
    (own / LAYER).write_bytes((own / "layer-000.safetensors").read_bytes())


def _files(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda own: changed(own, lambda facts: change(facts["files"]))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda own: (own / manifest.NAME).unlink(), r"its infero\.json is missing"),
    (lambda own: (own / LAYER).unlink(), rf"{LAYER} is missing from .*though infero\.json lists"),
    (_cut, r"bytes, infero\.json says .*truncated"),
    (_flip, rf"{LAYER} is corrupt .*SHA-256"),
    (_swap, rf"{LAYER} is corrupt or of another model"),
    (lambda own: (own / "config.json").write_text("{}"), r"config\.json has 2 bytes"),
    (lambda own: changed(own, lambda f: f.update(complete=False)), "unfinished .*same .*command"),
    (lambda own: changed(own, lambda f: f.update(format=99)), "format 99; .*reads 1"),
    (lambda own: changed(own, lambda f: f.update(surprise=1)), "damaged .*surprise"),
    (lambda own: changed(own, lambda f: f.update(files=[])), "damaged"),
    (lambda own: changed(own, lambda f: f["model"].pop("hidden_size")), "shape is damaged"),
    (lambda own: changed(own, lambda f: f["model"].update(num_layers=3)), r"lacks 2\.input_norm"),
    (lambda own: changed(own, lambda f: f["model"].update(num_layers=1)), r"holds 1\..*no place"),
    (lambda own: changed(own, lambda f: f["model"].update(intermediate_size=64)),
     r"gate_up has shape \[192, 64\], the model's is \[128, 64\]"),
    (lambda own: (own / manifest.NAME).write_text("{"), "not valid JSON"),
    (_files(lambda files: files.pop(LAYER)), r"lacks 1\.input_norm"),
    (_files(lambda files: files[LAYER]["tensors"].pop("1.o.scales")),
     r"1\.o\.scales.*None: there is none"),
    (_files(lambda files: files[LAYER]["tensors"].update({"1.o.scales": [1, 1]})),
     r"1\.o\.scales.*\(1, 1\)"),
    (_files(lambda files: files[LAYER]["packed"]["1.o"].update(kind="Int2Weight")),
     "kind 'Int2Weight', which this version of infero does not know"),
    (_files(lambda files: files[LAYER]["packed"]["1.o"].update(kind="Tensor")), "kind 'Tensor'"),
    (_files(lambda files: files[LAYER]["packed"]["1.o"]["fields"].update(group=64)),
     r"1\.o: scales has shape \[64, 2\], a weight \[64, 64\] needs \[64, 1\]"),
    (_files(lambda files: files[LAYER]["packed"]["1.o"]["fields"].pop("group")), "1.o: it describ"),
    (_files(lambda files: files.update({"../x.safetensors": {"bytes": 1, "sha256": ""}})),
     "outside the folder"),
])
def test_a_folder_that_was_damaged(damage: Callable, message: str, own: Path) -> None:
    loading.load(own, dtype="float32", device="cpu")
    damage(own)
    with pytest.raises(LoadError, match=message) as caught:
        loading.load(own, dtype="float32", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_quantized_folder_is_not_rounded_again(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"quantized already \(Int4Weight\).*'int8' away"):
        LLM(str(own), quantization="int8", num_blocks=8)


def test_a_folder_carries_its_tokenizer(smollm2: Model, tmp_path: Path) -> None:
    tiny = random_model(tiny_config(**SHAPE | {"vocab_size": 49152}), seed=4)
    tiny.tokenizer = smollm2.tokenizer
    path = quantize_to(tiny, Settings("rtn", group=32), tmp_path / "own")
    found, want = loading.load(path, device="cpu").tokenizer, smollm2.tokenizer
    text = "One, two — three.\n\tdef f(x): return 2**x"
    assert found.encode(text) == want.encode(text)
    assert found.decode([1, 2, 500]) == want.decode([1, 2, 500])
    assert (found.eos_ids, found.bos_id) == (want.eos_ids, want.bos_id)
    messages = [{"role": "user", "content": "Hello"}]
    assert found.apply_chat_template(messages) == want.apply_chat_template(messages)
    assert found.special_names == want.special_names
