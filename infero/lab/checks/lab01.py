"""What Lab 1 demands of its seven pieces, and the mistakes it knows by name.

Every function here takes a `Check`, tries the candidate on random inputs of several shapes and
returns None, or raises a `Mistake` that says in words what is wrong. The expected values are worked
out in float64 and, where there is another way, not as the reference works them out: rotations
as complex numbers, attention head by head. `lab01_text.py` has the checks of top_k, top_p and
recompute_loop, which are named here too. Chapter 1 explains the pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from infero.lab.checking import Check
from infero.lab.checks.lab01_text import recompute_loop, top_k, top_p

__all__ = ["attention", "recompute_loop", "rms_norm", "rope", "swiglu", "top_k", "top_p"]

# ---------------------------------------------------------------- 1: rms_norm

_LOW_PRECISION_NORM = (
    "all features of a row are off by one common factor: the mean of squares, or its root, was "
    "computed or rounded in the low precision of x. Widen x to float32 first."
)


def rms_norm(c: Check) -> None:
    """The formula on several shapes, then what only low precision and extreme rows show."""
    eps_words = "you add eps to the root, but it belongs under it: rsqrt(mean_square + eps)"
    for seed in c.seeds(3):
        g = c.generator(seed)
        # (shape, size of the values, eps): eps large and small beside the mean square
        for shape, size, eps in [((5, 48), 1.0, 0.4), ((4, 7), 2e-3, 1e-5), ((1, 33), 1.0, 1e-6),
                                 ((3, 4, 6), 0.5, 0.05)]:
            x = ((torch.randn(shape, generator=g) + 0.7) * size)
            x[..., 0] += 2 * size  # keeps the plain mean positive, so that its root exists
            w = torch.rand(shape[-1], generator=g) + 0.5
            d, wd = x.double(), w.double()
            ms = d.square().mean(-1, keepdim=True)
            centred = d - d.mean(-1, keepdim=True)
            c.expect_close(
                c.call(x, w, eps), wd * d / (ms + eps).sqrt(),
                axes=("token", "head", "feature") if x.ndim == 3 else ("token", "feature"),
                atol=2e-5, rtol=2e-5,
                known={
                    "missing-eps": ("You divide by the root mean square without adding under the "
                                    "root the eps that was given.", wd * d / ms.sqrt()),
                    "eps-outside-root": (eps_words, wd * d / (ms.sqrt() + eps)),
                    "not-squared": ("You average x itself; average its square.",
                                    wd * d / (d.mean(-1, keepdim=True) + eps).sqrt()),
                    "mean-absolute": ("You divide by the mean absolute value; take the root of the "
                                      "mean square.", wd * d / (d.abs().mean(-1, True) + eps)),
                    "sum-not-mean": ("You add the squares up; take their mean.",
                                     wd * d / (d.square().sum(-1, keepdim=True) + eps).sqrt()),
                    "missing-root": ("You divide by the mean square; take its square root first.",
                                     wd * d / (ms + eps)),
                    "layer-norm": ("You subtract the mean first: that is LayerNorm, and RMSNorm "
                                   "leaves the mean alone.",
                                   wd * centred / (centred.square().mean(-1, True) + eps).sqrt()),
                    "wrong-axis": ("You average over the first axis; each token is normalised on "
                                   "its own, over its features (the last axis)",
                                   wd * d / (d.square().mean(0, keepdim=True) + eps).sqrt()),
                    "global-mean": ("You take one mean over the whole tensor; each token has its "
                                    "own.", wd * d / (d.square().mean() + eps).sqrt()),
                    "missing-weight": ("The result is normalised but never multiplied by weight.",
                                       d / (ms + eps).sqrt()),
                    "one-plus-weight": ("You multiply by 1 + weight; that is another model's "
                                        "convention, here the factor is weight itself.",
                                        (1 + wd) * d / (ms + eps).sqrt()),
                },
            )
        # Rounding of single features averages out over a row; a rounded factor does not. Rows of
        # many sizes, because rounding is one-sided where the factor is near a simple fraction.
        x = torch.randn(24, 512, generator=g) * (2 + 2 * torch.rand(24, 1, generator=g))
        x, w = x.bfloat16(), (torch.rand(512, generator=g) + 0.5).bfloat16()
        got, d = c.call(x, w, 1e-5), x.double()
        want = w.double() * d / (d.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        c.expect_close(got, want.bfloat16(), axes=("token", "feature"), atol=1e-6, rtol=0.03)
        error = (got.double() * want).sum(-1) / want.square().sum(-1) - 1
        c.expect(float(error.square().mean().sqrt()) < 8e-4, "low-precision-statistics",
                 f"On bfloat16 input: {_LOW_PRECISION_NORM} (The first three tokens are off by "
                 f"{', '.join(f'{100 * float(e):+.2f}%' for e in error[:3])}.)")
    x = torch.randn(3, 40, generator=c.generator(7)) * 600  # squares beyond float16's 65,504
    d = x.half().double()
    c.expect_close(
        c.call(x.half(), torch.ones(40).half(), 1e-6),
        (d / d.square().mean(-1, keepdim=True).sqrt()).half(), axes=("token", "feature"),
        atol=1e-3, rtol=5e-3,
        known={"low-precision-statistics": (
            "On float16 input with values in the hundreds the squares overflow. Widen x to float32 "
            "before squaring.", torch.zeros(3, 40).half())})
    zeros = c.call(torch.zeros(2, 5), torch.ones(5), 1e-6)
    c.expect(bool((zeros == 0).all()), "missing-eps",
             "A token of zeros should stay zero; without eps under the root it becomes 0/0.")
    transposed = torch.randn(6, 4, generator=c.generator(8)).T  # not contiguous
    d = transposed.double()
    c.expect_close(c.call(transposed, torch.ones(6), 0.1),
                   d / (d.square().mean(-1, keepdim=True) + 0.1).sqrt(),
                   axes=("token", "feature"), atol=2e-5, rtol=2e-5)


# ---------------------------------------------------------------- 2: rope


def _turn(x: Tensor, angles: Tensor, *, paired: str = "halves", out: str = "halves") -> Tensor:
    """Rotate pairs of x [tokens, heads, dim] by angles [tokens, dim/2] as complex numbers."""
    x = x.double()
    half = x.shape[-1] // 2
    a, b = (x[..., :half], x[..., half:]) if paired == "halves" else (x[..., ::2], x[..., 1::2])
    angles = angles.double()
    z = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)[:, None]
    if out == "halves":
        return torch.cat((z.real, z.imag), dim=-1)
    return torch.stack((z.real, z.imag), dim=-1).flatten(-2)


def rope(c: Check) -> None:
    """Rotations against complex multiplication, with positions that no counter would produce."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for heads, half, positions in [
            (3, 4, [5, 6, 7, 0, 1]), (1, 1, [3]), (2, 3, [11, 2, 2, 40]), (5, 8, [0, 9, 30, 4, 8]),
        ]:
            p = torch.tensor(positions)
            x = torch.randn(len(positions), heads, 2 * half, generator=g)
            inv_freq = torch.rand(half, generator=g) + 0.05
            angles = p.double()[:, None] * inv_freq.double()
            theta = 10_000.0 ** (-torch.arange(half).double() / half)
            swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1).double()
            woven = angles.repeat_interleave(2, dim=-1)[:, None]
            a, b = x.double().chunk(2, dim=-1)
            cos, sin = angles.cos()[:, None], angles.sin()[:, None]
            c.expect_close(
                c.call(x, p, inv_freq), _turn(x, angles), axes=("token", "head", "feature"),
                atol=3e-5, rtol=3e-5,
                known={
                    "not-rotated": ("nothing was rotated", x.double()),
                    "backwards": ("The pairs turn the wrong way: check the signs of the sines.",
                                  _turn(x, -angles)),
                    "interleaved": ("You pair neighbours (2i, 2i+1), as the paper does; the "
                                    "published weights are laid out for pairs (i, i + dim/2)",
                                    _turn(x, angles, paired="next", out="next")),
                    "pairing-mixed": ("You read pairs of neighbours and write pairs of halves.",
                                      _turn(x, angles, paired="next")),
                    "angles-interleaved": ("Features i and i + dim/2 share an angle; you repeat "
                                           "each angle for two neighbours.",
                                           x.double() * woven.cos() + swapped * woven.sin()),
                    "both-minus": ("One of the two halves needs a plus: (a cos - b sin, "
                                   "b cos + a sin)",
                                   torch.cat((a * cos - b * sin, b * cos - a * sin), dim=-1)),
                    "sin-cos-swapped": ("Sine and cosine have changed places.",
                                        torch.cat((a * sin - b * cos, b * sin + a * cos), dim=-1)),
                    "positions-ignored": (
                        "You count the tokens 0, 1, 2, … instead of using positions.",
                        _turn(x, torch.arange(len(p)).double()[:, None] * inv_freq.double())),
                    "positions-from-one": ("Every position is one too large.",
                                           _turn(x, angles + inv_freq.double())),
                    "own-frequencies": ("You compute the frequencies yourself; use inv_freq, which "
                                        "differs from model to model.",
                                        _turn(x, p.double()[:, None] * theta)),
                },
            )
        # Far into a context: an angle of thousands of radians has no digits left in bfloat16.
        far = torch.tensor([0, 1029, 2047, 4001])
        x = torch.randn(4, 2, 8, generator=g).bfloat16()
        inv_freq = torch.tensor([1.0, 0.31, 0.07, 0.003])
        angles = far.double()[:, None] * inv_freq.double()
        low = (far.bfloat16()[:, None] * inv_freq.bfloat16())
        c.expect_close(
            c.call(x, far, inv_freq), _turn(x, angles).bfloat16(),
            axes=("token", "head", "feature"), atol=0.04, rtol=0.02,
            known={"low-precision-angles": (
                "On bfloat16 input far into the context the angles were computed in bfloat16, "
                "which rounds position 1,029 to 1,032. Compute them in float32.", _turn(x, low))})
    g = c.generator(9)
    x = torch.randn(4, 6, 3, generator=g).transpose(1, 2)  # not contiguous: [4, 3, 6]
    p, inv_freq = torch.tensor([3, 1, 4, 1], dtype=torch.int32), torch.tensor([0.9, 0.4, 0.1])
    c.expect_close(c.call(x, p, inv_freq), _turn(x, p.double()[:, None] * inv_freq),
                   axes=("token", "head", "feature"), atol=3e-5, rtol=3e-5)


