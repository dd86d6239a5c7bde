"""The checks of Lab 6's last two pieces: a layer's influence, and the loss of distillation."""

from __future__ import annotations

import torch
from torch import Tensor

from infero.lab.checking import Check

# ---------------------------------------------------------------- 5: block_influence


def _cosine(x: Tensor, y: Tensor, dim: int = -1) -> Tensor:
    x, y = x.double(), y.double()
    return (x * y).sum(dim) / (x.square().sum(dim) * y.square().sum(dim)).sqrt()


def block_influence(c: Check) -> None:
    """Random states, states that only grow or turn around, and tokens of very different sizes."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for tokens, hidden in [(5, 8), (1, 12), (7, 7), (3, 33)]:
            x = torch.randn(tokens, hidden, generator=g) * (10 * torch.rand(tokens, 1, generator=g)
                                                            + 0.1)
            y = 2 * x + torch.randn(tokens, hidden, generator=g)
            cosine = _cosine(x, y)
            xd, yd = x.double(), y.double()
            whole = float(_cosine(xd.flatten(), yd.flatten()))
            got = c.call(x, y)
            if isinstance(got, Tensor):
                c.expect(got.numel() == 1, "not-averaged",
                         f"The result is one number, the mean over the tokens; yours has "
                         f"{got.numel()}.")
            c.expect(isinstance(got, float), "not-a-float",
                     f"Return a Python float (float(...)); yours is a {type(got).__name__}.")
            c.expect_close(
                torch.tensor(got), torch.tensor(float(1 - cosine.mean()), dtype=torch.float64),
                atol=3e-6, rtol=1e-4, dtype=torch.float32, known={
                    "similarity": ("You return the cosine; influence is 1 minus it.",
                                   cosine.mean()),
                    "whole-tensor": ("You take one cosine of all tokens together; each token has "
                                     "its own, and the mean is over tokens.",
                                     torch.tensor(1 - whole)),
                    "wrong-axis": ("Your cosines run over the tokens, one a feature; a token's "
                                   "cosine runs over its features (the last axis).",
                                   1 - _cosine(x, y, 0).mean()),
                    "sum-not-mean": ("You add the tokens up; take their mean.",
                                     (1 - cosine).sum()),
                    "not-normalised": ("You do not divide by both lengths: that is a product, "
                                       "not a cosine.", 1 - (xd * yd).sum(-1).mean()),
                    "one-length": ("You divide by one of the two lengths only.",
                                   1 - ((xd * yd).sum(-1) / xd.norm(dim=-1)).mean()),
                    "squared-length": ("You divide by the square of one length; divide by the "
                                       "product of both.",
                                       1 - ((xd * yd).sum(-1) / xd.square().sum(-1)).mean()),
                    "of-the-change": ("You compare the input with what the layer adds; compare it "
                                      "with what comes out.", 1 - _cosine(x, y - x).mean()),
                    "absolute": ("You take the absolute value of the cosine: a layer that turns "
                                 "a token around matters most.", 1 - cosine.abs().mean()),
                })
    x = torch.randn(4, 6, generator=c.generator(3))
    c.expect_close(torch.tensor(c.call(x, -3 * x)), 2.0, atol=1e-5, rtol=1e-5, known={
        "absolute": ("A layer that turns every token around has influence 2, the most there is; "
                     "you take the absolute value of the cosine.", 0.0)})
    big = (torch.randn(64, 512, generator=c.generator(4)) * 40).bfloat16()
    near = (big.float() + torch.randn(64, 512, generator=c.generator(5))).bfloat16()
    want = float(1 - _cosine(big, near).mean())
    got = c.call(big, near)
    c.expect(isinstance(got, float) and abs(got - want) < 0.05 * want, "low-precision",
             f"On bfloat16 input the influence is {want:.6f}, and you give {got:.6f}: sums of "
             "hundreds of products need float32. Widen both inputs first.")


# ---------------------------------------------------------------- 6: kd_loss


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of each row, from probabilities."""
    return (p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log())).sum(-1)


