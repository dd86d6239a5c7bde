"""The student: its file and loader, what a draft is worth, pruning first, how it is trained."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infero.compress import distill, eagle, minitron, student
from infero.errors import ConfigError, LoadError
from infero.kernels import formats
from infero.llm import LLM
from infero.model import Model, random_model
from infero.sampling import SamplingParams
from tests.conftest import tiny_config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are too small for two



@pytest.fixture
def target() -> Model:
    model = random_model(tiny_config(tie_embeddings=True, num_layers=4), seed=5)
    model.name = "tiny"
    return model


@pytest.fixture
def saved(target: Model, tmp_path: Path) -> Path:
    path = tmp_path / "draft.safetensors"
    small = minitron.prune(target, [0, 3])
    student.save(small, path, torch.arange(200, 0, -1), dict(steps=3))
    return path


# ---------------------------------------------------------------- the file


def test_it_comes_back_and_shares_the_target(target: Model, saved: Path) -> None:
    found = student.load(target, saved)
    assert found.embedding is target.embedding and found.head is target.head
    assert found.config.num_layers == len(found.layers) == 2
    assert found.name == "draft" and found.tokenizer is target.tokenizer
    for mine, index in zip(found.layers, (0, 3), strict=True):
        for name in student.MATRICES:
            was, now = getattr(target.layers[index], name), getattr(mine, name)
            assert now.dtype == target.dtype and now.shape == was.shape
            half_step = was.abs().amax(dim=1, keepdim=True) / 127 / 2
            assert bool(((was - now).abs() <= 1.01 * half_step).all())


def test_bytes_run_as_well(target: Model, saved: Path) -> None:
    dense, packed = student.load(target, saved), student.load(target, saved, weights="int8")
    assert isinstance(packed.layers[0].qkv, formats.Int8Weight)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    a, b = (LLM(m).generate([3, 1, 4], params)[0].tokens for m in (dense, packed))
    assert a == b and len(a) == 8


def test_the_file_says_what_it_is(target: Model, saved: Path) -> None:
    about = student.facts(saved)
    assert (about.name, about.target, about.layers) == ("draft", "tiny", 2)
    assert about.training == dict(steps=3)
    assert about.parameters == student.parameters_of(student.load(target, saved))
    assert saved.stat().st_size - student.size_of(2, 80, target) < 4096


def test_another_target_is_refused(target: Model, saved: Path) -> None:
    other = random_model(replace(target.config, vocab_size=210), seed=5)
    with pytest.raises(ConfigError, match=r"trained for tiny with vocab_size 211.*has 210"):
        student.load(other, saved)
    with pytest.raises(ConfigError, match="other weights"):
        student.load(random_model(target.config, seed=6), saved)
    with pytest.raises(ConfigError, match="int3"):
        student.load(target, saved, weights="int3")  # type: ignore[arg-type]


def test_a_rounded_target_is_the_same_target(target: Model, saved: Path) -> None:
    half = replace(target, embedding=target.embedding.bfloat16())
    assert student.load(half, saved).dtype == torch.bfloat16


def test_damaged_files(target: Model, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"benchmarks\.student"):
        student.load(target, tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(LoadError, match="restore it"):
        student.load(target, torn)
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved)
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, {"infero": json.dumps(dict(format="0"))})
    with pytest.raises(LoadError, match="another format"):
        student.load(target, other)
    del tensors["1.down.values"]
    save_file(tensors, other, {"infero": json.dumps(dict(
        format="1", name="x", target="tiny", layers=2, intermediate=80, parameters=1, config={},
        training={}))})
    with pytest.raises(LoadError, match=r"1\.down\.values"):
        student.load(target, other)


# ---------------------------------------------------------------- the shortlist


def test_a_shortlist_has_the_heads_rows(target: Model, saved: Path) -> None:
    ids = student.vocabulary(7, saved)
    assert ids.tolist() == [200, 199, 198, 197, 196, 195, 194]
    short = student.shortlisted(student.load(target, saved), ids)
    assert torch.equal(short.head, target.head[ids])
    whole = formats.quantize_model(target, "int8")
    packed = student.shortlisted(whole, ids)
    assert torch.equal(packed.head.dequantize(), whole.head.dequantize()[ids])


def test_shortlists_that_cannot_be(target: Model, saved: Path) -> None:
    with pytest.raises(ConfigError, match=r"201 tokens.*holds 200"):
        student.vocabulary(201, saved)
    for ids, words in (([], "at least one"), ([0, 211], "0 to 210"), ([1, 2, 1], "twice")):
        with pytest.raises(ConfigError, match=words):
            student.shortlisted(target, ids)
    with pytest.raises(ConfigError, match="Int4Weight"):
        student.shortlisted(formats.quantize_model(target, "int4"), [1])


# ---------------------------------------------------------------- what a draft is worth


def test_tokens_a_pass_at_the_ends() -> None:
    for draft in (1, 3):
        assert student.tokens_a_pass(torch.ones(2, 40), [40, 33], draft) == draft + 1
        assert student.tokens_a_pass(torch.zeros(2, 40), [40, 33], draft) == 1


def test_tokens_a_pass_is_the_formula_for_one_rate() -> None:
    found = student.tokens_a_pass(torch.full((1, 400), 0.6), [400], 4)
    assert found == pytest.approx(distill.expected_length(0.6, 4), rel=1e-6)


def test_tokens_a_pass_is_what_dice_give() -> None:
    generator, draw = torch.Generator().manual_seed(3), random.Random(1)
    chances = torch.rand(3, 30, generator=generator)
    lengths, draft = [30, 11, 24], 3
    passes = tokens = 0
    for _ in range(3000):
        for row, length in zip(chances.tolist(), lengths, strict=True):
            at = 0
            while at + draft < length:
                given = 0
                while given < draft and draw.random() < row[at + given]:
                    given += 1
                passes, tokens, at = passes + 1, tokens + given + 1, at + given + 1
    assert student.tokens_a_pass(chances, lengths, draft) == pytest.approx(tokens / passes, 0.01)


# ---------------------------------------------------------------- prune, then distil


def test_the_ends_of_a_model() -> None:
    assert [minitron.ends(30, n) for n in (1, 2, 3, 4)] == [[0], [0, 29], [0, 1, 29],
                                                            [0, 1, 28, 29]]
    assert minitron.ends(3, 3) == [0, 1, 2]
    with pytest.raises(ConfigError, match="31 layers"):
        minitron.ends(30, 31)


def test_pruning_keeps_the_neurons_that_matter(target: Model) -> None:
    loud = torch.arange(0, 80, 2)
    target.layers[3].down[:, loud] *= 50
    ids = torch.randint(0, 211, (2, 16), generator=torch.Generator().manual_seed(0))
    small = minitron.prune(target, [0, 3], 40, ids)
    assert small.config.intermediate_size == 40 and small.config.num_layers == 2
    assert torch.equal(small.layers[1].down, target.layers[3].down[:, loud])
    assert small.layers[0].qkv is target.layers[0].qkv
    with pytest.raises(ConfigError, match="give ids"):
        minitron.prune(target, [0], 40)
    with pytest.raises(ConfigError, match="99 neurons"):
        minitron.prune(target, [0], 99, ids)


def test_distilling_mends_what_pruning_broke(target: Model) -> None:
    ids = torch.randint(0, 211, (16, 16), generator=torch.Generator().manual_seed(0))
    pruned = minitron.prune(target, [0, 3], 40, ids)
    mended = minitron.prune_and_distil(target, [0, 3], 40, ids,
                                       distill.Recipe(peak=3e-3), steps=30)
    assert mended.dtype == target.dtype and not mended.layers[0].qkv.requires_grad
    assert minitron.divergence(mended, target, ids) < 0.6 * minitron.divergence(pruned, target, ids)


# ---------------------------------------------------------------- the program


def test_the_training_program_runs(tmp_path: Path) -> None:
    from benchmarks import student as program

    assert program.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*/student.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert {"acceptance", "acceptance_greedy", "acceptance_t06", "acceptance_t10", "kl", "cost",
            "acceptance_start", "bytes", "parameters", "train_tokens", "shortlist_cost",
            "perplexity", "teacher_perplexity"} <= set(data["values"])
    assert {"curve", "ablation", "tokens_a_pass", "shortlist", "promise", "eagle_curve",
            "eagle_acceptance", "eagle_tokens_a_pass"} <= set(data["tables"])
    about = student.facts(tmp_path / student.FILE.name)
    assert about.layers == data["values"]["layers"]["value"]
    again = ["--smoke", "--device", "cpu", "--out", str(tmp_path / "2"), "--shape", "1", "48",
             "--corpus", str(tmp_path / "corpus_0.npz"), "--earlier", str(path)]
    assert program.main(again) == 0
    (second,) = (tmp_path / "2").glob("*/student.json")
    then = json.loads(second.read_text(encoding="utf-8"))
    assert then["tables"]["shapes"] == data["tables"]["ablation"]
    assert then["values"]["texts"]["value"] == data["values"]["texts"]["value"]


def test_text_goes_through_its_file(tmp_path: Path) -> None:
    from benchmarks.student_corpus import Text, read, save

    texts = [Text([1, 49151, 3], 1, 0.6), Text([7] * 20, 5, 0.0, True)]
    save(texts, tmp_path / "a.npz")
    assert read(tmp_path / "a.npz") == texts


def test_what_counts_is_what_the_target_wrote() -> None:
    from benchmarks.student_corpus import Text, examples

    texts = [Text([1, 2, 3, 4, 5], 3, 1.0), Text([9, 8], 1, 1.0)]
    (batch,) = examples(texts, 100, torch.device("cpu"))
    assert batch.ids.shape == (2, 32)  # widths are multiples of 32
    assert batch.ids[:, :6].tolist() == [[9, 8, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0]]
    assert batch.positions is not None and batch.positions.tolist() == [0, 1, 34, 35, 36]
    assert len(examples(texts, 5, torch.device("cpu"))) == 2


def test_prompts_for_judging_are_never_trained_on() -> None:
    from benchmarks import student_prompts as prompts

    held = [s for s in prompts.SUBJECTS if prompts.held_out(s)]
    assert 20 < len(held) < 40
    assert not set(prompts.HELD_QUESTIONS) & set(prompts.QUESTIONS)
    assert len(set(prompts.SUBJECTS)) == len(prompts.SUBJECTS)


# ---------------------------------------------------------------- what is shipped


@pytest.mark.skipif(not student.FILE.is_file(), reason="the student is not trained yet")
def test_the_shipped_student(smollm2: Model) -> None:
    about = student.facts()
    assert student.FILE.stat().st_size <= student.LIMIT_BYTES
    found = student.load(smollm2)
    assert found.head is smollm2.head and about.layers == len(found.layers)
    assert sorted(set(student.vocabulary().tolist())) == sorted(student.vocabulary().tolist())
    tokenizer = smollm2.tokenizer
    assert tokenizer is not None
    prompt = tokenizer.encode(tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tell me about the sea."}]))
    answer = LLM(smollm2).generate(prompt, SamplingParams(temperature=0, max_tokens=48))[0].tokens
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        guesses = distill.logits(found, distill.states(found, ids)[0]).argmax(-1)
    same = [int(guesses[i - 1]) == int(ids[0, i]) for i in range(len(prompt), ids.shape[1])]
    assert sum(same) / len(same) > 0.3


@pytest.mark.skipif(not eagle.FILE.is_file(), reason="the state reader is not trained yet")
def test_the_shipped_state_reader(smollm2: Model) -> None:
    assert eagle.FILE.stat().st_size + student.FILE.stat().st_size <= student.LIMIT_BYTES
    reader = eagle.load(smollm2)
    tokenizer = smollm2.tokenizer
    assert tokenizer is not None
    prompt = tokenizer.encode(tokenizer.apply_chat_template(
        [{"role": "user", "content": "Tell me about the sea."}]))
    answer = LLM(smollm2).generate(prompt, SamplingParams(temperature=0, max_tokens=40))[0].tokens
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        features = distill.states(smollm2, ids)
        found = eagle.states(reader, ids, eagle.before(features))
        guesses = distill.logits(reader.model, found[0]).argmax(-1)
    same = [int(guesses[i - 1]) == int(ids[0, i]) for i in range(len(prompt), ids.shape[1])]
    assert sum(same) / len(same) > 0.4
