"""The checks of Lab 15's two kernels: run watched, compared with float64, and taken apart.

If a product is wrong and looks like none of the known mistakes, the kernel is asked for its weight:
the product with a unit matrix is the weight as the kernel sees it. So the words can name the first
output, input, word, nibble and group that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from infero.kernels.steps.matmul import ORDER
from infero.lab import comparing, kernels
from infero.lab.checking import Check, Mistake

Known = Mapping[str, tuple[str, Tensor]]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3}


def judge(c: Check, got: Any, x: Tensor, weight: Tensor, known: Known, told: str) -> str:
    """Raise Mistake for a form or a known mistake that fits; else what differs, or nothing.

    weight: [out, in] float64, the right one; `known` has wrong weights, or wrong results (of the
    result's shape), by key.
    """
    want = x.double() @ weight.T
    scale = float((x.double().abs() @ weight.abs().T).max())
    atol = TOLERANCE[x.dtype] * scale

    def differs(other: Tensor, rtol: float = 0.0) -> comparing.Difference | None:
        return comparing.compare(got, other, ("token", "output"), atol, rtol, x.dtype,
                                 f"the product ({told})", False)

    found = differs(want)
    if found is None:
        return ""
    if found.key in comparing.FORM or not isinstance(got, Tensor) or got.shape != want.shape:
        raise Mistake(found.words, found.key, found.details)
    if x.dtype == torch.float16 and not bool(got.isfinite().all()):
        raise Mistake(
            f"The product overflows ({told}): {int((~got.isfinite()).sum())} of {got.numel()} "
            "values are infinite or NaN, though none of the right ones is. float16 ends at 65,504, "
            "and sums on the way may be larger: multiply and add in float32, and let the store "
            "make float16 of the end result.", "fp16-sum")
    for key, (words, wrong) in known.items():
        other = wrong if wrong.shape == want.shape else x.double() @ wrong.T
        if float((other - want).abs().max()) > 4 * atol and differs(other, 1e-4) is None:
            raise Mistake(f"{words} ({told}).", key, [found.words])
    return found.words


def blocks(weight: Tensor, size: int) -> list[Tensor]:
    """The weight with only its first whole blocks of inputs, and with only its last block."""
    inner = weight.shape[1]
    whole, last = inner // size * size, (inner - 1) // size * size
    head, tail = weight.clone(), weight.clone()
    head[:, whole:] = 0
    tail[:, :last] = 0
    return [head, tail]


# ---------------------------------------------------------------- 3: int8_matvec


def int8_matvec(c: Check) -> None:
    """One block of inputs and several, with tails; float16 sums that pass 65,504 on the way."""
    cases = [(1, 18, 40, torch.float32), (2, 19, 150, torch.float32), (1, 5, 300, torch.float16)]
    for seed in c.seeds(1):
        g = c.generator(seed)
        for tokens, out, inner, dtype in cases:
            values = torch.randint(-127, 128, (out, inner), generator=g).to(torch.int8)
            values[:, 0] = torch.where(values[:, 0] < 0, values[:, 0], -values[:, 0] - 1)
            scales = (torch.rand(out, generator=g) + 0.5) / 127
            x = torch.randn(tokens, inner, generator=g)
            if dtype == torch.float16:  # large sums that cancel at the end
                x = torch.cat([x[:, : inner // 2].abs(), -x[:, inner // 2 :].abs()], 1) * 20
                values = values.abs().clamp(min=40)
            x = x.to(dtype)
            told = f"{tokens} tokens, {out} outputs, {inner} inputs, {str(dtype)[6:]}"
            y = kernels.call(c, x, values, scales)
            weight = values.double() * scales.double()[:, None]
            words = judge(c, y, x, weight, _wrong_int8(x, values, scales), told)
            if words:
                _take_int8_apart(c, values, scales, weight, words)


def _wrong_int8(x: Tensor, values: Tensor, scales: Tensor) -> Known:
    v, s = values.double(), scales.double()[:, None]
    block = 128 if kernels.device() == "cpu" else 512
    head, tail = blocks(v * s, block)
    first = x.double()[:1].expand(len(x), -1)
    return {
        "no-scale": ("The scale is missing: the sum of integers times x still has to be multiplied "
                     "by scales[n]", v),
        "unsigned": ("Negative weights come out as 128 to 255: the values are signed (int8), do "
                     "not view them as uint8 or mask them with 0xFF", (v % 256) * s),
        "first-scale": ("Every output has the first one's scale: load scales at n", v * s[:1]),
        "scale-divides": ("You divide by the scale; w = value * scale", v / s),
        "scale-twice": ("The scale is applied twice", v * s * s),
        "tail-lost": (f"The last inputs are missing: the loop must go on to `inner`, also where "
                      f"less than a block of {block} is left", head),
        "last-block-only": ("Only the last block of inputs counts: add to the total (+=) in every "
                            "turn of the loop", tail),
        "first-token": ("Every token gets the first one's result: x starts at token * inner",
                        first @ (v * s).T),
    }


def _take_int8_apart(c: Check, values: Tensor, scales: Tensor, weight: Tensor,
                     words: str) -> None:
    inner = values.shape[1]
    seen = kernels.call(c, torch.eye(inner), values, scales).double().T
    bad = ~torch.isclose(seen, weight, rtol=1e-4, atol=1e-6)
    if not bool(bad.any()):
        raise Mistake(f"{words} One input at a time your kernel is right, so each weight is: look "
                      "at how the products are summed.", "wrong-sum")
    n, k = bad.nonzero()[0].tolist()
    raise Mistake(
        f"{words}\nThe first weight that your kernel sees wrongly: output {n}, input {k}, where "
        f"values[{n}, {k}] = {int(values[n, k])} and scales[{n}] = {float(scales[n]):.4g}. It acts "
        f"as {float(seen[n, k]):.4g} instead of {float(weight[n, k]):.4g}.", "wrong-weight")


# ---------------------------------------------------------------- 4: int4_matmul


def int4_matmul(c: Check) -> None:
    """Groups that end inside a tile, tiles that end outside the inputs, and large sums."""
    from infero.lab.checks.lab15 import packed

    cases = [(2, 35, 152, 8, torch.float32), (3, 9, 192, 24, torch.float32),
             (18, 33, 64, 64, torch.float32), (1, 6, 256, 128, torch.float16)]
    for seed in c.seeds(1):
        g = c.generator(seed)
        for tokens, out, inner, group, dtype in cases:
            q = torch.randint(0, 16, (out, inner), generator=g).to(torch.uint8)
            shape = (out, inner // group)
            scales = torch.rand(shape, generator=g) + 0.3
            zeros = torch.randint(3, 12, shape, generator=g).float()
            x = torch.randn(tokens, inner, generator=g)
            if dtype == torch.float16:
                x = torch.cat([x[:, : inner // 2].abs(), -x[:, inner // 2 :].abs()], 1) * 120
                q, zeros = q // 2 + 8, (zeros[:, :1] - 3).expand(shape).contiguous()
                scales = 0.9 + scales[:, :1].expand(shape) / 10
            x = x.to(dtype)
            told = (f"{tokens} tokens, {out} outputs, {inner} inputs in groups of {group}, "
                    f"{str(dtype)[6:]}")
            words = packed(q)
            y = kernels.call(c, x, words, scales, zeros)
            weight = dense(q, scales, zeros)
            found = judge(c, y, x, weight, _wrong_int4(x, q, scales, zeros), told)
            if found:
                _take_int4_apart(c, q, words, scales, zeros, found)


def dense(q: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """(q - zero) * scale in float64: [out, in]."""
    each = q.shape[1] // scales.shape[1]
    return (q.double() - zeros.double().repeat_interleave(each, 1)) * (
        scales.double().repeat_interleave(each, 1))


def _wrong_int4(x: Tensor, q: Tensor, scales: Tensor, zeros: Tensor) -> Known:
    out, inner = q.shape
    groups = scales.shape[1]
    each, k = inner // groups, torch.arange(inner)
    s, z = scales.double(), zeros.double()
    eight = q.view(out, -1, 8)

    def reordered(order: Any) -> Tensor:
        """Nibble p taken for weight p, where it holds order[p]."""
        return dense(eight[..., list(order)].flatten(1), scales, zeros)

    def by_group(at: Tensor) -> Tensor:
        """With the tables read at these flat places [out, in]."""
        at = at.clamp(0, s.numel() - 1)
        return (q.double() - z.flatten()[at]) * s.flatten()[at]

    rows = torch.arange(out)[:, None] * groups
    right = dense(q, scales, zeros)
    head, tail = blocks(right, 128)
    signed = q.double() - 16 * (q >= 8)
    sz, ss = z.repeat_interleave(each, 1), s.repeat_interleave(each, 1)
    return {
        "natural-order": ("Nibble p meets input 8j + p, but it holds weight ORDER[p] of its word, "
                          "so it must meet input 8j + ORDER[p]", reordered(ORDER)),
        "inverse-order": ("The order is applied the wrong way round: nibble p meets input "
                          "8j + ORDER[p]", reordered([ORDER[i] for i in ORDER])),
        "reversed-order": ("Nibbles are taken from the top: nibble p is at bits 4p to 4p + 3",
                           reordered(range(7, -1, -1))),
        "signed": ("Values of 8 and more come out negative: nibbles run from 0 to 15 here, and the "
                   "zero point makes the sign", (signed - sz) * ss),
        "no-zero": ("The zero point is missing: w = (nibble - zero) * scale", q.double() * ss),
        "zero-is-8": ("The zero point is 8 everywhere; each group has its own in `zeros`",
                      (q.double() - 8) * ss),
        "zero-after-scale": ("The zero point is subtracted after the scaling; w = (nibble - zero) "
                             "* scale", q.double() * ss - sz),
        "no-scale": ("The scale is missing: w = (nibble - zero) * scale", q.double() - sz),
        "first-group": ("Every group uses the first one's scale and zero",
                        by_group(rows + 0 * k)),
        "group-of-tile": ("All words of a tile use the scale and zero of the tile's first word; a "
                          "tile may reach over several groups",
                          by_group(rows + k // 128 * 128 // each)),
        "group-of-word": ("The group is found by the word's number j; it counts inputs, and word j "
                          "begins at input 8 j", by_group(rows + k // 8 // each)),
        "tables-transposed": ("scales and zeros are read as [groups, out]; they are [out, groups]",
                              by_group(k // each * out + torch.arange(out)[:, None])),
        "next-group": ("Each group uses the next one's scale and zero",
                       by_group(rows + k // each + 1)),
        "tail-lost": ("The last words of each row are missing: the loop must go on to inner // 8, "
                      "also where less than a tile of words is left", head),
        "last-tile-only": ("Only the last tile of words counts: carry the total through the loop",
                           tail),
        "first-nibble": ("Only nibble 0 of each word is multiplied: there are eight", right * (
            k % 8 == 0)),
        "last-nibble": ("Only nibble 7 of each word counts: carry the total through the inner "
                        "loop too", right * (k % 8 == 7)),
    }


def _take_int4_apart(c: Check, q: Tensor, words: Tensor, scales: Tensor, zeros: Tensor,
                     told: str) -> None:
    inner, each = q.shape[1], q.shape[1] // scales.shape[1]
    right = dense(q, scales, zeros)
    seen = kernels.call(c, torch.eye(inner), words, scales, zeros).double().T
    bad = ~torch.isclose(seen, right, rtol=1e-4, atol=1e-5)
    if not bool(bad.any()):
        raise Mistake(f"{told} One input at a time your kernel is right, so each weight is: look "
                      "at how the products are summed.", "wrong-sum")
    n, k = bad.nonzero()[0].tolist()
    word, nibble, group = k // 8, ORDER.index(k % 8), k // each
    raise Mistake(
        f"{told}\nThe first weight that your kernel sees wrongly: output {n}, input {k}, which is "
        f"nibble {nibble} of word {word} (0x{int(words[n, word]) & 0xFFFFFFFF:08x}) and belongs to "
        f"group {group}. It acts as {float(seen[n, k]):.4g} instead of ({int(q[n, k])} - "
        f"{float(zeros[n, group]):g}) * {float(scales[n, group]):.4g} = {float(right[n, k]):.4g}.",
        "wrong-weight")
