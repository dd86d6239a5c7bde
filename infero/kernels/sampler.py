"""Drawing tokens on the GPU: greedy, by Gumbel noise, and behind top-k, top-p and min-p.

The host never waits and nothing is sorted. Chapter 1 defines the filters, chapter 16 needs the draw
inside a CUDA graph. A draw is the argmax of logits plus Gumbel noise (`infero.sampling`), and its
random words are the same here: a token's noise depends on seed, position and token alone.

Filters keep a beginning of the tokens in descending order. So a candidate is drawn from a set that
is known to be large enough and then looked up: how much probability comes before it? If too much,
it and all behind it are out, and the draw is repeated among those before it, which needs no sorting
and is right after one or two rounds, because a nucleus holds most of the probability (the rejection
sampling of FlashInfer, arXiv:2501.01005, here with noise that stays the same). A first pass notes
each chunk's largest logit: chunks that cannot matter are then never read again, and the k-th
largest of the chunks' maxima is a bound below the k-th largest logit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from infero.errors import ParameterError
from infero.kernels import overlap
from infero.kernels.examples import Example
from infero.kernels.language import tl, triton
from infero.sampling import SAMPLE, SamplingRows

# read one number at a time, so that it does not matter where they stand
SCALARS = ("temperature", "top_k", "top_p", "min_p", "seeds", "positions", "peaks", "masses",
           "chosen", "out")
CHUNK = 64  # tokens whose maximum is noted
PURPOSE = tl.constexpr(SAMPLE)
LOWEST = tl.constexpr(-math.inf)
NOISE_LIMIT = tl.constexpr(23.0)  # Gumbel noise of 32-bit uniform numbers stays below 22.9


@triton.jit
def _scaled(x, t):
    """Logits over the temperature, in float32; NaN counts as -inf, and -0 as 0."""
    x = tl.div_rn(x.to(tl.float32), tl.where(t > 0, t, 1.0))
    x = tl.where(x == x, x, LOWEST)
    return tl.where(x == 0, 0.0, x)


@triton.jit
def _gumbel(word):
    """`infero.sampling.gumbel` of 32 random bits: the same uniform number, and 1e-6 at most off.

    Sixteen bits become a float32 by standing in the mantissa of 2**23. log1p is its series where u
    is small, because 1 - u would round; what is left of float32's precision is the same everywhere.
    """
    high = ((word >> 16) | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0
    low = ((word & 0xFFFF) | 0x4B000000).to(tl.float32, bitcast=True) - 8388607.5
    u = high * 0.0000152587890625 + low * 2.3283064365386963e-10  # 2**-16, 2**-32; one rounding
    u = tl.minimum(u, 1 - 5.9604644775390625e-08)
    series = u * 0.1 + 0.1111111111111111
    series = series * u + 0.125
    series = series * u + 0.14285714285714285
    series = series * u + 0.16666666666666666
    series = series * u + 0.2
    series = series * u + 0.25
    series = series * u + 0.3333333333333333
    series = series * u + 0.5
    series = (series * u + 1) * u
    return -tl.log(tl.where(u < 0.2, series, -tl.log(1 - u)))


@triton.jit
def _noise(seed, position, block):
    """Gumbel noise of the four tokens of each Philox block: [a, b] -> [a, 4 * b]."""
    block = block.to(tl.int32)
    zero = block * 0
    w0, w1, w2, w3 = tl.philox(seed, block, zero + position.to(tl.int32), zero + PURPOSE, zero)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # [a, b, 2, 2]
    return tl.reshape(_gumbel(words), (block.shape[0], 4 * block.shape[1]))


@triton.jit
def _key(x):
    """float32 as int32 of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _unkey(key):
    """The inverse of `_key`."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


# ---------------------------------------------------------------- greedy and plain


@triton.jit(do_not_specialize=["share"], do_not_specialize_on_alignment=SCALARS)
def _draw(logits, temperature, seeds, positions, values, indices, out, vocab, stride, share,
          NOISE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr):
    """The largest (noisy) logit of one share of a row, the first one if several are equal."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    a, b = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH)[None, :]
    lane = a * WIDTH + b
    start = split * share
    end = tl.minimum(start + share, vocab)
    logits += row.to(tl.int64) * stride
    t = 0.0
    if NOISE:
        t = tl.load(temperature + row)
        seed, position = tl.load(seeds + row), tl.load(positions + row)
    best = tl.full((ROWS, WIDTH), LOWEST, tl.float32)
    where = start + lane
    for at in range(start, end, ROWS * WIDTH):
        i = at + lane
        x = _scaled(tl.load(logits + i, mask=i < end, other=LOWEST), t)
        if NOISE:  # noqa: SIM102  (the compiler decides this one, the card the next)
            if t > 0:
                quarter = tl.arange(0, WIDTH // 4)[None, :]
                x += _noise(seed, position, at // 4 + a * (WIDTH // 4) + quarter)
        where = tl.where(x > best, i, where)
        best = tl.maximum(x, best)
    largest = tl.max(tl.max(best, axis=1), axis=0)
    first = tl.min(tl.min(tl.where(best == largest, where, vocab - 1), axis=1), axis=0)
    if splits == 1:
        tl.store(out + row, first.to(tl.int64))
    else:
        tl.store(values + row * splits + split, largest)
        tl.store(indices + row * splits + split, first)


@triton.jit(do_not_specialize=["splits"])
def _pick(values, indices, out, splits, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """The best of a row's shares; the first of equals has the lowest index."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row, split = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(values + row * splits + split, mask=split < splits, other=LOWEST)
    index = tl.load(indices + row * splits + split, mask=split < splits, other=0x7FFFFFFF)
    largest = tl.max(value, axis=0)
    tl.store(out + row, tl.min(tl.where(value == largest, index, 0x7FFFFFFF), axis=0).to(tl.int64))


# ---------------------------------------------------------------- filtered


@triton.jit(do_not_specialize_on_alignment=SCALARS)
def _survey(logits, temperature, peaks, masses, vocab, stride, chunks,
            GROUP: tl.constexpr, WIDTH: tl.constexpr, PDL: tl.constexpr):
    """Of GROUP chunks: the largest scaled logit, and the sum of exp(logit - largest)."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    chunk = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    i = chunk[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    raw = tl.load(logits + row.to(tl.int64) * stride + i, mask=i < vocab, other=LOWEST)
    x = _scaled(raw, tl.load(temperature + row))
    peak = tl.max(x, axis=1)
    mass = tl.sum(tl.exp(x - tl.where(peak == LOWEST, 0.0, peak)[:, None]), axis=1)
    tl.store(peaks + row * chunks + chunk, peak, mask=chunk < chunks)
    tl.store(masses + row * chunks + chunk, mass, mask=chunk < chunks)


@triton.jit
def _choose(peaks, which, low, chosen, chunks):
    """Write down the chunks that hold a logit of at least `low`; their number."""
    take = (peaks >= low) & (which < chunks)
    tl.debug_barrier()  # everyone has read the list of before
    tl.store(chosen + tl.cumsum(take.to(tl.int32), axis=0) - 1, which, mask=take)
    tl.debug_barrier()
    return tl.sum(take.to(tl.int32), axis=0)


@triton.jit
def _read(logits, chosen, at, n, t, vocab, GROUP: tl.constexpr, WIDTH: tl.constexpr):
    """Chunk numbers, token indexes and scaled logits of GROUP chosen chunks; -inf past the end."""
    entry = at + tl.arange(0, GROUP)
    chunk = tl.load(chosen + entry, mask=entry < n, other=0)
    i = chunk[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    inside = (entry < n)[:, None] & (i < vocab)
    return chunk, i, _scaled(tl.load(logits + i, mask=inside, other=LOWEST), t)


@triton.jit
def _kth(keys, k, left, right):
    """The k-th largest of some keys, which lies between left and right, by bisection."""
    left, right = left.to(tl.int64), right.to(tl.int64)
    while left < right:
        middle = left + ((right - left + 1) >> 1)
        if tl.sum((keys >= middle).to(tl.int32), axis=0) >= k:
            left = middle
        else:
            right = middle - 1
    return left.to(tl.int32)


@triton.jit
def _nucleus_bound(peak, mass, room, top, WIDTH: tl.constexpr):
    """A number that no logit of the nucleus lies below: what lies below it has at most `room`.

    A chunk whose largest logit lies below has all its mass there, another one at most that of
    WIDTH - 1 tokens just below the bound. Searched between 0 and 40 under the largest logit.
    """
    depth, step = tl.full((), 40.0, tl.float32), tl.full((), 20.0, tl.float32)
    while step > 0.1:
        bound = top - depth + step
        most = tl.minimum((WIDTH - 1) * tl.exp(bound - top), tl.exp(peak - top) * (mass - 1))
        below = tl.sum(tl.where(peak < bound, mass * tl.exp(peak - top), most), axis=0)
        depth = tl.where(below <= room, depth - step, depth)
        step = step * 0.5
    return tl.where(depth < 40, top - depth, top - float("inf"))


@triton.jit
def _at_least(logits, chosen, n, key, t, vocab, GROUP: tl.constexpr, WIDTH: tl.constexpr):
    """How many logits of the chosen chunks have at least this key."""
    count = tl.full((), 0, tl.int32)
    for at in range(0, n, GROUP):
        _, _, x = _read(logits, chosen, at, n, t, vocab, GROUP, WIDTH)
        count += tl.sum(tl.sum((_key(x) >= key).to(tl.int32), axis=1), axis=0)
    return count


@triton.jit
def _mass(logits, chosen, n, bound, behind, top, t, vocab, GROUP: tl.constexpr,
          WIDTH: tl.constexpr):
    """Sum of exp(logit - top) over what comes before token `behind` of logit `bound`."""
    total = tl.zeros((GROUP, WIDTH), tl.float32)
    for at in range(0, n, GROUP):
        _, i, x = _read(logits, chosen, at, n, t, vocab, GROUP, WIDTH)
        total += tl.where((x > bound) | ((x == bound) & (i < behind)), tl.exp(x - top), 0.0)
    return tl.sum(tl.sum(total, axis=1), axis=0)


@triton.jit
def _kth_logit(logits, peak, which, chosen, k, top, t, vocab, chunks, GROUP: tl.constexpr,
               WIDTH: tl.constexpr):
    """The k-th largest logit, and the sum of exp(logit - top) over it and all larger ones."""
    low = _key(top - float("inf"))
    if k <= chunks:  # the k-th largest maximum: k logits are at least that large
        low = _kth(tl.where(which < chunks, _key(peak), -0x80000000), k, low, _key(top))
    n = _choose(peak, which, _unkey(low), chosen, chunks)
    left, right = low.to(tl.int64), _key(top).to(tl.int64)
    if n <= 2 * GROUP:  # as is usual: all of it fits into registers
        _, _, x = _read(logits, chosen, 0, n, t, vocab, 2 * GROUP, WIDTH)
        left = _kth(tl.reshape(_key(x), (2 * GROUP * WIDTH,)), k, low, _key(top)).to(tl.int64)
    else:
        while left < right:
            middle = left + ((right - left + 1) >> 1)
            if _at_least(logits, chosen, n, middle, t, vocab, GROUP, WIDTH) >= k:
                left = middle
            else:
                right = middle - 1
    kth = _unkey(left.to(tl.int32))
    return kth, _mass(logits, chosen, n, kth, vocab, top, t, vocab, GROUP, WIDTH)


@triton.jit
def _first_of(logits, peak, which, top, t, vocab, chunks, WIDTH: tl.constexpr):
    """The first token with the largest logit."""
    chunk = tl.min(tl.where(peak == top, which, chunks - 1), axis=0)
    i = chunk * WIDTH + tl.arange(0, WIDTH)
    x = _scaled(tl.load(logits + i, mask=i < vocab, other=LOWEST), t)
    return tl.min(tl.where(x == top, i, vocab - 1), axis=0)


@triton.jit
def _candidates(logits, chosen, peak, which, first, top, low, p, total, t, seed, position, vocab,
                chunks, GROUP: tl.constexpr, WIDTH: tl.constexpr):
    """Draw among logits >= low until less than p * total lies before the drawn token."""
    quarter, lane = tl.arange(0, WIDTH // 4)[None, :], tl.arange(0, GROUP)[:, None]
    mine = _noise(seed, position, (lane * 0 + first // 4) + quarter * 0)  # of the largest logit
    nth = (tl.arange(0, WIDTH)[None, :] == first % 4) & (lane == 0)
    reached = top + tl.sum(tl.sum(tl.where(nth, mine, 0.0), axis=1), axis=0)
    n = _choose(peak, which, tl.maximum(low, reached - NOISE_LIMIT), chosen, chunks)
    bound, behind = top - float("inf"), vocab  # the last candidate: what follows it is out
    token, searching = first, 1
    while searching == 1:
        best = tl.full((GROUP, WIDTH), LOWEST, tl.float32)
        where = tl.full((GROUP, WIDTH), 0x7FFFFFFF, tl.int32)
        for at in range(0, n, GROUP):
            chunk, i, x = _read(logits, chosen, at, n, t, vocab, GROUP, WIDTH)
            kept = (x >= low) & ((x > bound) | ((x == bound) & (i < behind)))
            noise = _noise(seed, position, chunk[:, None] * (WIDTH // 4) + quarter)
            noisy = tl.where(kept, x + noise, LOWEST)
            where = tl.where(noisy > best, i, where)
            best = tl.maximum(noisy, best)
        largest = tl.max(tl.max(best, axis=1), axis=0)
        token = tl.min(tl.min(tl.where(best == largest, where, 0x7FFFFFFF), axis=1), axis=0)
        token = tl.where(token < vocab, token, first)
        searching = 0
        if (p < 1) & (token != first):
            bound = _scaled(tl.load(logits + token), t)
            behind = token
            before = _mass(logits, chosen, n, bound, behind, top, t, vocab, GROUP, WIDTH)
            if before >= p * total:
                searching = 1
    return token


@triton.jit(do_not_specialize_on_alignment=SCALARS)
def _filtered(logits, temperature, top_k, top_p, min_p, seeds, positions, peaks, masses, chosen,
              out, vocab, stride, chunks, CHUNKS: tl.constexpr, GROUP: tl.constexpr,
              WIDTH: tl.constexpr, PDL: tl.constexpr):
    """One row: greedy where its temperature is 0, else a draw among what its filters keep."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    t, p = tl.load(temperature + row), tl.load(top_p + row)
    k = tl.load(top_k + row).to(tl.int32)
    logits += row.to(tl.int64) * stride
    chosen += row * chunks
    which = tl.arange(0, CHUNKS)
    peak = tl.load(peaks + row * chunks + which, mask=which < chunks, other=LOWEST)
    top = tl.max(peak, axis=0)
    first = _first_of(logits, peak, which, top, t, vocab, chunks, WIDTH)
    token = first
    if (t > 0) & (top > LOWEST):
        low = top - float("inf")
        total = tl.full((), 1.0, tl.float32)
        if (k > 0) & (k < vocab):
            low, total = _kth_logit(logits, peak, which, chosen, k, top, t, vocab, chunks, GROUP,
                                    WIDTH)
        elif p < 1:
            mass = tl.load(masses + row * chunks + which, mask=which < chunks, other=0.0)
            total = tl.sum(mass * tl.exp(peak - top), axis=0)
            low = _nucleus_bound(peak, mass, (1 - p) * total * 0.999, top, WIDTH)
        low = tl.maximum(low, top + tl.log(tl.load(min_p + row)))
        token = _candidates(logits, chosen, peak, which, first, top, low, p, total, t,
                            tl.load(seeds + row), tl.load(positions + row), vocab, chunks, GROUP,
                            WIDTH)
    tl.store(out + row, token.to(tl.int64))


# ---------------------------------------------------------------- the wrapper

BLOCK = (16, CHUNK)  # tokens read at once, as chunks
MOST_SPLITS = 64  # programs that share a row
FILL = 512  # programs that keep a large GPU busy
VARIANTS = ("greedy", "plain", "filtered")


def sample(logits: Tensor, rows: SamplingRows, variant: str = "filtered",
           out: Tensor | None = None) -> Tensor:
    """As `infero.sampling.sample`, without waiting: [rows] int64 on the device.

    logits: [rows, vocab], elements of a row side by side. variant says what the rows need at most:
    "greedy" takes the largest logit and reads no parameter, "plain" adds temperature and noise,
    "filtered" top-k, top-p and min-p. Rows of temperature 0 are greedy in all three.
    """
    count, vocab = logits.shape
    if variant not in VARIANTS:
        raise ParameterError(f"variant is {variant!r}; known: {', '.join(VARIANTS)}.")
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    device = logits.device
    if out is None:
        out = torch.empty(count, dtype=torch.int64, device=device)
    if not count:
        return out
    after = overlap.options(device)
    if variant == "filtered":
        chunks = triton.cdiv(vocab, CHUNK)
        notes = torch.empty(3, count, chunks, dtype=torch.float32, device=device)
        chosen = notes[2].view(torch.int32)
        _survey[(count, triton.cdiv(chunks, 32))](
            logits, rows.temperature, notes[0], notes[1], vocab, logits.stride(0), chunks,
            GROUP=32, WIDTH=CHUNK, num_warps=4, **after)
        _filtered[(count,)](
            logits, rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seed, rows.position,
            notes[0], notes[1], chosen, out, vocab, logits.stride(0), chunks,
            CHUNKS=triton.next_power_of_2(chunks), GROUP=32, WIDTH=CHUNK, num_warps=16,
            **after)
        return out
    block = BLOCK[0] * BLOCK[1]
    splits = max(1, min(FILL // count, triton.cdiv(vocab, 2 * block), MOST_SPLITS))
    share = triton.cdiv(triton.cdiv(vocab, splits), block) * block
    splits = triton.cdiv(vocab, share)
    values, indices = out, out
    if splits > 1:
        values = torch.empty(count, splits, dtype=torch.float32, device=device)
        indices = torch.empty(count, splits, dtype=torch.int32, device=device)
    _draw[(count, splits)](
        logits, rows.temperature, rows.seed, rows.position, values, indices, out, vocab,
        logits.stride(0), share, NOISE=variant == "plain", ROWS=BLOCK[0], WIDTH=BLOCK[1],
        num_warps=4, **after)
    if splits > 1:
        _pick[(count,)](values, indices, out, splits, BLOCK=MOST_SPLITS, num_warps=1, **after)
    return out


def examples() -> list[Example]:
    """For the cross-compile test."""
    types = {"logits": "*fp16", "temperature": "*fp32", "top_k": "*i32", "top_p": "*fp32",
             "min_p": "*fp32", "seeds": "*i64", "positions": "*i32", "values": "*fp32",
             "indices": "*i32", "peaks": "*fp32", "masses": "*fp32", "chosen": "*i32",
             "out": "*i64", "vocab": "i32", "stride": "i32", "share": "i32", "chunks": "i32",
             "splits": "i32"}

    def signature(kernel: object) -> dict[str, str]:
        return {name: types.get(name, "constexpr") for name in kernel.arg_names}  # type: ignore

    shape = {"GROUP": 32, "WIDTH": CHUNK, "PDL": False}
    draw = {"NOISE": True, "ROWS": BLOCK[0], "WIDTH": CHUNK, "PDL": False}
    return [
        Example(_draw, signature(_draw), draw, aligned=("stride", "share")),
        Example(_pick, signature(_pick), {"BLOCK": MOST_SPLITS, "PDL": False}, 1),
        Example(_survey, signature(_survey), shape, aligned=("stride",)),
        Example(_filtered, signature(_filtered), shape | {"CHUNKS": 4096}, 16, aligned=("stride",)),
    ]
