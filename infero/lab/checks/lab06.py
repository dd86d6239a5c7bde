"""What Lab 6 demands of its six pieces, and the mistakes it knows by name.

Masks are worked out group by group with sorted lists, the sweep by least squares and by a loop over
single weights, the compressed form by expanding it again, divergences in float64. Nothing runs a
model. Chapter 6 explains the pieces.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from infero.lab.checking import Check
from infero.lab.checks.lab06_losses import block_influence, kd_loss

__all__ = ["block_influence", "compress", "kd_loss", "keep_n_of_m", "scores", "sweep"]

# ---------------------------------------------------------------- 1: keep_n_of_m


def _keep(s: Tensor, n: int, m: int, *, right: bool = False, smallest: bool = False) -> Tensor:
    """Group by group with Python's sort; the keyword arguments replace one ingredient each."""
    out = torch.zeros(s.shape, dtype=torch.bool)
    for r, row in enumerate(s.tolist()):
        for g in range(0, len(row), m):
            order = sorted(range(m), key=lambda i: (
                row[g + i] if smallest else -row[g + i], -i if right else i))
            for i in order[:n]:
                out[r, g + i] = True
    return out


def _threshold(s: Tensor, n: int, m: int) -> Tensor:
    groups = s.reshape(-1, m)
    return (groups >= groups.sort(dim=1, descending=True).values[:, n - 1 : n]).view(s.shape)


