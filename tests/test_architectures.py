"""Every architecture against transformers: the same tiny random checkpoint, the same logits.

transformers is a test peer only: it writes the checkpoint (`save_pretrained`), infero loads the
files, and both run the same tokens in float32.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.generate_cpu import transformers_peer
from infero import generate, loading
from infero.cache import contiguous
from infero.loading import config as configs
from infero.loading import source
from infero.model import Model, forward, rope_frequencies
from infero.sampling import SamplingParams

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
TOKENS = 29  # longer than the sliding windows below, so that they are crossed
BASE = dict(vocab_size=131, hidden_size=48, intermediate_size=72, num_hidden_layers=3,
            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=64,
            rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=None)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500_000.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=16)
CASES = {
    "llama": ("Llama", {}),
    "llama, odd heads as in SmolLM2": ("Llama", dict(
        hidden_size=72, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)),
    "llama, one KV head": ("Llama", dict(num_key_value_heads=1)),
    "llama, every head its own KV": ("Llama", dict(num_key_value_heads=6)),
    "llama, biases everywhere": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "llama, wide heads": ("Llama", dict(head_dim=14)),
    "llama 3 RoPE": ("Llama", dict(rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)),
    "llama, linear RoPE": ("Llama", dict(
        rope_parameters=dict(rope_type="linear", rope_theta=10_000.0, factor=2.5))),
    "qwen2": ("Qwen2", {}),
    "qwen2, tied, 7 heads on 1": ("Qwen2", dict(
        hidden_size=56, num_attention_heads=7, num_key_value_heads=1, tie_word_embeddings=True)),
    "qwen2, window in the last layers": ("Qwen2", dict(
        use_sliding_window=True, sliding_window=7, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(head_dim=16)),
    "qwen3, tied, biased, window": ("Qwen3", dict(
        head_dim=10, num_attention_heads=5, num_key_value_heads=5, tie_word_embeddings=True,
        attention_bias=True, use_sliding_window=True, sliding_window=5, max_window_layers=2)),
    "mistral, window": ("Mistral", dict(sliding_window=6)),
    "mistral, window of one": ("Mistral", dict(sliding_window=1)),
    "mistral, no window, tied": ("Mistral", dict(sliding_window=None, tie_word_embeddings=True)),
}


def peer(family: str, **changes: object) -> torch.nn.Module:
    """A random transformers model with nothing left at its neutral value."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **(BASE | changes), attn_implementation="eager")
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # norms start at one and biases at zero
                weight.add_(torch.randn_like(weight) * 0.3)
            elif "embed" in name or "lm_head" in name:
                weight.normal_(0, 0.3)
            else:
                weight.normal_(0, weight.shape[1] ** -0.5)
    return model


def tokens_for(vocab: int, n: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, vocab, (n,), generator=torch.Generator().manual_seed(3))


def all_logits(model: Model, tokens: torch.Tensor, chunks: list[int]) -> torch.Tensor:
    """Logits of every token, fed in chunks of the given lengths: [tokens, vocab]."""
    cache = contiguous.allocate(model.config, 1, len(tokens), model.dtype, model.device)
    start, rows = 0, []
    for n in chunks:
        batch = contiguous.next_batch(cache, [start], [n])
        rows.append(forward(model, tokens[start : start + n], batch, cache, None))
        start += n
    return torch.cat(rows)


