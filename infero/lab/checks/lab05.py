"""What Lab 5 demands of its seven pieces, and the mistakes it knows by name.

Here are the blocks (join_nibbles, decode_q4_1), GPTQ's two halves and the straight-through
gradient; AWQ's search and the knapsack are in `lab05_choices.py` and are named here too. Oracles
are computed in float64 or with Python's integers. Inputs of rounding keep away from halves, so that
the order of two additions decides nothing. Chapter 5 explains the pieces.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import torch
from torch import Tensor

from infero.lab.checking import Check, Known, Mistake
from infero.lab.checks.lab05_choices import choose, search

__all__ = ["choose", "decode_q4_1", "inverse_factor", "join_nibbles", "quantize_block", "search",
           "straight_through"]

# ---------------------------------------------------------------- 1a: join_nibbles


def join_nibbles(c: Check) -> None:
    """Random codes in one, two and three axes; many are 8 and more."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for lead in ((), (3,), (2, 5)):
            codes = torch.randint(0, 16, (*lead, 32), generator=g).to(torch.uint8)
            got = c.call(codes)
            low, high = codes[..., :16].int(), codes[..., 16:].int()
            c.expect_equal(got, (low + 16 * high).to(torch.uint8), axes=_axes(lead, "byte"),
                           what="the packed bytes", known=_joined(codes, low, high))


def _joined(codes: Tensor, low: Tensor, high: Tensor) -> Known:
    even, odd = codes[..., 0::2].int(), codes[..., 1::2].int()

    def octet(t: Tensor) -> Tensor:
        return (t & 255).to(torch.uint8)

    return {
        "neighbours": ("Byte j holds codes 2j and 2j + 1. Here a byte holds codes that are 16 "
                       "apart: j and j + 16", octet(even + 16 * odd)),
        "neighbours-high-first": ("Byte j holds codes 2j (above) and 2j + 1. It should hold code j "
                                  "below and code j + 16 above", octet(16 * even + odd)),
        "high-first": ("The halves of each byte have changed places: code j belongs in the low "
                       "four bits", octet(16 * low + high)),
        "no-shift": ("Both codes are in the low four bits, on top of each other: shift the second "
                     "one left by 4", octet(low | high)),
        "second-only": ("The low four bits are empty: code j is missing", octet(16 * high)),
        "first-only": ("The high four bits are empty: code j + 16 is missing", octet(low)),
        "reversed": ("Byte j holds code j and code 31 - j: the second half of the codes runs "
                     "backwards", octet(low + 16 * high.flip(-1))),
    }


def _axes(lead: tuple[int, ...], last: str) -> tuple[str, ...]:
    return (("batch", "row")[2 - len(lead):] if lead else ()) + (last,)


# ---------------------------------------------------------------- 1b: decode_q4_1