def kd_loss(c: Check) -> None:
    """Random logits at several temperatures, extreme ones, bfloat16, and whose gradient it is."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for (tokens, vocab), t in zip([(3, 7), (1, 5), (4, 4), (6, 11)], (2.0, 1.0, 0.5, 4.0),
                                      strict=True):
            s = torch.randn(tokens, vocab, generator=g) * 2
            u = torch.randn(tokens, vocab, generator=g) * 3
            sd, ud = s.double(), u.double()
            p, q = (ud / t).softmax(-1), (sd / t).softmax(-1)
            want = t * t * _kl(p, q).mean()
            hard_p, hard_q = ud.softmax(-1), sd.softmax(-1)
            entropy = -(p * p.log()).sum(-1).mean()
            known = {
                "missing-square": ("The factor temperature ** 2 is missing: without it the "
                                   "gradient shrinks as the temperature grows.",
                                   _kl(p, q).mean()),
                "factor-once": ("You multiply by the temperature once; multiply by its square.",
                                t * _kl(p, q).mean()),
                "reversed": ("That is KL(student || teacher): the teacher's probabilities must "
                             "weigh the differences.", t * t * _kl(q, p).mean()),
                "hard": ("The temperature does not divide the logits.",
                         t * t * _kl(hard_p, hard_q).mean()),
                "hard-alone": ("The temperature does not enter.", _kl(hard_p, hard_q).mean()),
                "one-sided": ("Only the teacher's logits are divided by the temperature.",
                              t * t * _kl(p, hard_q).mean()),
                "other-sided": ("Only the student's logits are divided by the temperature.",
                                t * t * _kl(hard_p, q).mean()),
                "multiplied": ("You multiply the logits by the temperature; divide.",
                               t * t * _kl((ud * t).softmax(-1), (sd * t).softmax(-1)).mean()),
                "cross-entropy": ("That is the cross-entropy; subtract the teacher's own entropy, "
                                  "so that equal distributions give 0.",
                                  t * t * (_kl(p, q).mean() + entropy)),
                "mean-over-vocab": ("You average over the vocabulary; the terms of one token are "
                                    "summed.", t * t * _kl(p, q).mean() / vocab),
                "sum-over-tokens": ("You add the tokens up; take their mean.",
                                    t * t * _kl(p, q).sum()),
                "wrong-axis": ("Your softmax runs over the tokens; it runs over the vocabulary, "
                               "the last axis.",
                               t * t * _kl((ud / t).softmax(0), (sd / t).softmax(0)).mean()),
                "probabilities-tempered": (
                    "You divide probabilities by the temperature; divide the logits, before the "
                    "softmax.", t * t * _kl(hard_p / t, hard_q / t).mean()),
            }
            got = c.call(s, u, t)
            c.expect(isinstance(got, Tensor), "not-a-tensor",
                     f"Return a tensor, so that it has a gradient; yours is a "
                     f"{type(got).__name__}.")
            c.expect(got.dim() == 0, "not-averaged",
                     f"The loss is one number; yours has the shape {tuple(got.shape)}.")
            c.expect_close(got, want, atol=1e-5, rtol=1e-4, dtype=torch.float32, known=known)
    same = torch.randn(3, 9, generator=c.generator(1))
    c.expect_close(c.call(same, same.clone(), 3.0), 0.0, atol=1e-5, rtol=0.0, known={
        "cross-entropy": ("A student that equals its teacher has a loss of 0; yours has the "
                          "teacher's entropy left.", lambda: -9.0 * (
                              (same / 3).softmax(-1) * (same / 3).log_softmax(-1)).sum(-1).mean())})
    _extremes(c)
    _gradient(c)


def _extremes(c: Check) -> None:
    """Probabilities that underflow, and logits in bfloat16."""
    s = torch.tensor([[0.0, 200.0, -50.0], [3.0, 1.0, 0.0]])
    t = torch.tensor([[150.0, 0.0, -50.0], [3.0, 1.0, 0.0]])
    got = c.call(s, t, 1.0)
    c.expect(bool(torch.isfinite(got).all()), "underflow",
             "With sharp distributions your loss is not finite: the logarithm of a probability "
             "that is 0 is minus infinity. Use log_softmax, not log of softmax.")
    c.expect_close(got, 100.0, atol=1e-3, rtol=1e-4)
    g = c.generator(2)
    s, t = ((torch.randn(8, 300, generator=g) * 3).bfloat16() for _ in range(2))
    want = 4 * _kl((t.double() / 2).softmax(-1), (s.double() / 2).softmax(-1)).mean()
    got = c.call(s, t, 2.0)
    c.expect(got.dtype == torch.float32 and abs(float(got) / float(want) - 1) < 1e-3,
             "low-precision", f"On bfloat16 logits the loss is {float(want):.5f} in float32; yours "
             f"is {float(got):.5f} in {str(got.dtype)[6:]}. Widen the logits first.")


def _gradient(c: Check) -> None:
    """The student must learn, and the teacher must not."""
    g = c.generator(6)
    student, teacher = (torch.randn(3, 6, generator=g).requires_grad_() for _ in range(2))
    try:
        with c.guard(), torch.enable_grad():
            loss = c.candidate(student, teacher, 2.0)
            c_grad = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    except RuntimeError as error:
        c.expect("does not require grad" not in str(error), "no-gradient",
                 "Your loss carries no gradient to the student: only the teacher is detached.")
        raise c.explain(error, (student, teacher, 2.0)) from error
    mine, theirs = c_grad
    c.expect(mine is not None and bool(mine.any()), "no-gradient",
             "Your loss carries no gradient to the student: only the teacher is detached.")
    c.expect(theirs is None or not bool(theirs.any()), "teacher-learns",
             "The teacher gets a gradient too, and would move towards its student: detach its "
             "logits.")
