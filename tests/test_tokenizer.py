"""The tokenizer: round trips, streaming, chat templates, and transformers' as a peer."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infero.errors import ConfigError, LoadError, ParameterError, PromptError
from infero.loading import vocabulary
from infero.model import Model
from infero.tokenizer import Tokenizer, byte_alphabet

# Text with a good share of what breaks byte-level decoders. SmolLM2's vocabulary has no letter
# for byte 0xF1, which begins unassigned characters, nor for some control characters: it drops
# them, so they stay out.
TRICKY = st.text(st.one_of(
    st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"]),
    st.sampled_from("é日本語🙂👩‍👩‍👧\u200d\u0301ﬁ½²Ⅷ\r\n\t \u00a0\u3000Ġ\u2581"),
), max_size=60)
SAMPLES = [
    "", " ", "Hello, world!", "  two  spaces  ", "tabs\tand\nnewlines\r\n\r\n", "it's we'll I'D",
    "12345 1.5e-3 ½ ² Ⅷ ٣", "naïve café ÀÉÎ", "日本語のテキスト", "🙂👩‍👩‍👧🇫🇷",
    "e\u0301 ﬁ \u00a0\u3000x",
    "def f(x):\n    return x**2  # ok\n", "<|im_start|>user\nHi<|im_end|>\n", "a" * 300,
]


@pytest.fixture(scope="module")
def tokenizer(smollm2: Model) -> Tokenizer:
    assert smollm2.tokenizer is not None
    return smollm2.tokenizer


# ---------------------------------------------------------------- text and ids


@settings(max_examples=200, deadline=None)
@given(text=TRICKY)
def test_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, skip_special=False) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 49_151), max_size=40))
def test_stream_of_any_ids_joins_to_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Random ids are mostly broken UTF-8, which the `tokenizers` library must decode alike."""
    for skip in (True, False):
        stream = tokenizer.stream(skip_special=skip)
        joined = "".join([stream.push(i) for i in ids] + [stream.flush()])
        assert joined == tokenizer.decode(ids, skip_special=skip)
        assert joined == tokenizer.backend.decode(ids, skip_special_tokens=skip)


def test_stream_holds_back_unfinished_characters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    assert len(ids) > 1
    stream = tokenizer.stream()
    assert [stream.push(i) for i in ids] == [""] * (len(ids) - 1) + ["🙂"]
    assert stream.flush() == ""
    stream = tokenizer.stream()
    assert stream.push(ids[0]) == ""
    assert stream.flush() == "\ufffd"  # cut off in the middle of the character


def test_streaming_cost_does_not_grow_with_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The quick brown fox jumps over the lazy dog. 🙂 " * 2000)
    stream = tokenizer.stream()
    start = time.perf_counter()
    for i in ids:
        stream.push(i)
    assert (time.perf_counter() - start) / len(ids) < 100e-6


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|im_start|>user") == [1, 4093]
    assert tokenizer.decode([1, 4093]) == "user"
    assert tokenizer.decode([1, 4093], skip_special=False) == "<|im_start|>user"
    assert tokenizer.eos_ids == (2, 0)  # <|im_end|>, <|endoftext|>
    assert tokenizer.bos_id == 1
    assert tokenizer.vocab_size == 49_152
    assert tokenizer.encode("a", add_special=True) == tokenizer.encode("a")  # it asks for no BOS


def test_digits_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    """The rule "smollm": every digit alone, also ½ and Ⅷ; words and spaces as in GPT-2."""
    digits = [tokenizer.encode(d)[0] for d in "2024"]
    assert tokenizer.encode("2024") == digits
    assert tokenizer.decode([tokenizer.encode(" 7")[0]]) == " "
    space = tokenizer.encode(" ")
    assert tokenizer.encode(" ½") == space + tokenizer.encode("½")