@pytest.mark.parametrize("case", CASES)
def test_same_logits_as_transformers(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    reference = peer(family, **changes)
    reference.save_pretrained(tmp_path)
    model = loading.load(tmp_path, dtype="float32", device="cpu")
    tokens = tokens_for(model.config.vocab_size)
    with torch.no_grad():
        want = reference(tokens[None]).logits[0]
    for chunks in ([TOKENS], [11, 1, 1, TOKENS - 13]):
        got = all_logits(model, tokens, chunks)
        assert (got - want).abs().max() <= TOLERANCE
    assert want.std() > 0.1  # the comparison is not between zeros


def test_sharded_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    reference = peer("Llama", tie_word_embeddings=False)
    reference.save_pretrained(tmp_path / "one")
    reference.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (loading.load(tmp_path / n, dtype="float32", device="cpu") for n in ("one", "many"))
    tokens = tokens_for(131)
    assert torch.equal(all_logits(one, tokens, [TOKENS]), all_logits(many, tokens, [TOKENS]))


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Mistral"])
def test_older_config_files_read_the_same(family: str, tmp_path: Path) -> None:
    """Files written before transformers 5 keep RoPE settings under other names."""
    reference = peer(family, sliding_window=9, **(
        dict(rope_parameters=LLAMA3_ROPE) if family == "Llama" else {}))
    new = reference.config.to_dict()
    old = {k: v for k, v in new.items() if k != "rope_parameters"}
    rope = dict(new["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        old["rope_scaling"] = rope
    assert configs.from_hf(old) == configs.from_hf(new)


def test_llama3_frequencies_agree_at_published_numbers() -> None:
    """Llama 3.2's own RoPE numbers, with a head size of 64."""
    rope = dict(rope_type="llama3", rope_theta=500_000.0, factor=32.0, low_freq_factor=1.0,
                high_freq_factor=4.0, original_max_position_embeddings=8192)
    config = transformers.LlamaConfig(**(BASE | dict(
        hidden_size=384, rope_parameters=rope, max_position_embeddings=131_072)))
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    want = LlamaRotaryEmbedding(config).inv_freq
    got = rope_frequencies(configs.from_hf(config.to_dict()))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


# ---------------------------------------------------------------- SmolLM2

PROMPTS = [
    "The capital of France is", "Once upon a time there was a fox who", "def fibonacci(n):\n",
    "2 + 2 =", "Water boils at", "In 1969, the first humans", "List three fruits:\n1.",
    "The opposite of hot is", "import numpy as np\n", "Dear Sir or Madam,\n\n",
    "Q: Why is the sky blue?\nA:", "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
    "To make an omelette, first", "A prime number is", "The moon orbits the",
    "Le chat est", "Shakespeare wrote", "| name | age |\n|---|---|\n", "She opened the door and",
    "Memory bandwidth limits decoding because",
]
NEW_TOKENS = 64


def greedy_batch(model: Model, prompts: list[list[int]], n: int) -> list[list[int]]:
    """`n` greedy tokens for all prompts at once: ragged prefill, then one token each a step."""
    cache = contiguous.allocate(model.config, len(prompts), max(map(len, prompts)) + n,
                                model.dtype, model.device)
    out: list[list[int]] = [[] for _ in prompts]
    starts, new = [0] * len(prompts), prompts
    for _ in range(n):
        lens = [len(p) for p in new]
        batch = contiguous.next_batch(cache, starts, lens)
        last = torch.tensor(lens).cumsum(0) - 1
        picked = forward(model, torch.tensor(sum(new, [])), batch, cache, last).argmax(-1).tolist()
        starts = [s + n for s, n in zip(starts, lens, strict=True)]
        new = [[token] for token in picked]
        for row, token in zip(out, picked, strict=True):
            row.append(token)
    return out


def test_smollm2_greedy_equals_transformers(smollm2: Model) -> None:
    prompts = [smollm2.tokenizer.encode(text) for text in PROMPTS]
    reference = transformers_peer(smollm2)
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    want = reference.generate(padded, attention_mask=mask, do_sample=False,
                              max_new_tokens=NEW_TOKENS)[:, width:].tolist()
    got = greedy_batch(smollm2, prompts, NEW_TOKENS)
    for prompt, ours, theirs in zip(prompts, got, want, strict=True):
        if ours == theirs:
            continue
        # The only excuse for another token: the two best were equal up to rounding.
        at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + theirs[:at]])).logits[0, -1]
        best = logits.topk(2)
        assert {ours[at], theirs[at]} == set(best.indices.tolist())
        assert best.values[0] - best.values[1] < TOLERANCE


@pytest.mark.parametrize("use_cache, n", [(True, NEW_TOKENS), (False, 12)])
def test_smollm2_loops_equal_the_batch(smollm2: Model, use_cache: bool, n: int) -> None:
    prompt = smollm2.tokenizer.encode(PROMPTS[0])
    params = SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True)
    alone = list(generate.stream(smollm2, prompt, params, use_cache=use_cache))
    assert [alone] == greedy_batch(smollm2, [prompt], n)


def test_smollm2_weights_equal_transformers_own_gguf_reader(smollm2: Model) -> None:
    """Dequantization and the order of q and k rows, against another implementation."""
    gguf = pytest.importorskip("gguf")
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS

    processor = TENSOR_PROCESSORS["llama"](config=dict(num_attention_heads=9,
                                                       num_key_value_heads=3))
    reader = gguf.GGUFReader(source.default_file())
    wanted = {f"blk.7.attn_{x}.weight" for x in "qkv"}
    found = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors
             if t.name in wanted}
    rows = [processor.process(found[f"blk.7.attn_{x}.weight"], name=f"blk.7.attn_{x}.weight",
                              tensor_key_mapping={}, parsed_parameters={"tensors": {}}).weights
            for x in "qkv"]
    stacked = torch.cat([torch.from_numpy(r) for r in rows])
    assert torch.equal(stacked, smollm2.layers[7].qkv)
