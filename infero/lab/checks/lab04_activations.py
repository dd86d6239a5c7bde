"""The checks of Lab 4's pieces for activations, outliers and small floats: see `lab04.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from infero.lab.checking import Check

# ---------------------------------------------------------------- 3: quantize_tokens


def activations(g: torch.Generator, tokens: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Activations around known whole numbers: x, the numbers [tokens, inputs], scales [tokens].

    Tokens differ much in size; the largest magnitude of every other one is negative.
    """
    scales = 0.02 * 3.0 ** torch.randint(-3, 4, (tokens,), generator=g) * (
        1 + torch.rand(tokens, generator=g))
    whole = torch.randint(-126, 127, (tokens, inputs), generator=g)
    parts = (torch.rand(tokens, inputs, generator=g) - 0.5) * 0.8
    largest = torch.randint(0, inputs, (tokens,), generator=g)
    rows = torch.arange(tokens)
    whole[rows, largest] = torch.where(rows % 2 == 0, -127, 127)
    parts[rows, largest] = 0
    return ((whole + parts) * scales[:, None]), whole.to(torch.int8), scales


def quantize_tokens(c: Check) -> None:
    """Tokens of very different sizes, a token of zeros, bfloat16."""
    from infero.lab.checks.lab04 import pair

    for seed in c.seeds(3):
        g = c.generator(seed)
        for tokens, inputs in ((6, 24), (1, 9), (5, 64), (3, 1)):
            x, whole, _ = activations(g, tokens, inputs)
            d = x.double()
            size = d.abs().amax(1)

            def codes(scale: Tensor, limit: float = 127.0, d: Tensor = d) -> Tensor:
                return (d / scale).round().clamp(-limit, limit).to(torch.int8)

            top = d.amax(1)
            columns = (d.abs().amax(0) / 127)[None]
            known = {
                "one-scale": ("All tokens share one scale, that of the largest. Small tokens lose "
                              "their digits: each token needs a scale of its own",
                              codes(size.max() / 127)),
                "scale-of-a-column": ("The largest magnitude is taken over the tokens; take it "
                                      "over the inputs of each token (dim 1)", codes(columns)),
                "no-abs": ("A token's largest *magnitude* counts; you take its largest number, and "
                           "tokens whose extreme is negative go wrong",
                           codes(torch.where(top > 0, top / 127, 1.0)[:, None])),
                "no-abs-wraps": ("A token's largest *magnitude* counts; you take its largest "
                                 "number, and tokens whose extreme is negative wrap around",
                                 _wrap(d / torch.where(top > 0, top / 127, 1.0)[:, None])),
                "truncates": ("The numbers are cut off (`.to(torch.int8)` does that): round first",
                              (d / (size / 127)[:, None] * (1 + 1e-9)).trunc().to(torch.int8)),
                "wraps-at-128": ("You scale to 128, which int8 does not have: the largest number "
                                 "wraps around to -128. Scale to 127",
                                 _wrap(d / (size / 128)[:, None])),
                "scales-to-128": ("You scale to 128 and clamp; scale to 127, and nothing needs "
                                  "clamping",
                                  (d / (size / 128)[:, None]).round().clamp(-128, 127)
                                  .to(torch.int8)),
                "multiplies": ("You multiply by the scale; divide",
                               _wrap(d * (size / 127)[:, None])),
            }
            values, got = pair(c.call(x), "values", "scales")
            told = f"{tokens} tokens of {inputs}"
            c.expect_equal(values, whole, axes=("token", "input"), known=known,
                           what=f"the values of {told}")
            c.expect_close(got, (size / 127), axes=("token",), dtype=torch.float32, rtol=2e-6,
                           atol=0.0, what=f"the scales of {told}", known={
                               "inverse": ("That is 1 / scale: values * scales must give x back",
                                           127 / size),
                               "largest": ("That is the largest magnitude; divide it by 127", size),
                           })
        _zeros_and_halves(c, g)