def test_bad_input(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="surrogate"):
        tokenizer.encode("half \ud83d of it")
    with pytest.raises(PromptError, match="str"):
        tokenizer.encode([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="-3"):
        tokenizer.decode([-3])
    assert tokenizer.decode([10_000_000]) == ""  # a padding row of an embedding


def test_byte_alphabet_is_a_bijection() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert byte_alphabet()["Ġ"] == 0x20
    assert byte_alphabet()["Ċ"] == 0x0A


# ---------------------------------------------------------------- conversations


def test_chat_template_gives_chatml(tokenizer: Tokenizer) -> None:
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
                    {"role": "user", "content": "2+2?"}]
    system = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
              "Face<|im_end|>\n")
    turns = ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
             "<|im_start|>user\n2+2?<|im_end|>\n")
    opening = "<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(conversation) == system + turns + opening
    assert tokenizer.apply_chat_template(conversation, False) == system + turns
    own = [{"role": "system", "content": "Be brief."}, *conversation]
    assert tokenizer.apply_chat_template(own) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n" + turns + opening)


def with_template(tokenizer: Tokenizer, template: str | None) -> Tokenizer:
    return Tokenizer(tokenizer.backend, chat_template=template,
                     special_names={"bos_token": "<s>"})


def test_template_extras(tokenizer: Tokenizer) -> None:
    message = [{"role": "user", "content": "é<&>"}]
    cases = {
        "{{ messages[0] | tojson }}": '{"role": "user", "content": "é<&>"}',
        "{{ bos_token }}{{ messages[0].content }}": "<s>é<&>",
        "{% generation %}{{ messages[0].role }}{% endgeneration %}": "user",
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}": "01",
        "{{ tools is none }}{{ add_generation_prompt }}": "TrueTrue",
    }
    for template, want in cases.items():
        assert with_template(tokenizer, template).apply_chat_template(message) == want
    year = with_template(tokenizer, "{{ strftime_now('%Y') }}").apply_chat_template(message)
    assert year == time.strftime("%Y")
    extra = with_template(tokenizer, "{{ mood }}").apply_chat_template(message, mood="calm")
    assert extra == "calm"


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append({}) }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{% if %}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ messages[0].missing.deeper }}",
])
def test_hostile_and_broken_templates_are_prompt_errors(tokenizer: Tokenizer, template: str
                                                        ) -> None:
    with pytest.raises(PromptError) as caught:
        with_template(tokenizer, template).apply_chat_template([{"role": "user", "content": "x"}])
    if "alternate" in template:
        assert "roles must alternate" in str(caught.value)


def test_conversation_errors(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="no chat template"):
        with_template(tokenizer, None).apply_chat_template([])
    with pytest.raises(PromptError, match="Message 0"):
        tokenizer.apply_chat_template(["hello"])  # type: ignore[list-item]


# ---------------------------------------------------------------- built from other sources


def folder_with(tmp_path: Path, backend: object, **settings: object) -> Path:
    backend.save(str(tmp_path / "tokenizer.json"))  # type: ignore[attr-defined]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", **settings}))
    return tmp_path


def test_tokenizer_json_equals_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder_with(tmp_path, tokenizer.backend, bos_token="<|im_start|>",
                eos_token={"content": "<|im_end|>", "__type": "AddedToken"},
                chat_template=tokenizer.chat_template)
    ours = vocabulary.from_folder(tmp_path)
    assert ours is not None
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(0)
    for text in SAMPLES:
        ids = ours.encode(text)
        assert ids == tokenizer.encode(text) == peer.encode(text, add_special_tokens=False)
        broken = [i for i in ids if rng.random() < 0.7]
        for sequence in (ids, broken):
            for skip in (True, False):
                assert ours.decode(sequence, skip_special=skip) == peer.decode(
                    sequence, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    messages = [{"role": "user", "content": "Hi <there> & é"}]
    assert ours.apply_chat_template(messages) == peer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True)
    assert (ours.eos_ids, ours.bos_id) == ((2,), 1)


