"""The language of checks: what a learner reads for each kind of mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from infero.lab import examine, pieces
from infero.lab.checking import Check, Mistake, Unfinished, seed_of_grading, try_out

NORM = pieces.find("infero.model.rms_norm")
AXES = ("token", "head", "feature")


def right(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def mistake_of(function: Callable[..., Any], **options: Any) -> Mistake:
    check = Check("infero.model.rms_norm", function, right)
    g = check.generator(0)
    x, w = torch.randn(5, 3, 8, generator=g), torch.rand(8, generator=g) + 0.5
    with pytest.raises(Mistake) as caught:
        check.expect_close(check.call(x, w, 0.1), right(x, w, 0.1), axes=AXES, **options)
    return caught.value


def test_the_right_answer_is_silent() -> None:
    check = Check("infero.model.rms_norm", right, right)
    x, w = torch.randn(5, 3, 8), torch.ones(8)
    check.expect_close(check.call(x, w, 0.1), right(x.double(), w.double(), 0.1), axes=AXES)


def changed(change: Callable[[Tensor], Tensor | None]) -> Callable[..., Any]:
    return lambda x, weight, eps: change(right(x, weight, eps))


def one_head(y: Tensor) -> Tensor:
    y[3:, 1] += 1
    return y


@pytest.mark.parametrize(("function", "key", "words"), [
    (changed(lambda y: None), "returns-none", "return"),
    (changed(lambda y: y.tolist()), "wrong-type", "should be a tensor"),
    (changed(lambda y: y.transpose(0, 1)), "wrong-shape", "5 tokens, 3 heads, 8 features"),
    (changed(lambda y: y[:, 0]), "wrong-shape", "head axis is missing"),
    (changed(lambda y: y[None]), "wrong-shape", "axis of size 1"),
    (changed(lambda y: y[:4]), "wrong-shape", "token axis has 4"),
    (changed(lambda y: y.double()), "wrong-dtype", "torch.float32"),
    (changed(lambda y: y.to("meta")), "wrong-device", "device"),
    (changed(lambda y: y.log()), "nan", "NaN at token"),
    (changed(lambda y: y * 2), "scaled", "times 2"),
    (changed(lambda y: -y), "negated", "sign"),
    (changed(lambda y: y + 3), "offset", "plus 3"),
    (changed(lambda y: y.roll(1, 0)), "shifted", "one token too late"),
    (changed(lambda y: y.flip(1)), "reversed", "head axis reversed"),
    (changed(lambda y: y * 0), "zeros", "0"),
    (changed(lambda y: y + 1e-3 * torch.randn_like(y)), "precision", "close"),
    (changed(lambda y: torch.cat((y[:-1], y[-1:] * 2))), "edge", "Only the last token"),
    (changed(one_head), "wrong-values", "token 3, head 1, feature 0"),
])  # fmt: skip
def test_words_and_keys(function: Callable[..., Any], key: str, words: str) -> None:
    mistake = mistake_of(function)
    assert mistake.key == key, mistake.words
    assert words in mistake.words


def test_it_says_what_agrees() -> None:
    details = mistake_of(changed(one_head)).details
    assert "Tokens 0–2 agree; 3 and 4 differ." in details
    assert "Heads 0 and 2 agree; 1 differ." in details


def test_a_known_mistake_is_named() -> None:
    check = Check("infero.model.rms_norm", changed(lambda y: 2 * y), right)
    x, w = torch.randn(4, 8), torch.ones(8)
    known = {"twice": ("You doubled it.", lambda: 2 * right(x, w, 0.1))}
    with pytest.raises(Mistake) as caught:
        check.expect_close(check.call(x, w, 0.1), right(x, w, 0.1), known=known)
    assert caught.value.key == "twice"
    assert caught.value.words == "You doubled it."
    assert "you gave" in caught.value.details[0]


def test_a_known_mistake_of_another_shape_is_named() -> None:
    want = torch.randn(4, 8)
    check = Check("infero.model.rms_norm", right, right)
    with pytest.raises(Mistake) as caught:
        check.expect_close(want.T, want, known={"t": ("Transposed.", want.T)})
    assert caught.value.key == "t"


def test_inputs_must_not_change() -> None:
    mistake = mistake_of(lambda x, weight, eps: x.mul_(2))
    assert mistake.key == "mutates-input"
    assert "`x`" in mistake.words


def test_wrong_arguments() -> None:
    assert mistake_of(lambda x: x).key == "signature"


def test_not_written_yet() -> None:
    def stub(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        raise NotImplementedError("Lab 1, exercise 1")

    assert isinstance(mistake_of(stub), Unfinished)


def test_an_exception_tells_its_inputs() -> None:
    mistake = mistake_of(lambda x, weight, eps: x @ torch.ones(3))
    assert mistake.key == "raises"
    assert "x = a tensor of shape [5, 3, 8]" in mistake.details[0]


def test_generators_are_watched_while_they_run() -> None:
    def count(n: int) -> Iterator[int]:
        for i in range(n):
            yield i
            if i == 2:
                raise ValueError("too far")

    check = Check("infero.model.rms_norm", count, right)
    assert list(check.call(2)) == [0, 1]
    steps = check.call(9)
    assert [next(steps) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Mistake, match="too far"):
        next(steps)


@pytest.mark.parametrize(("got", "want", "key"), [
    ([1, 2, 3], [1, 2, 4], "wrong-values"),
    ([1, 2], [1, 2, 4], "wrong-length"),
    (None, [1], "returns-none"),
    ("a", "b", "wrong-values"),
    (3, 4, "wrong-values"),
    (torch.tensor(3.0), 4.0, "wrong-values"),
    (torch.ones(2), 4.0, "wrong-type"),
    ("4", 4, "wrong-type"),
    (torch.tensor([1, 2]), torch.tensor([1, 3]), "wrong-values"),
    (torch.tensor([True, True]), torch.tensor([True, False]), "edge"),
])  # fmt: skip
def test_plain_values(got: object, want: object, key: str) -> None:
    check = Check("infero.model.rms_norm", right, right)
    with pytest.raises(Mistake) as caught:
        check.expect_equal(got, want, axes=("token",))
    assert caught.value.key in (key, "wrong-values"), caught.value.words


@pytest.mark.parametrize("value", [
    [1, 2, 3], 3, 0.25, "text", None, True, torch.tensor([1, 2]), [[1], [2, 3]], (1, 2),
    torch.tensor([1.0, -torch.inf]), [torch.ones(2), torch.zeros(1)],
])  # fmt: skip
def test_equal_values_pass(value: object) -> None:
    Check("infero.model.rms_norm", right, right).expect_equal(value, value)
    Check("infero.model.rms_norm", right, right).expect_close(value, value)


def test_infinities_are_compared_by_place() -> None:
    want = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, 2.0, -torch.inf]])
    got = torch.tensor([[1.0, -torch.inf, 2.0], [1.0, -torch.inf, -torch.inf]])
    check = Check("infero.model.rms_norm", right, right)
    check.expect_close(want.clone(), want)
    with pytest.raises(Mistake) as caught:
        check.expect_close(got, want, axes=("row", "token"))
    assert caught.value.key == "too-many-inf"
    assert "row 1, token 1: you gave -inf, expected 2" in caught.value.words


def test_seeds_are_fixed_for_learners_and_secret_for_graders() -> None:
    learner = Check("infero.model.rms_norm", right, right)
    assert learner.seeds(3) == Check("infero.model.rms_norm", right, right).seeds(3)
    graded = [
        Check("infero.model.rms_norm", right, right, grade_seed=s).seeds(3) for s in (1, 1, 2)
    ]
    assert graded[0] == graded[1] != graded[2]
    assert graded[0] != learner.seeds(3)


def test_the_grading_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERO_GRADE_SEED", "17")
    assert seed_of_grading() == 17
    monkeypatch.setenv("INFERO_GRADE_SEED", "autumn")
    assert seed_of_grading() == seed_of_grading()
    monkeypatch.delenv("INFERO_GRADE_SEED")
    assert seed_of_grading() != seed_of_grading()


def test_try_out() -> None:
    from infero.model import rms_norm

    assert try_out("model.rms_norm", rms_norm) is None
    found = try_out("model.rms_norm", lambda x, weight, eps: rms_norm(x, weight, 0.0))
    assert found is not None
    assert found.key == "missing-eps"


# -- whole cells ----------------------------------------------------------------------------------

GOOD = """\
#| exercise: infero.model.rms_norm
def widened(x):
    return x.float()