def decode_q4_1(c: Check) -> None:
    """Bytes packed by Python's struct, one block and several, minima of either sign."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for lead, blocks in (((), 1), ((3,), 2), ((2, 2), 3)):
            count = blocks * torch.Size(lead).numel()
            d = (0.01 + torch.rand(count, generator=g)).half()
            m = torch.randn(count, generator=g).half()
            codes = torch.randint(0, 16, (count, 32), generator=g)
            data = torch.tensor([list(_block(d[i].item(), m[i].item(), codes[i].tolist()))
                                 for i in range(count)], dtype=torch.uint8)
            shape = (*lead, blocks * 32)
            want = (d.double()[:, None] * codes + m.double()[:, None]).float().view(shape)
            got = c.call(data.view(*lead, blocks * 20))
            c.expect_close(got, want, axes=_axes(lead, "number"), atol=1e-6, rtol=1e-6,
                           what="the decoded numbers", known=_decoded(d, m, codes, shape))


def _block(d: float, m: float, codes: list[int]) -> bytes:
    return struct.pack("<ee16B", d, m, *(codes[j] | codes[j + 16] << 4 for j in range(16)))


def _decoded(d: Tensor, m: Tensor, codes: Tensor, shape: tuple[int, ...]) -> Known:
    scale, low = d.float()[:, None], m.float()[:, None]
    order = torch.arange(32).view(2, 16).T.flatten()  # 0, 16, 1, 17, ...
    swapped = torch.cat((codes[:, 16:], codes[:, :16]), dim=1)
    return {
        "neighbours": ("The two codes of a byte come out side by side. The low halves of all 16 "
                       "bytes are codes 0 to 15, the high halves codes 16 to 31",
                       (scale * codes[:, order] + low).view(shape)),
        "halves-swapped": ("The high halves come first: the low four bits hold codes 0 to 15",
                           (scale * swapped + low).view(shape)),
        "no-minimum": ("The minimum m is not added", (scale * codes).view(shape)),
        "minimum-subtracted": ("The minimum m is subtracted; Q4_1 adds it (a number is d * code + "
                               "m)", (scale * codes - low).view(shape)),
        "minimum-scaled": ("m is multiplied by d: it is a number already, not a code",
                           (scale * (codes + low)).view(shape)),
        "eight-subtracted": ("8 is subtracted from the codes. That is Q4_0, which has no minimum",
                             (scale * (codes - 8) + low).view(shape)),
        "d-and-m-swapped": ("Scale and minimum have changed places: d is in bytes 0 and 1",
                            (low * codes + scale).view(shape)),
        "low-bits-only": ("Codes 16 to 31 repeat codes 0 to 15: the high four bits are not read",
                          (scale * codes[:, :16].repeat(1, 2) + low).view(shape)),
        "first-scale": ("Every block uses the scale and minimum of the first one",
                        (scale[:1] * codes + low[:1]).view(shape)),
    }


# ---------------------------------------------------------------- 2: inverse_factor


def inverse_factor(c: Check) -> None:
    """Hessians of correlated inputs, some always 0, one with fewer tokens than inputs."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for size, tokens, damping, dead in ((5, 40, 0.01, ()), (12, 30, 0.1, ()), (7, 5, 0.05, ()),
                                            (9, 50, 0.1, (0, 6)), (1, 4, 0.2, ())):
            x = torch.randn(tokens, size, generator=g)
            x = (x + torch.randn(tokens, 1, generator=g)) * (0.2 + torch.rand(size, generator=g))
            x[:, list(dead)] = 0
            hessian = x.T @ x / tokens
            dtype = torch.float64 if size == 12 else torch.float32
            got = c.call(hessian.to(dtype), damping)
            _judge_factor(c, got, hessian, damping, dtype)


def damped(hessian: Tensor, damping: float, late: bool = False) -> Tensor:
    """H in float64, with 1 for dead inputs, and damped; late: the mean is taken without the 1s."""
    h = hessian.double().clone()
    mean = h.diagonal().mean()
    h.diagonal()[h.diagonal() == 0] = 1
    mean = mean if late else h.diagonal().mean()
    return h + damping * mean * torch.eye(len(h), dtype=torch.float64)


def _judge_factor(c: Check, got: Any, hessian: Tensor, damping: float,
                  dtype: torch.dtype) -> None:
    h = damped(hessian, damping)
    want = _upper(torch.linalg.inv(h))
    plain = hessian.double()
    eye = torch.eye(len(h), dtype=torch.float64)
    mean = h.diagonal().mean() / (1 + damping)
    known: dict[str, tuple[str, Any]] = {
        "lower": ("This is the lower factor L with L L^T = H^-1. The columns are rounded from left "
                  "to right, which needs the upper one: cholesky(..., upper=True)", want.T),
        "not-inverted": ("This is a factor of H itself; it should be one of H's inverse",
                         lambda: _upper(h)),
        "not-inverted-lower": ("This is the lower factor of H itself; it should be the upper one "
                               "of H's inverse", lambda: _upper(h).T),
        "inverse-of-factor": ("This is the inverse of H's factor, transposed to be upper. It gives "
                              "U U^T = H^-1, and needed is U^T U = H^-1: the order matters, since "
                              "row j must know the inputs after j, not before",
                              lambda: torch.linalg.inv(_upper(h).T).T),
        "inverse-itself": ("This is the inverse, not its Cholesky factor",
                           lambda: torch.linalg.inv(h)),
        "absolute-damping": ("`damping` itself is added to the diagonal; it is a share of the mean "
                             "of the diagonal", lambda: _upper(torch.linalg.inv(
                                 h - damping * mean * eye + damping * eye))),
        "damping-by-max": ("The damping is a share of the diagonal's largest element; it should be "
                           "of its mean", lambda: _upper(torch.linalg.inv(h + damping * eye * (
                               (h.diagonal() - damping * mean).max() - mean)))),
        "damping-everywhere": ("The damping is added to every element; it belongs on the diagonal",
                               lambda: _upper_or_none(
                                   h + damping * mean * (torch.ones_like(h) - eye))),
        "no-damping": ("The damping is missing", lambda: _upper_or_none(
            h - damping * mean * eye)),
        "dead-forgotten": ("An input that was always 0 has only the damping on its diagonal; it "
                           "gets a 1 there first", lambda: _upper(torch.linalg.inv(
                               plain + damping * plain.diagonal().mean() * eye))),
        "dead-late": ("Inputs that were always 0 get their 1 only after the mean of the diagonal "
                      "is taken", lambda: _upper(torch.linalg.inv(
                          damped(hessian, damping, late=True)))),
    }
    telling = {key: (words, partial(_if_other, wrong, want))
               for key, (words, wrong) in known.items()}
    scale = float(want.abs().max())
    c.expect_close(got, want.to(dtype), axes=("row", "column"), atol=2e-3 * scale, rtol=2e-3,
                   dtype=dtype, known=telling, what="the factor")