def _zeros_and_halves(c: Check, g: torch.Generator) -> None:
    from infero.lab.checks.lab04 import pair

    x, _, _ = activations(g, 4, 8)
    x[2] = 0
    values, scales = pair(c.call(x), "values", "scales")
    c.expect(bool(torch.isfinite(scales).all()) and float(scales[2]) == 1.0
             and not bool(values[2].any()), "zero-token",
             f"A token of zeros gets scale {float(scales[2]):g} and values "
             f"{values[2, :3].tolist()} ...: dividing by 0 gives NaN. The contract says scale 1, "
             "and then its values are 0.")
    ties = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]])
    values, _ = pair(c.call(ties), "values", "scales")
    c.expect_equal(values, torch.tensor([[127, 0, 2, 2, 0, -2, -2]], dtype=torch.int8),
                   axes=("token", "input"), what="the values of ties", known={
                       "half-away": ("Ties go away from 0; halves go to the even number, as "
                                     "torch.round does",
                                     torch.tensor([[127, 1, 2, 3, -1, -2, -3]], dtype=torch.int8)),
                       "half-up": ("Ties always go up; halves go to the even number, as "
                                   "torch.round does",
                                   torch.tensor([[127, 1, 2, 3, 0, -1, -2]], dtype=torch.int8)),
                   })
    x, _, _ = activations(g, 5, 40)
    x = x.bfloat16()
    d = x.double()
    values, scales = pair(c.call(x), "values", "scales")
    right = d.abs().amax(1) / 127
    c.expect_close(scales, right, axes=("token",), dtype=torch.float32, rtol=2e-6, atol=0.0,
                   what="the scales of bfloat16 tokens", known={
                       "low-precision": ("On bfloat16 input the scales are rounded to bfloat16: "
                                         "widen x to float32 first", right.bfloat16().double())})
    at = d / right[:, None]
    clear = (at % 1 - 0.5).abs() > 0.02
    want = torch.where(clear, at.round().to(torch.int8), values)
    c.expect_equal(values, want, axes=("token", "input"), what="the values of bfloat16 tokens")


def _wrap(at: Tensor) -> Tensor:
    return ((at.round().long() + 128) % 256 - 128).to(torch.int8)


# ---------------------------------------------------------------- 4: multiply