def _strided(s: Tensor, n: int, m: int) -> Tensor:
    """Groups of every (in / m)-th column in the place of neighbours."""
    rows, inputs = s.shape
    moved = s.view(rows, m, inputs // m).transpose(1, 2).reshape(rows, inputs)
    kept = _keep(moved, n, m).view(rows, inputs // m, m).transpose(1, 2)
    return kept.reshape(rows, inputs)


def _down_columns(s: Tensor, n: int, m: int) -> Tensor:
    rows, inputs = s.shape
    return _keep(s.t().reshape(inputs, rows), n, m).t() if rows % m == 0 else ~_keep(s, n, m)


def _over_row(s: Tensor, n: int, m: int) -> Tensor:
    kept = s.shape[1] * n // m
    order = s.argsort(dim=1, descending=True, stable=True)[:, :kept]
    return torch.zeros(s.shape, dtype=torch.bool).scatter_(1, order, True)


def _mask_mistakes(s: Tensor, n: int, m: int) -> dict[str, tuple[str, Callable[[], Tensor]]]:
    return {
        "keeps-smallest": ("You keep the smallest scores; the largest must stay.",
                           lambda: _keep(s, n, m, smallest=True)),
        "inverted": ("True and False have changed places: True is what stays.",
                     lambda: ~_keep(s, n, m)),
        "drops-n": (f"You take n = {n} of every {m} away; n must stay.",
                    lambda: _keep(s, m - n, m)),
        "ties-right": ("Of equal scores you keep the right one; keep the left one: a stable sort, "
                       "descending.", lambda: _keep(s, n, m, right=True)),
        "ties-all": ("Where scores are equal you keep more than n of a group: a threshold cannot "
                     "choose between equals, a sort can.", lambda: _threshold(s, n, m)),
        "over-row": ("You choose over the whole row; every group of m neighbours has its own n.",
                     lambda: _over_row(s, n, m)),
        "strided-groups": ("Your groups are columns that lie far apart; a group is m neighbours.",
                           lambda: _strided(s, n, m)),
        "wrong-axis": ("Your groups run down the columns; they run along a row.",
                       lambda: _down_columns(s, n, m)),
    }


def keep_n_of_m(c: Check) -> None:
    """Several n and m, rows that are few and many, and scores that are equal."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for rows, inputs, n, m in [(4, 12, 1, 4), (4, 24, 2, 4), (1, 8, 2, 4), (5, 16, 4, 8),
                                   (2, 6, 2, 3), (4, 4, 3, 4)]:
            whole = torch.randint(0, 5, (rows, inputs), generator=g).float()  # many are equal
            for s in (torch.rand(rows, inputs, generator=g), whole):
                c.expect_equal(c.call(s, n, m), _keep(s, n, m), axes=("row", "column"),
                               dtype=torch.bool, known=_mask_mistakes(s, n, m))
    same = torch.ones(2, 64)
    got = c.call(same, 2, 4)
    c.expect(tuple(got.shape) == (2, 64) and int(got.view(-1, 4).sum(1).max()) == 2, "ties-all",
             "Where all scores are equal you keep more than n of a group.")
    c.expect_equal(got, _keep(same, 2, 4), axes=("row", "column"), known={
        "ties-right": ("Of equal scores you do not keep the left ones: sort stably "
                       "(stable=True), descending.", _keep(same, 2, 4, right=True))})


# ---------------------------------------------------------------- 2: wanda.scores


def scores(c: Check) -> None:
    """The formula, with signs, with channels of very different sizes, and in bfloat16."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for out, inputs in [(5, 7), (1, 9), (6, 6), (8, 3)]:
            w = torch.randn(out, inputs, generator=g)
            x = torch.rand(inputs, generator=g) * 10 + 0.05
            wd, xd = w.double(), x.double()
            per_row = None if out != inputs else wd.abs() * xd.sqrt()[:, None]
            known: dict[str, tuple[str, object]] = {
                "missing-root": ("You multiply by the mean square; its root is the typical size "
                                 "of the input.", wd.abs() * xd),
                "missing-abs": ("Your scores have signs; what matters is the size of the weight.",
                                wd * xd.sqrt()),
                "squared-weight": ("You square the weight but take the root of the mean square: "
                                   "take both as they are (sizes) or both squared; here sizes.",
                                   wd.square() * xd.sqrt()),
                "both-squared": ("These are the squares of the scores; take the sizes.",
                                 wd.square() * xd),
                "divides": ("You divide by the size of the input: a loud input makes its weights "
                            "matter more.", wd.abs() / xd.sqrt()),
                "magnitude": ("mean_square does not enter: that is magnitude pruning.", wd.abs()),
                "normalised": ("You divide by the row's sum; scores are compared as they are.",
                               wd.abs() * xd.sqrt() / wd.abs().sum(1, keepdim=True)),
            }
            if per_row is not None:
                known["wrong-axis"] = ("You scale the rows; each input channel belongs to a "
                                       "column.", per_row)
            c.expect_close(c.call(w, x), wd.abs() * xd.sqrt(), axes=("row", "column"),
                           atol=1e-6, rtol=1e-5, dtype=torch.float32, known=known)
    g = c.generator(5)
    w, x = torch.randn(4, 33, generator=g).bfloat16(), torch.rand(33, generator=g)
    low = (w.abs() * x.bfloat16().sqrt()).float()
    c.expect_close(c.call(w, x), w.double().abs() * x.double().sqrt(), axes=("row", "column"),
                   atol=1e-6, rtol=1e-5, dtype=torch.float32, known={
                       "low-precision": ("In bfloat16 neighbouring scores become equal: widen the "
                                         "weight to float32 before you multiply.", low)})


# ---------------------------------------------------------------- 3: sweep


def _swept(w: Tensor, keep: Tensor, u: Tensor, *, diagonal: bool = True, spread: bool = True,
           original: bool = False, kept: bool = False, plus: bool = False, squared: bool = False
           ) -> tuple[Tensor, Tensor]:
    """One weight at a time, row by row, in float64; keyword arguments replace one ingredient."""
    out, first = w.double().clone(), w.double()
    errors = torch.zeros_like(out)
    u = u.double()
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            value = (first if original else out)[r, j]
            gone = bool(keep[r, j]) if kept else not bool(keep[r, j])
            error = value if gone else value * 0
            if diagonal:
                error = error / u[j, j]
            if squared:
                error = error / u[j, j]
            errors[r, j] = error
            if spread:
                for k in range(j + 1, out.shape[1]):
                    change = error * u[j, k]
                    out[r, k] += change if plus else -change
    return out * (~keep if kept else keep), errors


def _not_removed(w: Tensor, keep: Tensor, u: Tensor) -> Tensor:
    """What is left if the columns themselves are never set to 0."""
    out, errors = w.double().clone(), _swept(w, keep, u)[1]
    for j in range(out.shape[1]):
        out[:, j + 1 :] -= errors[:, j, None] * u.double()[j, j + 1 :]
    return out


def _factor(inputs: int, g: torch.Generator) -> Tensor:
    x = torch.randn(3 * inputs, inputs, generator=g, dtype=torch.float64)
    x = x @ (torch.randn(inputs, inputs, generator=g, dtype=torch.float64) / inputs**0.5
             + torch.eye(inputs, dtype=torch.float64))
    inverse = torch.linalg.inv(x.T @ x / len(x) + 0.1 * torch.eye(inputs, dtype=torch.float64))
    return torch.linalg.cholesky(inverse, upper=True).float()


def sweep(c: Check) -> None:
    """Random masks, all and nothing kept, one row and many, against single weights in float64."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for out, inputs, share in [(3, 6, 0.5), (1, 5, 0.4), (4, 9, 0.7), (2, 4, 0.0), (2, 3, 1.0)]:
            w = torch.randn(out, inputs, generator=g)
            keep = torch.rand(w.shape, generator=g) < share
            u = _factor(inputs, g)
            result = c.call(w, keep, u)
            c.expect(isinstance(result, tuple) and len(result) == 2, "form",
                     "Return two tensors: the new weight and the errors.")
            got, errors = result
            want, want_errors = _swept(w, keep, u)
            c.expect_close(got, want, axes=("row", "column"), atol=2e-4, rtol=2e-4,
                           dtype=torch.float32, what="the new weight",
                           known=_sweep_mistakes(w, keep, u))
            c.expect_close(errors, want_errors, axes=("row", "column"), atol=2e-4, rtol=2e-4,
                           dtype=torch.float32, what="the errors", known={
                               "errors-not-divided": (
                                   "The weight is right, but your errors are what was removed; "
                                   "they must be divided by factor[j, j]: blocks further right "
                                   "are corrected with them.",
                                   want_errors * u.double().diagonal()),
                               "errors-of-original": (
                                   "Your errors are of the weights as they were at first, not as "
                                   "the columns before left them.",
                                   _swept(w, keep, u, original=True, spread=False)[1])})
            c.expect(bool((got[~keep] == 0).all()), "not-exactly-zero",
                     "A removed weight is left with a rounding error in the place of 0: multiply "
                     "by the mask at the end.")


def _sweep_mistakes(w: Tensor, keep: Tensor, u: Tensor
                    ) -> dict[str, tuple[str, Callable[[], Tensor]]]:
    return {
        "no-update": ("The removed weights are 0 and the others are as they were: the columns to "
                      "the right must make up for each error. (The row of the factor says how; "
                      "its column is 0 below the diagonal.)",
                      lambda: _swept(w, keep, u, spread=False)[0]),
        "not-divided": ("Each error must be divided by factor[j, j] before it is spread.",
                        lambda: _swept(w, keep, u, diagonal=False)[0]),
        "divided-twice": ("You divide by factor[j, j] twice.",
                          lambda: _swept(w, keep, u, squared=True)[0]),
        "wrong-sign": ("The columns to the right move the wrong way: subtract.",
                       lambda: _swept(w, keep, u, plus=True)[0]),
        "of-original": ("You take the error of the weight as it was at first; take it as the "
                        "columns before have left it.",
                        lambda: _swept(w, keep, u, original=True)[0]),
        "mask-inverted": ("You remove what should stay: keep is True where the weight stays.",
                          lambda: _swept(w, keep, u, kept=True)[0]),
        "not-removed": ("The columns to the right are right, but the removed weights are not 0 "
                        "themselves.", lambda: _not_removed(w, keep, u)),
    }


# ---------------------------------------------------------------- 4: compress


def _split(w: Tensor, *, swapped: bool = False, high_first: bool = False, raw: bool = False
           ) -> tuple[Tensor, Tensor]:
    """Group by group in Python, for weights with exactly two values in each group."""
    out, inputs = w.shape
    values = torch.zeros(out, inputs // 2)
    positions = torch.zeros(out, inputs // 8, dtype=torch.int32)
    for r in range(out):
        nibbles = []
        for g in range(inputs // 4):
            group = w[r, 4 * g : 4 * g + 4]
            a, b = (int(i) for i in group.nonzero()[:, 0])
            values[r, 2 * g], values[r, 2 * g + 1] = group[a], group[b]
            nibbles.append(b + 4 * a if swapped else a + 4 * b)
        for j in range(inputs // 8):
            low, high = nibbles[2 * j], nibbles[2 * j + 1]
            positions[r, j] = 16 * low + high if high_first else low + 16 * high
    return values.to(w.dtype), positions.to(torch.uint8)


def _expanded(values: Tensor, positions: Tensor) -> Tensor:
    out = values.shape[0]
    dense = torch.zeros(out, 2 * values.shape[1], dtype=values.dtype)
    for r in range(out):
        for g in range(values.shape[1] // 2):
            nibble = int(positions[r, g // 2]) >> 4 * (g % 2) & 15
            for i, at in enumerate((nibble & 3, nibble >> 2)):
                dense[r, 4 * g + at] += values[r, 2 * g + i]
    return dense


def _two_of_four(shape: tuple[int, int], g: torch.Generator, most: bool = True) -> Tensor:
    w = torch.randn(shape, generator=g) + 0.01
    keep = _keep(torch.rand(shape, generator=g), 2, 4)
    if not most:  # some groups have one value, or none
        keep &= torch.rand(shape, generator=g) < 0.6
    return w * keep


def compress(c: Check) -> None:
    """Full groups against a loop, and groups with fewer values by expanding what came back."""
    for seed in c.seeds(2):
        g = c.generator(seed)
        for shape, dtype in [((2, 8), torch.float32), ((3, 24), torch.float32),
                             ((1, 16), torch.bfloat16)]:
            w = _two_of_four(shape, g).to(dtype)
            values, positions = _parts(c, w)
            want_values, want = _split(w)
            rows = len(w)
            by_size = w.view(-1, 4).abs().sort(dim=1, descending=True).indices[:, :2]
            c.expect_close(values, want_values, axes=("row", "value"), atol=0, rtol=0,
                           what="values", known={
                               "by-size": ("Your two values of a group are ordered by size; keep "
                                           "them from left to right, as their positions say.",
                                           w.view(-1, 4).gather(1, by_size).view(rows, -1)),
                               "first-two": ("You take the first two columns of every group, "
                                             "zeros included.",
                                             w.view(-1, 4)[:, :2].reshape(rows, -1))})
            c.expect_equal(positions, want, axes=("row", "byte"), dtype=torch.uint8,
                           what="positions", known={
                               "nibble-order": ("In a byte the left group belongs into the low "
                                                "nibble and the right one into the high nibble.",
                                                _split(w, high_first=True)[1]),
                               "position-order": ("In a nibble the first position takes the lower "
                                                  "two bits: first + 4 * second.",
                                                  _split(w, swapped=True)[1]),
                           })
        for shape in [(2, 8), (3, 32)]:
            w = _two_of_four(shape, g, most=False)
            values, positions = _parts(c, w)
            nibbles = torch.stack((positions & 15, positions >> 4), dim=2)
            first, second = nibbles & 3, nibbles >> 2
            c.expect(bool((first < second).all()), "positions-not-ascending",
                     "In a group with fewer than two values other than 0 the two positions must "
                     "still differ and ascend: keep a zero at a free position.")
            c.expect_close(_expanded(values, positions), w, axes=("row", "column"), atol=0, rtol=0,
                           what="the weight expanded again, with groups that hold fewer than two "
                                "values")


def _parts(c: Check, w: Tensor) -> tuple[Tensor, Tensor]:
    result = c.call(w)
    c.expect(isinstance(result, tuple) and len(result) == 2, "form",
             "Return two tensors: values and positions.")
    values, positions = result
    out, inputs = w.shape
    c.expect(tuple(values.shape) == (out, inputs // 2), "values-shape",
             f"For a weight of {out} x {inputs} there are {inputs // 2} values a row; yours have "
             f"the shape {tuple(values.shape)}.")
    c.expect(tuple(positions.shape) == (out, inputs // 8), "positions-shape",
             f"For a weight of {out} x {inputs} there are {inputs // 8} bytes of positions a row, "
             f"two groups in each; yours have the shape {tuple(positions.shape)}.")
    c.expect(positions.dtype == torch.uint8, "positions-dtype",
             f"Positions are uint8; yours are {positions.dtype}.")
    return values, positions