def rms_norm(x, weight, eps):
    wide = widened(x)
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
"""


def outcome_of(text: str, piece: pieces.Piece = NORM) -> Mistake | None:
    return examine.text(piece, text).mistake


def test_a_cell_with_a_helper_passes() -> None:
    outcome = examine.text(NORM, GOOD)
    assert outcome.passed
    assert outcome.speed is not None
    assert 0.02 < outcome.speed < 50


HEAD = "#| exercise: infero.model.rms_norm\n"
BODY = "    wide = x.float()\n    return wide\n"


@pytest.mark.parametrize(("text", "key", "words"), [
    (GOOD.replace("def widened(x):\n    return x.float()\n", ""), "borrowed-name",
     "`widened` is defined in another cell"),
    (GOOD.replace("x.float()", "np.float32(x)"), "borrowed-name", "`np`"),
    (GOOD.replace("widened(x)\n    return (", "swiglu(x, x)\n    return ("), "borrowed-name",
     "`model.swiglu(...)`"),
    (GOOD.replace("def rms_norm", "def my_norm"), "no-function", "`rms_norm`"),
    (HEAD + "class rms_norm:\n    pass\n", "not-a-function", "plain function"),
    (GOOD.replace("x.float()", "x.float("), "syntax", "line 3"),
    (GOOD + "%timeit rms_norm(1, 2, 3)\n", "syntax", "command of the notebook"),
    (GOOD + "1 / 0\n", "raises", "line 9"),
    (GOOD.replace("(x, weight, eps):", "(x, eps, weight):"), "signature",
     "rms_norm(x, weight, eps)"),
    (GOOD.replace("eps):", "eps=1e-5):"), "signature", "eps=1e-05"),
    (GOOD.replace("    return x.float()", "    return [x][1]"), "raises", "line 3 of your cell"),
    (HEAD + "def rms_norm(x, weight, eps):\n    raise NotImplementedError('Lab 1')\n", "unfinished",
     "Not written yet"),
    (HEAD + "def rms_norm(x, weight, eps):\n    pass\n", "returns-none", "return"),
])  # fmt: skip
def test_cells(text: str, key: str, words: str) -> None:
    mistake = outcome_of(text)
    assert mistake is not None
    assert mistake.key == key, mistake.words
    assert words in mistake.words.replace("the exercise cell", "your cell")


@pytest.mark.parametrize("body", [
    "    from infero.model import rms_norm as key\n    return key(x, weight, eps)\n",
    "    import infero.model\n    return infero.model.rms_norm(x, weight, eps)\n",
    "    from infero import model\n    return getattr(model, 'rms_' + 'norm')(x, weight, eps)\n",
    "    import sys\n    return sys.modules['infero.model'].rms_norm(x, weight, eps)\n",
    "    from infero.lab import swap\n"
    "    return swap.reference('model.rms_norm')(x, weight, eps)\n",
    "    from infero.lab import swap\n"
    "    return swap._references['infero.model.rms_norm'](x, weight, eps)\n",
    "    import importlib, infero.model as m\n"
    "    return importlib.reload(m).rms_norm(x, weight, eps)\n",
    "    import sys, importlib\n    del sys.modules['infero.model']\n"
    "    return importlib.import_module('infero.model').rms_norm(x, weight, eps)\n",
    "    import types, infero.model as m\n    f = m.rms_norm\n"
    "    return types.FunctionType(f.__code__, f.__globals__)(x, weight, eps)\n",
    "    from infero import model\n    try:\n        return model.rms_norm(x, weight, eps)\n"
    "    except Exception:\n        return x / (x.pow(2).mean(-1, True) + eps).sqrt() * weight\n",
])  # fmt: skip
def test_the_answer_key_cannot_be_called(body: str) -> None:
    from infero import model

    before, names = model.rms_norm, dict(vars(model))
    mistake = outcome_of(HEAD + "def rms_norm(x, weight, eps):\n" + body)
    assert mistake is not None
    assert mistake.key == "answer-key", mistake.words
    assert "calls the answer key" in mistake.words
    assert sys.modules["infero.model"] is model
    assert model.rms_norm is before
    assert all(vars(model)[name] is value for name, value in names.items())
    assert before(torch.ones(1, 2), torch.ones(2), 0.0).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("line", [
    "from infero.model import rms_norm\n",
    "from infero import model\nrms_norm = model.rms_norm\n",
    "from infero import model\nkey = model.rms_norm\ndef rms_norm(x, weight, eps):\n"
    "    return key(x, weight, eps)\n",
])  # fmt: skip
def test_the_answer_key_cannot_be_taken_at_the_top(line: str) -> None:
    mistake = outcome_of(HEAD + line)
    assert mistake is not None
    assert mistake.key == "answer-key", mistake.words


def test_other_pieces_are_the_reference_and_can_be_called() -> None:
    text = """\
#| exercise: infero.model.swiglu
from infero import model


def swiglu(gate, up):
    model.rms_norm(gate, torch.ones(gate.shape[-1], dtype=gate.dtype), 1e-5)
    return gate * torch.sigmoid(gate) * up
"""
    assert outcome_of(text, pieces.find("model.swiglu")) is None


def test_an_endless_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "LIMIT_S", 0.3)
    mistake = outcome_of(HEAD + "def rms_norm(x, weight, eps):\n    while True:\n        pass\n")
    assert mistake is not None
    assert mistake.key == "endless"


def test_the_random_state_of_the_notebook_is_left_alone() -> None:
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    examine.text(NORM, GOOD.replace("    wide =", "    torch.rand(7)\n    wide ="))
    assert torch.equal(torch.rand(2), want)