def multiply(c: Check) -> None:
    """Exact sums against whole numbers of 64 bits; sums of one sign that leave every small type."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for tokens, inputs, out in ((3, 40, 7), (1, 5, 4), (6, 576, 6), (5, 33, 5)):
            a = torch.randint(-127, 128, (tokens, inputs), generator=g, dtype=torch.int8)
            b = torch.randint(-127, 128, (out, inputs), generator=g, dtype=torch.int8)
            a[0] = a[0].abs()  # long sums of one sign
            b[0] = b[0].abs()
            s = torch.rand(tokens, generator=g) * 0.1 + 0.01
            t = torch.rand(out, generator=g) * 0.01 + 0.001
            sums = a.long() @ b.long().T
            total, u, v = sums.double(), s.double()[:, None], t.double()
            known = {
                "no-token-scale": ("The tokens' scales are missing", total * v),
                "no-row-scale": ("The scales of the weight's rows are missing", total * u),
                "no-scales": ("These are the whole numbers; both scales are missing", total),
                "scales-added": ("The two scales are added; multiply by both", total * (u + v)),
                "divides": ("You divide by the scales; multiply", total / u / v),
                "wraps-int8": ("The sums were formed in int8, which ends at 127: they wrapped "
                               "around. Go to int32 (or use `accumulate`) before multiplying",
                               ((sums + 128) % 256 - 128).double() * u * v),
                "wraps-int16": ("The sums wrapped around in 16 bits: use int32",
                                ((sums + 2**15) % 2**16 - 2**15).double() * u * v),
                "saturates-int16": ("The sums stop at the largest int16: use int32",
                                    sums.clamp(-2**15, 2**15 - 1).double() * u * v),
            }
            if tokens == out:
                known["scales-exchanged"] = (
                    "The scales are applied to the wrong axes: token_scales belongs to the rows "
                    "of the result, scales to its columns",
                    total * s.double() * t.double()[:, None])
            got = c.call(a, s, b, t)
            c.expect_close(got, total * u * v, axes=("token", "output"), dtype=torch.float32,
                           rtol=3e-6, atol=1e-7, known=known, what="the product")
    a = torch.full((2, 600), 127, dtype=torch.int8)
    b = torch.full((9, 600), 127, dtype=torch.int8)
    b[::2] = -127
    one = torch.ones(2), torch.ones(9)
    c.expect_close(c.call(a, one[0], b, one[1]), (a.long() @ b.long().T).double(),
                   axes=("token", "output"), dtype=torch.float32, rtol=1e-6, atol=0.0,
                   what="a product whose sums are as large as they get")


# ---------------------------------------------------------------- 5: smoothing_factors


def smoothing_factors(c: Check) -> None:
    """Random maxima with an outlier, several alphas, channels that never fire."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for inputs, alpha in ((12, 0.5), (7, 0.8), (1, 0.25), (30, 0.0), (9, 1.0), (20, 0.35)):
            a = torch.rand(inputs, generator=g) * 3 + 0.1
            w = torch.rand(inputs, generator=g) * 0.5 + 0.05
            a[inputs // 2] *= 30
            d, e = a.double(), w.double()
            known = {
                "inverse": ("The factors are upside down: x is *divided* by them, so a channel "
                            "with large activations needs a large factor",
                            e ** (1 - alpha) / d ** alpha),
                "alpha-exchanged": ("alpha and 1 - alpha have changed places: alpha is the share "
                                    "of the difficulty that leaves the activations",
                                    d ** (1 - alpha) / e ** alpha),
                "alpha-twice": ("The weight's exponent is 1 - alpha, not alpha",
                                d ** alpha / e ** alpha),
                "alpha-ignored": ("alpha is ignored: that is the result for 0.5",
                                  (d / e).sqrt()),
                "no-power": ("The powers are missing", d / e),
                "product": ("You multiply by the weight's part; divide by it",
                            d ** alpha * e ** (1 - alpha)),
                "activations-only": ("The weight's part is missing", d ** alpha),
                "normalised": ("The factors are scaled by a common number; leave them as the "
                               "formula gives them",
                               (lambda f: f / f.max())(d ** alpha / e ** (1 - alpha))),
            }
            got = c.call(a, w) if alpha == 0.5 else c.call(a, w, alpha)
            c.expect_close(got, d ** alpha / e ** (1 - alpha), axes=("channel",),
                           dtype=torch.float32, rtol=1e-5, atol=1e-7, known=known,
                           what=f"the factors at alpha {alpha:g}")
        a, w = torch.rand(6, generator=g) + 0.5, torch.rand(6, generator=g) + 0.5
        a[1], w[4] = 0, 0
        got = c.call(a, w, 0.5)
        fine = bool(torch.isfinite(got).all()) and bool((got > 0).all())
        c.expect(fine, "zero-channel",
                 "A channel whose activations or weights are all 0 gets a factor of "
                 f"{got[1]:g} or {got[4]:g}. x is divided by it: the factor must be a positive "
                 "number, and the contract says 1 there.")
        want = a.double().sqrt() / w.double().sqrt()
        want[1] = want[4] = 1
        c.expect_close(got, want, axes=("channel",), dtype=torch.float32, rtol=1e-5, atol=1e-7,
                       what="the factors beside channels of zeros")
    a, w = torch.tensor([40.0, 0.3]).bfloat16(), torch.tensor([0.7, 0.11]).bfloat16()
    c.expect_close(c.call(a, w, 0.5), (a.double() / w.double()).sqrt(), axes=("channel",),
                   dtype=torch.float32, rtol=1e-5, atol=1e-7, what="the factors of bfloat16 maxima")


# ---------------------------------------------------------------- 6: to_e4m3


def table() -> Tensor:
    """The 127 numbers of E4M3 from 0 to 448, in float64, written out from the format."""
    small = [m * 2.0 ** -9 for m in range(8)]
    rest = [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8)]
    return torch.tensor((small + rest)[:127], dtype=torch.float64)


def nearest(size: Tensor) -> Tensor:
    """The code of the nearest number of the table; a tie goes to the even code."""
    numbers = table()
    above = torch.searchsorted(numbers, size.double().contiguous()).clamp(1, 126)
    low, high = numbers[above - 1], numbers[above]
    d = size.double()
    up = (d - low > high - d) | ((d - low == high - d) & (above % 2 == 0))
    return torch.where(up, above, above - 1)