def trained_backend(kind: str) -> object:
    """A small real vocabulary, trained on this file, in the given style."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    text = Path(__file__).read_text(encoding="utf-8").splitlines(keepends=True)
    if kind == "sentencepiece":
        alphabet = [f"<0x{b:02X}>" for b in range(256)]
        backend = Backend(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                                   normalizers.Replace(" ", "\u2581")])
        backend.decoder = decoders.Sequence([
            decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0)])
        special = ["<unk>", "<s>", "</s>", *alphabet]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
        backend.train_from_iterator([line[:40] for line in text], trainer)
        return backend
    backend = Backend(models.BPE(ignore_merges=kind == "llama-bpe"))
    digits, pattern = vocabulary._RULES[kind]
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern:
        from tokenizers import Regex

        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.normalizer = normalizers.NFC() if kind == "qwen2" else None
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(text, trainer)
    return backend


def gguf_fields(backend: object, kind: str) -> dict[str, object]:
    """The metadata that a converter writes for this vocabulary."""
    description = json.loads(backend.to_str())  # type: ignore[attr-defined]
    vocab = sorted(description["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocab]
    special = {t["content"] for t in description["added_tokens"]}
    merges = [" ".join(pair) for pair in description["model"]["merges"]]
    fields = {"tokens": tokens, "token_type": [3 if t in special else 1 for t in tokens],
              "eos_token_id": 1, "bos_token_id": 0, "add_bos_token": False}
    if kind == "sentencepiece":
        order = {merge.replace(" ", ""): i for i, merge in enumerate(merges)}
        fields |= {"model": "llama", "unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
                   "scores": [-float(order.get(t, 0)) for t in tokens],
                   "token_type": [6 if t.startswith("<0x") else 3 if t in special else 1
                                  for t in tokens]}
    else:
        fields |= {"model": "gpt2", "pre": kind, "merges": merges}
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


@pytest.mark.parametrize("kind", ["smollm", "gpt-2", "llama-bpe", "qwen2", "tekken"])
def test_gguf_fields_rebuild_the_tokenizer(kind: str) -> None:
    backend = trained_backend(kind)
    rebuilt = vocabulary.from_gguf(gguf_fields(backend, kind))
    assert rebuilt is not None
    for text in SAMPLES:
        want = backend.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
        assert rebuilt.encode(text) == want
        assert rebuilt.decode(want) == backend.decode(want)  # type: ignore[attr-defined]


def test_sentencepiece_vocabularies() -> None:
    backend = trained_backend("sentencepiece")
    rebuilt = vocabulary.from_gguf(gguf_fields(backend, "sentencepiece"))
    assert rebuilt is not None
    for text in SAMPLES:
        ids = rebuilt.encode(text)
        assert ids == backend.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
        assert rebuilt.decode(ids, skip_special=False) == text
        stream = rebuilt.stream(skip_special=False)
        assert "".join([*map(stream.push, ids), stream.flush()]) == text
    assert rebuilt.eos_ids == (2,)


def test_beginning_of_text_token() -> None:
    backend = trained_backend("llama-bpe")
    fields = gguf_fields(backend, "llama-bpe")
    del fields["tokenizer.ggml.add_bos_token"]  # Llama 3's rule adds it unless told otherwise
    rebuilt = vocabulary.from_gguf(fields)
    assert rebuilt is not None
    assert rebuilt.encode("Hello", add_special=True) == [0, *rebuilt.encode("Hello")]


def test_refusals(tmp_path: Path) -> None:
    fields = gguf_fields(trained_backend("smollm"), "smollm")
    with pytest.raises(ConfigError, match="'mystery'"):
        vocabulary.from_gguf(fields | {"tokenizer.ggml.pre": "mystery"})
    with pytest.raises(ConfigError, match="'rwkv'"):
        vocabulary.from_gguf(fields | {"tokenizer.ggml.model": "rwkv"})
    with pytest.raises(LoadError, match="token types"):
        vocabulary.from_gguf(fields | {"tokenizer.ggml.token_type": [1, 2]})
    with pytest.raises(LoadError, match="damaged"):
        vocabulary.from_gguf(fields | {"tokenizer.ggml.merges": ["no such pair"]})
    assert vocabulary.from_gguf({}) is None
    assert vocabulary.from_folder(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(LoadError, match=r"tokenizer\.json"):
        vocabulary.from_folder(tmp_path)