def _if_other(wrong: Any, want: Tensor) -> Tensor:
    """The wrong result, or nothing at all where it can hardly be told from the right one."""
    made = wrong() if callable(wrong) else wrong
    alike = torch.allclose(made, want, rtol=1e-2, atol=1e-3 * float(want.abs().max()))
    return torch.full_like(want, torch.nan) if alike else made


def _upper(h: Tensor) -> Tensor:
    return torch.linalg.cholesky(h, upper=True)


def _upper_or_none(h: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(torch.linalg.pinv(h), upper=True)
    return torch.full_like(h, torch.nan) if bool(failed) else factor


# ---------------------------------------------------------------- 3: quantize_block


def rounded_block(weight: Tensor, factor: Tensor, scale: Tensor, zero: Tensor, bits: int,
                  how: str = "") -> tuple[Tensor, Tensor, float]:
    """Values, errors and the least distance of any number from a half; `how` names a mistake."""
    w, u = weight.double().clone(), factor.double()
    s, z = scale.double(), zero.double()
    top = 2 ** bits - 1
    values, errors, near = torch.zeros_like(w), torch.zeros_like(w), 1.0
    for j in range(w.shape[1]):
        source = weight[:, j].double() if how == "original" else w[:, j]
        sj, zj = (s[:, 0], z[:, 0]) if how == "first-scale" else (s[:, j], z[:, j])
        at = source / sj + (0 if how == "no-zero" else zj)
        near = min(near, float(((at - at.floor()) - 0.5).abs().min()))
        q = at.floor() if how == "floor" else at.round()
        q = q if how == "no-clamp" else q.clamp(0, top)
        e = w[:, j] - (q - zj) * sj
        d = e if how == "undivided" else e / u[j, j]
        d = -d if how == "sign" else d
        d = d / u[j, j] if how == "twice" else d
        values[:, j], errors[:, j] = q, e if how == "errors-undivided" else d
        if how == "one-column":
            w[:, j + 1:j + 2] -= d[:, None] * u[j, j + 1:j + 2]
        elif how != "rtn":
            w[:, j + 1:] -= d[:, None] * u[j, j + 1:]
    return values, errors, near


WORDS = {
    "rtn": "Every column is rounded as it was: the error of a column is not handed on to the "
           "columns after it",
    "undivided": "The error is not divided by U[j, j]",
    "errors-undivided": "The values are right, but the errors that you return are not divided by "
                        "U[j, j]: the caller hands them on to the columns after the block",
    "sign": "The later columns move the wrong way: they are to lose error * U[j, later]",
    "twice": "The error is divided by U[j, j] twice",
    "original": "Each column is rounded as it was in the beginning, although earlier columns have "
                "handed their errors on to it",
    "one-column": "The error is handed on to the next column only; it concerns all later ones of "
                  "the block",
    "no-zero": "The zero point is not added before rounding",
    "no-clamp": "Values leave the range: 0 to 2 ** bits - 1 is all that the bits can hold",
    "first-scale": "All columns use the scale and the zero point of the first one",
    "floor": "The values are rounded down instead of to nearest",
}


def quantize_block(c: Check) -> None:
    """Blocks with correlated inputs, several scales, numbers beyond the range, 2 to 4 bits."""
    for seed in c.seeds(3):
        for out, width, bits in ((1, 3, 4), (5, 8, 3), (3, 11, 2)):
            weight, factor, scale, zero = _block_inputs(c, seed, out, width, bits)
            values, errors, _ = rounded_block(weight, factor, scale, zero, bits)
            got = c.call(weight, factor, scale, zero, bits)
            if not (isinstance(got, (tuple, list)) and len(got) == 2):
                raise Mistake("The result should be a pair (values, errors).", "not-a-pair")
            _judge_block(c, got, (values, errors), (weight, factor, scale, zero, bits))


def _judge_block(c: Check, got: Any, want: tuple[Tensor, Tensor], given: Any) -> None:
    form = all(isinstance(t, Tensor) and t.shape == want[0].shape for t in got)
    if form and not _same_pair(got, want) and all(bool(t.isfinite().all()) for t in got):
        weight, factor, scale, zero, bits = given
        for how, words in WORDS.items():
            wrong = rounded_block(weight, factor, scale, zero, bits, how)[:2]
            if _same_pair(got, wrong) and not _same_pair(wrong, want):
                raise Mistake(f"{words}.", how)
    c.expect_equal(got[0], want[0].to(torch.uint8), axes=("row", "column"), what="the values")
    c.expect_close(got[1], want[1].float(), axes=("row", "column"), rtol=1e-3, atol=1e-4,
                   what="the errors")


def _same_pair(got: Any, want: tuple[Tensor, Tensor]) -> bool:
    """Whether values (in eight bits) and errors agree."""
    return (torch.equal(got[0].double() % 256, want[0] % 256)
            and torch.allclose(got[1].double(), want[1], rtol=1e-3, atol=1e-4))


def _block_inputs(c: Check, seed: int, out: int, width: int,
                  bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A block none of whose numbers comes near a half on its way."""
    for attempt in range(200):
        g = c.generator(seed + 7919 * attempt)
        x = torch.randn(3 * width, width, generator=g) + 2 * torch.randn(3 * width, 1, generator=g)
        factor = _upper(torch.linalg.inv(damped(x.T @ x / len(x), 0.01))).float()
        weight = torch.randn(out, width, generator=g)
        scale = (0.15 + 0.3 * torch.rand(out, width, generator=g)) * 8 / 2 ** bits
        zero = torch.randint(1, 2 ** bits - 1, (out, width), generator=g).float()
        if rounded_block(weight, factor, scale, zero, bits)[2] > 2e-3:
            return weight, factor, scale, zero
    return weight, factor, scale, zero


# ---------------------------------------------------------------- 5: straight_through


def straight_through(c: Check) -> None:
    """Weights within the range and beyond both ends; a scale for all, a row, and each number."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for shape, lead, bits in (((4, 7), (4, 1), 4), ((3, 5), (3, 5), 3), ((2, 6), (), 2)):
            x = torch.randn(*shape, generator=g)
            scale = (0.3 + 0.2 * torch.rand(lead, generator=g)) * 4 / 2 ** bits
            zero = torch.randint(1, 2 ** bits - 1, lead, generator=g).float()
            gradient = torch.randn(*shape, generator=g)
            at = x.double() / scale + zero
            top = 2 ** bits - 1
            inside = (at >= 0) & (at <= top)
            c.expect_close(c.call(gradient, x, scale, zero, bits), gradient * inside,
                           axes=("row", "column"), atol=0.0, rtol=1e-6, what="the gradient",
                           known=_gradients(gradient, x, scale, zero, at, top))


def _gradients(gradient: Tensor, x: Tensor, scale: Tensor, zero: Tensor, at: Tensor,
               top: int) -> Known:
    inside = (at >= 0) & (at <= top)
    return {
        "everywhere": ("The gradient passes everywhere. Where the number lies beyond the range, "
                       "moving it a little changes nothing: there it is 0", gradient),
        "zero": ("The gradient is 0 everywhere: that is what rounding really has, and why it "
                 "cannot be trained without the estimator", torch.zeros_like(gradient)),
        "outside": ("The gradient passes where the number lies outside the range, and is 0 inside: "
                    "it should be the other way round", gradient * ~inside),
        "no-zero": ("The zero point is forgotten when the range is tested",
                    gradient * ((x / scale >= 0) & (x / scale <= top))),
        "no-scale": ("The weight itself is compared with the range; divide it by its scale first",
                     gradient * ((x + zero >= 0) & (x + zero <= top))),
        "scaled": ("The gradient is multiplied by the scale. Rounding and going back leaves the "
                   "unit as it was: it passes unchanged", gradient * inside * scale),
        "divided": ("The gradient is divided by the scale. Rounding and going back leaves the unit "
                    "as it was: it passes unchanged", gradient * inside / scale),
        "lower-end": ("The lower end of the range is not tested", gradient * (at <= top)),
        "upper-end": ("The upper end of the range is not tested", gradient * (at >= 0)),
        "one-too-many": ("The range ends at 2 ** bits - 1, not at 2 ** bits",
                         gradient * ((at >= 0) & (at <= top + 1))),
        "values": ("This is the weight, or the rounded weight, and not the gradient",
                   x * inside),
    }