def to_e4m3(c: Check) -> None:
    """Every size a number can have, ties, what underflows and overflows, both zeros, NaN."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for shape in ((5, 40), (3,), (2, 3, 7)):
            x = torch.randn(shape, generator=g) * 2.0 ** torch.randint(-11, 10, shape, generator=g)
            _judge_codes(c, x, "random numbers of many sizes")
        x = torch.randn(200, generator=g).bfloat16() * 20
        _judge_codes(c, x, "bfloat16 numbers")
    numbers = table()
    middle = ((numbers[1:] + numbers[:-1]) / 2).float()
    _judge_codes(c, torch.cat((middle, -middle)), "the middles between neighbours (ties)")
    _judge_codes(c, torch.cat((numbers, -numbers[1:])).float(), "E4M3 numbers themselves")
    far = torch.tensor([449.0, 463.0, 465.0, 500.0, 1e4, 3e38, float("inf")])
    _judge_codes(c, torch.cat((far, -far)), "numbers beyond 448")
    tiny = torch.tensor([2.0 ** -10, 2.0 ** -10 * 1.01, 2.0 ** -11, 1e-9, 1e-30])
    _judge_codes(c, torch.cat((tiny, -tiny)), "numbers near 0")
    got = c.call(torch.tensor([0.0, -0.0, 1.0]))
    c.expect_equal(got, torch.tensor([0, 128, 56], dtype=torch.uint8), axes=("number",),
                   what="the codes of 0, -0 and 1", known={
                       "negative-zero": ("-0.0 lost its sign: it is not below 0, but its sign bit "
                                         "is set (`x.signbit()`)",
                                         torch.tensor([0, 0, 56], dtype=torch.uint8))})
    nan = c.call(torch.tensor([float("nan"), 2.0]))
    c.expect(int(nan[0]) & 127 == 127, "nan", f"NaN becomes code {int(nan[0])}, which is the "
             f"number {float(table()[min(126, int(nan[0]) & 127)]):g}. NaN's code is 127.")


def _judge_codes(c: Check, x: Tensor, told: str) -> None:
    d = x.double()
    size = d.abs().clamp(max=448)
    sign = 128 * x.signbit().long()
    code = nearest(size)

    def with_sign(codes: Tensor) -> Tensor:
        return (codes.long() + sign).to(torch.uint8)

    mantissa, exponent = torch.frexp(size)
    small = size < 2.0 ** -6

    def build(rounding, subnormal: bool = True) -> Tensor:  # type: ignore[no-untyped-def]
        normal = rounding(mantissa * 16) + (exponent + 5) * 8
        below = rounding(size * 2 ** 9) if subnormal else torch.zeros_like(size)
        return torch.where(small, below, normal).long()

    wide = d.abs().clamp(max=2.0 ** 40)
    m2, e2 = torch.frexp(wide)
    unbounded = torch.where(small, (size * 2 ** 9).round(), (m2 * 16).round() + (e2 + 5) * 8).long()
    known = {
        "sign-lost": ("The sign is missing: 128 is added to the codes of negative numbers",
                      code.to(torch.uint8)),
        "truncates": ("The mantissa is cut off and not rounded to nearest",
                      with_sign(build(torch.floor))),
        "half-away": ("Ties go up; halves go to the even code, as torch.round does",
                      with_sign(build(lambda t: (t + 0.5).floor()))),
        "flushes-small": ("Numbers below 2**-6 all become 0. E4M3 has seven more there, with a "
                          "fixed step of 2**-9", with_sign(build(torch.round, False))),
        "wraps": ("Numbers beyond 448 run over into other codes, and their sign bit: saturate at "
                  "code 126", ((unbounded + sign) % 256).to(torch.uint8)),
        "beyond-448": ("Numbers beyond 448 become code 127. That would be 480, but E4M3 has its "
                       "NaN there: the largest number is 448, code 126",
                       with_sign(torch.where(d.abs() > 464, 127, code))),
        "bias-low": ("The exponent's bias is off by one: your numbers are half as large as they "
                     "should be", with_sign(torch.where(small, code, code - 8).clamp(min=0))),
        "bias-high": ("The exponent's bias is off by one: your numbers are twice as large as they "
                      "should be", with_sign(torch.where(small, code, code + 8))),
        "e5m2": ("These are codes of E5M2: three bits of mantissa here, and a bias of 7",
                 x.float().to(torch.float8_e5m2).view(torch.uint8)),
    }
    axes = ("number",) if x.dim() == 1 else ("row", "number", "digit")[: x.dim()]
    c.expect_equal(c.call(x), with_sign(code), axes=axes, known=known,
                   what=f"the codes of {told}")