# ---------------------------------------------------------------- 3: attention


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None,
            *, mapping: Callable[[int], int] | None = None, v_mapping: Callable | None = None,
            visible: Callable[[Tensor, Tensor], Tensor] | None = None, offset: int | None = None,
            weights: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Attention head by head in float64; the keyword arguments replace one ingredient each."""
    queries, heads, _ = q.shape
    context, kv_heads, _ = k.shape
    i = torch.arange(queries)[:, None] + (context - queries if offset is None else offset)
    j = torch.arange(context)[None, :]
    if visible is None:
        seen = (j <= i) if window is None else (j <= i) & (j > i - window)
    else:
        seen = visible(i, j)
    group = heads // kv_heads
    if weights is None:
        weights = _softmax
    out = torch.empty(queries, heads, v.shape[-1], dtype=torch.float64)
    for h in range(heads):
        hk = mapping(h) if mapping else h // group
        hv = v_mapping(h) if v_mapping else hk
        scores = q[:, h].double() @ k[:, hk].double().T * scale
        out[:, h] = weights(scores, seen) @ v[:, hv].double()
    return out


def _softmax(scores: Tensor, seen: Tensor, dim: int = -1) -> Tensor:
    return scores.masked_fill(~seen, -1e300).softmax(dim=dim)


def _attention_mistakes(q: Tensor, k: Tensor, v: Tensor, scale: float,
                        window: int | None) -> dict[str, tuple[str, Callable[[], Tensor]]]:
    """Each known mistake with the output it would give on these inputs."""
    heads, kv_heads = q.shape[1], k.shape[1]

    def wrong(words: str, **change: object) -> tuple[str, Callable[[], Tensor]]:
        return words, lambda: _attend(q, k, v, scale, window, **change)  # type: ignore[arg-type]

    def rescaled(words: str, s: float) -> tuple[str, Callable[[], Tensor]]:
        return words, lambda: _attend(q, k, v, s, window)

    def over_heads() -> Tensor:
        scores = torch.stack([q[:, h].double() @ k[:, h // (heads // kv_heads)].double().T * scale
                              for h in range(heads)])
        queries, context = scores.shape[1:]
        i = torch.arange(context - queries, context)[:, None]
        j = torch.arange(context)
        seen = (j <= i) if window is None else (j <= i) & (j > i - window)
        probs = scores.masked_fill(~seen, -1e300).softmax(dim=0)
        spread = v.double().repeat_interleave(heads // kv_heads, dim=1)
        return torch.einsum("hqc,chd->qhd", probs, spread)

    def scrambled() -> Tensor:
        right = _attend(q, k, v, scale, window)
        return right.transpose(0, 1).reshape(right.shape)

    def in_window(i: Tensor, j: Tensor) -> Tensor:
        return j > i - (len(k) + len(q) if window is None else window)

    def nothing_left(s: Tensor, seen: Tensor) -> Tensor:
        return s.masked_fill(~seen, -math.inf).softmax(-1)

    known = {
        "no-mask": wrong("There is no causal mask: a query sees keys of later positions.",
                         visible=in_window),
        "mask-top-left": wrong(
            "The mask treats the queries as the first positions of the context; they are the last "
            "ones, so query n sits at position context - queries + n.", offset=0),
        "hides-itself": wrong("A query does not see its own position: hide j > i, not j >= i.",
                              visible=lambda i, j: (j < i) & in_window(i, j),
                              weights=nothing_left),
        "sees-the-future": wrong("A query sees one position ahead of its own.",
                                 visible=lambda i, j: (j <= i + 1) & in_window(i, j)),
        "mask-reversed": wrong("The mask hides the past and shows the future.",
                               visible=lambda i, j: j >= i),
        "masked-with-zero": wrong(
            "Hidden scores are set to 0, which still gets weight exp(0); set them to -inf.",
            weights=lambda s, seen: s.masked_fill(~seen, 0.0).softmax(-1)),
        "masked-after-softmax": wrong(
            "Hidden keys take part in the softmax and are zeroed afterwards, so the weights no "
            "longer sum to 1; mask the scores before the softmax.",
            weights=lambda s, seen: s.softmax(-1).masked_fill(~seen, 0.0)),
        "heads-tiled": wrong(
            "Query head h reads KV head h % kv_heads (tiled); consecutive query heads share one: "
            "h // (heads // kv_heads)", mapping=lambda h: h % kv_heads),
        "values-tiled": wrong("The keys are grouped rightly, but the values are tiled: a query "
                              "head must read the same KV head for both.",
                              v_mapping=lambda h: h % kv_heads),
        "first-kv-head": wrong("Every query head reads KV head 0.", mapping=lambda h: 0),
        "missing-scale": rescaled("The scores are never multiplied by scale.", 1.0),
        "own-scale": rescaled("You scale by 1/sqrt(dim) instead of the argument scale.",
                              q.shape[-1] ** -0.5),
        "divided-by-scale": rescaled("You divide the scores by scale; multiply them.", 1 / scale),
        "softmax-over-queries": wrong(
            "The softmax runs over the queries; a query's weights over the keys must sum to 1 (the "
            "last axis of [heads, queries, keys]).", weights=lambda s, seen: _softmax(s, seen, 0)),
        "softmax-over-heads": ("The softmax runs over the heads; a query's weights over the keys "
                               "must sum to 1 (the last axis)", over_heads),
        "heads-scrambled": ("The numbers are right but in the wrong places: the result was "
                            "reshaped from [heads, queries, dim], where it needs a transpose.",
                            scrambled),
        "keys-for-values": ("The weights are applied to the keys; apply them to the values.",
                            lambda: _attend(q, k, k, scale, window)),
    }
    if window is not None:
        known |= {
            "window-ignored": wrong("The window is ignored.", visible=lambda i, j: j <= i),
            "window-too-wide": wrong(
                "The window reaches one token too far back: it holds `window` tokens, the query's "
                "own included.", visible=lambda i, j: (j <= i) & (j >= i - window)),
            "window-too-narrow": wrong("The window is one token too short: it holds `window` "
                                       "tokens, the query's own included.",
                                       visible=lambda i, j: (j <= i) & (j > i - window + 1)),
        }
    return known


_ATTENTION_SHAPES = [  # queries, context, heads, kv_heads, dim, window
    (5, 5, 6, 2, 8, None), (3, 8, 4, 4, 6, None), (1, 7, 9, 3, 4, None), (4, 9, 6, 1, 5, None),
    (4, 9, 6, 3, 8, 3), (1, 1, 3, 1, 4, None), (2, 6, 4, 2, 4, 1), (6, 6, 2, 1, 4, 2),
    (2, 5, 2, 2, 4, 50),
]


def attention(c: Check) -> None:
    """Nine shapes head by head, then large scores, bfloat16 and strided inputs."""
    axes = ("query", "head", "feature")
    for seed in c.seeds(2):
        g = c.generator(seed)
        for queries, context, heads, kv_heads, dim, window in _ATTENTION_SHAPES:
            q = torch.randn(queries, heads, dim, generator=g)
            k = torch.randn(context, kv_heads, dim, generator=g)
            v = torch.randn(context, kv_heads, dim, generator=g)
            got = c.call(q, k, v, 0.61) if window is None else c.call(q, k, v, 0.61, window)
            c.expect_close(got, _attend(q, k, v, 0.61, window), axes=axes, atol=2e-5, rtol=2e-5,
                           known=_attention_mistakes(q, k, v, 0.61, window))
        q, k, v = (torch.randn(n, 2, 8, generator=g) for n in (3, 6, 6))
        got = c.call(q, k, v, 40.0)
        c.expect(bool(torch.isfinite(got).all()), "unstable-softmax",
                 "Scores in the hundreds give NaN or inf: exp() overflows above 88 in float32. "
                 "torch.softmax subtracts the largest score first; do the same.")
        c.expect_close(got, _attend(q, k, v, 40.0, None), axes=axes, atol=3e-4, rtol=1e-3)
        # Small integers: every product is exact in bfloat16, so only the softmax can differ.
        q, k, v = (torch.randint(-3, 4, (n, h, 8), generator=g).bfloat16()
                   for n, h in ((40, 8), (64, 4), (64, 4)))
        exact = _attend(q, k, v, 0.57, None)
        c.expect_close(c.call(q, k, v, 0.57), exact.bfloat16(), axes=axes, atol=0.03, rtol=0.01,
                       known={"low-precision-softmax": (
                           "On bfloat16 input the scaled scores were rounded to bfloat16 before "
                           "the softmax. Go to float32 before scaling and normalising.",
                           _attend(q, k, v, 0.57, None, weights=lambda s, seen: _softmax(
                               s.bfloat16().double(), seen)))})
    g = c.generator(11)
    qkv = torch.randn(5, 8, 4, generator=g)  # slices of one projection, as in the engine
    q, k, v = qkv[:, :4], qkv[:, 4:6], qkv[:, 6:]
    c.expect_close(c.call(q, k, v, 0.5), _attend(q, k, v, 0.5, None), axes=axes,
                   atol=2e-5, rtol=2e-5)


# ---------------------------------------------------------------- 4: swiglu


def swiglu(c: Check) -> None:
    """Random gates, then gates so large that a careless sigmoid overflows."""
    for seed in c.seeds(3):
        g = c.generator(seed)
        for shape, dtype, tol in [((5, 17), torch.float32, 1e-5), ((1, 3), torch.float32, 1e-5),
                                  ((7, 64), torch.bfloat16, 0.03)]:
            gate = (2 * torch.randn(shape, generator=g)).to(dtype)
            up = (2 * torch.randn(shape, generator=g)).to(dtype)
            a, b = gate.double(), up.double()
            known = {
                "silu-on-up": ("Silu is applied to up; it belongs on gate.",
                               a * b * torch.sigmoid(b)),
                "sigmoid-only": ("You multiply by sigmoid(gate); silu(gate) is gate * "
                                 "sigmoid(gate)", torch.sigmoid(a) * b),
                "gelu": ("That is GELU; SiLU is gate * sigmoid(gate)",
                         torch.nn.functional.gelu(a) * b),
                "relu": ("That is ReLU; SiLU is gate * sigmoid(gate)", a.relu() * b),
                "added": ("Gate and up are added; multiply them.", a * torch.sigmoid(a) + b),
                "missing-up": ("up is never used", a * torch.sigmoid(a)),
                "silu-of-product": ("Silu is applied to gate * up; apply it to gate alone.",
                                    a * b * torch.sigmoid(a * b)),
            }
            c.expect_close(c.call(gate, up), (a * torch.sigmoid(a) * b).to(dtype),
                           axes=("token", "feature"), atol=max(tol / 10, 2e-5), rtol=tol,
                           known=known)
    gate = torch.tensor([[-120.0, -90.0, 0.0, 90.0, 120.0]])
    up = torch.tensor([[2.0, -3.0, 5.0, 0.5, -1.0]])
    got = c.call(gate, up)
    c.expect(bool(torch.isfinite(got).all()), "overflow",
             "A gate of 120 or -120 gives NaN or inf: exp(120) overflows float32. "
             "torch.sigmoid handles both ends.")
    c.expect_close(got, torch.tensor([[0.0, 0.0, 0.0, 45.0, -120.0]]), axes=("token", "feature"),
                   atol=1e-5, rtol=1e-5)
