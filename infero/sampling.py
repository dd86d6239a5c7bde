"""From logits to the next token: penalties, temperature, truncation, and a draw.

Chapter 1 explains it; `top_k` and `top_p` are exercises of Lab 1. Everything works on
[rows, vocab] logits with one parameter per row, so a batch may mix greedy and sampled requests.

Randomness is counter-based: the random number for a token is a pure function of (seed, position,
purpose, vocabulary index), computed with Philox4x32-10 (Salmon et al., SC 2011). A request
therefore draws the same tokens alone, in a batch, after a preemption or inside a CUDA graph.
The draw itself is the Gumbel-max trick: argmax of logits plus Gumbel noise is distributed as
softmax(logits) (Maddison et al., arXiv:1411.0030).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from infero.errors import ParameterError

SAMPLE = 0  # purposes: one independent random stream for each use of a (seed, position) pair
ACCEPT = 1
RESAMPLE = 2


@dataclass(frozen=True)
class SamplingParams:
    """How one request's tokens are chosen and when it stops. Names and meanings follow vLLM.

    temperature 0 means greedy; top_k 0 and top_p 1 mean off; `seed` None draws a fresh seed;
    `stop` strings end the text before themselves; `logprobs` asks for that many alternatives.
    At most one of the last four constrains the output: a JSON schema, a regular expression, a Lark
    grammar (all by `infero.grammar`), or a fixed set of tokens. Raises ParameterError naming the
    field, its value and its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int = 128
    min_tokens: int = 0
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    n: int = 1
    json_schema: Mapping[str, Any] | str | None = None
    regex: str | None = None
    grammar: str | None = None
    allowed_token_ids: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        self._need("temperature", self.temperature >= 0, "at least 0 (0 is greedy)")
        self._need("top_k", self.top_k >= 0, "0 (off) or a positive count")
        self._need("top_p", 0 < self.top_p <= 1, "in (0, 1]; 1 is off")
        self._need("min_p", 0 <= self.min_p <= 1, "in [0, 1]; 0 is off")
        self._need("repetition_penalty", self.repetition_penalty > 0, "positive; 1 is off")
        self._need("presence_penalty", -2 <= self.presence_penalty <= 2, "in [-2, 2]")
        self._need("frequency_penalty", -2 <= self.frequency_penalty <= 2, "in [-2, 2]")
        self._need("max_tokens", self.max_tokens >= 1, "at least 1")
        self._need("min_tokens", 0 <= self.min_tokens <= self.max_tokens,
                   f"between 0 and max_tokens ({self.max_tokens})")
        self._need("n", self.n >= 1, "at least 1")
        self._need("logprobs", self.logprobs is None or 0 <= self.logprobs <= 20, "in 0 to 20")
        self._need("seed", self.seed is None or 0 <= self.seed < 2**63, "in [0, 2**63)")
        self._need("stop", all(self.stop), "non-empty strings")
        self._check_constraint()
        for token, bias in self.logit_bias.items():
            if not (math.isfinite(bias) and token >= 0):
                raise ParameterError(f"logit_bias maps token {token} to {bias}; use ids >= 0 and "
                                     "finite numbers (-100 forbids a token in practice).")

    def _check_constraint(self) -> None:
        names = ("json_schema", "regex", "grammar", "allowed_token_ids")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ParameterError(f"{' and '.join(given)} are both set; a request obeys one "
                                 "constraint: keep one of them.")
        if given and given != ["allowed_token_ids"] and self.ignore_eos:
            raise ParameterError(f"ignore_eos is True with {given[0]}; a constrained output ends "
                                 "with the end-of-sequence token: leave ignore_eos False.")
        ids = self.allowed_token_ids
        self._need("allowed_token_ids", ids is None or (len(ids) > 0 and min(ids) >= 0),
                   "a non-empty list of ids >= 0, or None")

    def _need(self, name: str, holds: bool, limit: str) -> None:
        if not holds:  # a NaN fails every comparison and so ends up here too
            raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be {limit}.")


@dataclass
class SamplingRows:
    """The parameters of a batch as tensors, one entry a row, so that no code loops over rows."""

    temperature: Tensor  # [rows] float32
    top_k: Tensor  # [rows] int64
    top_p: Tensor  # [rows] float32
    min_p: Tensor  # [rows] float32
    seed: Tensor  # [rows] int64
    position: Tensor  # [rows] int64, index of the token being drawn in its sequence


def rows_of(params: Sequence[SamplingParams], seeds: Sequence[int], positions: Sequence[int],
            device: torch.device | str = "cpu") -> SamplingRows:
    """Lay the parameters of several requests out as one tensor a field."""

    def floats(name: str) -> Tensor:
        return torch.tensor([getattr(p, name) for p in params], dtype=torch.float32, device=device)

    return SamplingRows(
        floats("temperature"),
        torch.tensor([p.top_k for p in params], device=device),
        floats("top_p"),
        floats("min_p"),
        torch.tensor(list(seeds), device=device),
        torch.tensor(list(positions), device=device),
    )


# ---------------------------------------------------------------- processing logits


def penalties(logits: Tensor, counts: Tensor, prompt_mask: Tensor, repetition: Tensor,
              presence: Tensor, frequency: Tensor) -> Tensor:
    """Lower the logits of tokens that were seen before.

    logits: [rows, vocab]; counts: [rows, vocab], how often each token was generated;
    prompt_mask: [rows, vocab] bool, tokens of the prompt; the three strengths: [rows].
    Repetition divides positive and multiplies negative logits of every token seen in prompt or
    output (arXiv:1909.05858); presence subtracts once for every generated token and frequency once
    a count, as in OpenAI's API.
    """
    seen = (counts > 0) | prompt_mask
    factor = torch.where(seen, repetition[:, None], 1.0)
    logits = torch.where(logits > 0, logits / factor, logits * factor)
    return logits - presence[:, None] * (counts > 0) - frequency[:, None] * counts


def temperature(logits: Tensor, t: Tensor) -> Tensor:
    """Divide each row by its temperature; rows with temperature 0 (greedy) are left alone.

    logits: [rows, vocab]; t: [rows]. Below 1 the distribution sharpens, above 1 it flattens.
    """
    return logits / torch.where(t > 0, t, 1.0)[:, None]


def top_k(logits: Tensor, k: Tensor) -> Tensor:
    """Keep the k largest logits of each row and set the others to -inf.

    logits: [rows, vocab]; k: [rows] int64, one k a row; k = 0 (or k >= vocab) keeps the whole
    row. Every logit equal to the k-th largest is kept. Returns a new [rows, vocab] tensor.
    """
    vocab = logits.shape[-1]
    k = torch.where((k <= 0) | (k > vocab), vocab, k)
    descending = logits.sort(dim=-1, descending=True).values
    kth_largest = descending.gather(-1, (k - 1)[:, None])  # [rows, 1]
    return logits.masked_fill(logits < kth_largest, -math.inf)


def top_p(logits: Tensor, p: Tensor) -> Tensor:
    """Keep the nucleus of each row and set the others to -inf.

    logits: [rows, vocab]; p: [rows] in (0, 1]. The nucleus is the smallest set of most probable
    tokens whose probabilities sum to at least p: the token that crosses p belongs to it, so it is
    never empty. p = 1 keeps the whole row. Returns a new [rows, vocab] tensor, in the order of
    the input. Source: Holtzman et al., arXiv:1904.09751.
    """
    probs = logits.float().softmax(dim=-1)
    sorted_probs, order = probs.sort(dim=-1, descending=True, stable=True)
    mass_before = sorted_probs.cumsum(dim=-1) - sorted_probs  # of all more probable tokens
    drop_sorted = (mass_before >= p[:, None]) & (p < 1)[:, None]
    drop = torch.zeros_like(drop_sorted).scatter(-1, order, drop_sorted)
    return logits.masked_fill(drop, -math.inf)


def min_p(logits: Tensor, p: Tensor) -> Tensor:
    """Drop tokens less probable than p times the row's most probable one (arXiv:2407.01082).

    logits: [rows, vocab]; p: [rows] in [0, 1]; 0 keeps the whole row.
    """
    threshold = logits.max(dim=-1, keepdim=True).values + p.log()[:, None]
    return logits.masked_fill(logits < threshold, -math.inf)


def token_mask(logits: Tensor, bitmask: Tensor) -> Tensor:
    """Set the logits of forbidden tokens to -inf.

    logits: [rows, vocab]; bitmask: [rows, ceil(vocab / 32)] int32, one bit a token: token t is
    allowed where bit t % 32 (bit 0 is the least significant) of word t // 32 is 1. Bits past the
    vocabulary mean nothing. Returns a new [rows, vocab] tensor of the same dtype.
    """
    vocab = logits.shape[-1]
    bits = torch.arange(32, device=bitmask.device, dtype=torch.int32)
    allowed = (bitmask[:, :, None] >> bits) & 1  # [rows, words, 32]
    return logits.masked_fill(allowed.flatten(1)[:, :vocab] == 0, -math.inf)


# ---------------------------------------------------------------- counter-based randomness


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
           ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four 32-bit random words for each 128-bit counter and 64-bit key.

    Words are int64 tensors holding values below 2**32 and broadcast together. Source: Salmon et
    al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011; the same as Triton's tl.philox.
    """
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        lo0, hi0 = _multiply(c0, 0xD2511F53)
        lo1, hi1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def _multiply(a: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """Low and high 32-bit word of a * constant, for a below 2**32.

    The product may pass int64's sign bit, but its 64 bits are right, and the masks drop the sign.
    """
    product = a * constant
    return product & 0xFFFFFFFF, (product >> 32) & 0xFFFFFFFF


def uniform(seed: Tensor, position: Tensor, purpose: int, n: int) -> Tensor:
    """n uniform numbers in (0, 1) for each row: [rows, n] float32.

    seed, position: [rows] int64. Number v of a row is word v % 4 of the Philox block with counter
    (v // 4, position, purpose, 0) and the seed as key: it depends on nothing else, neither on
    the other rows nor on n.
    """
    blocks = torch.arange((n + 3) // 4, device=seed.device)[None, :]
    zero = torch.zeros_like(blocks)
    position, seed = position[:, None], seed[:, None]
    words = philox(
        (blocks, position & 0xFFFFFFFF, zero + purpose, zero),
        (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF),
    )
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, :n]
    return ((bits.double() + 0.5) * 2.0**-32).float().clamp(max=1 - 2.0**-24)


def gumbel(seed: Tensor, position: Tensor, purpose: int, n: int) -> Tensor:
    """n standard Gumbel numbers for each row: [rows, n] float32.

    -log(E) with E = -log(1 - u) exponential: small E, which wins, comes from small u, where
    float32 is finest, so ties between winners are as rare as 32 bits allow.
    """
    return -torch.log(-torch.log1p(-uniform(seed, position, purpose, n)))


# ---------------------------------------------------------------- the draw


def process(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Temperature, top-k, top-p, min-p, in that order: [rows, vocab] float32 logits.

    Filters that no row uses are skipped; greedy rows pass through unharmed, since no filter
    removes the largest logit.
    """
    logits = temperature(logits.float(), rows.temperature)
    if bool((rows.top_k > 0).any()):
        logits = top_k(logits, rows.top_k)
    if bool((rows.top_p < 1).any()):
        logits = top_p(logits, rows.top_p)
    if bool((rows.min_p > 0).any()):
        logits = min_p(logits, rows.min_p)
    return logits


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Draw one token a row: [rows] int64. Rows with temperature 0 take the largest logit.

    logits: [rows, vocab], after penalties and bias and before temperature.
    """
    greedy = rows.temperature == 0
    if bool(greedy.all()):
        return logits.argmax(dim=-1)
    processed = process(logits, rows)
    noise = gumbel(rows.seed, rows.position, SAMPLE, logits.shape[-1])
    noisy = torch.where(greedy[:, None], logits.float(), processed + noise)
    return noisy.argmax(dim=-1)


def log_probabilities(logits: Tensor, tokens: Tensor, alternatives: int
                      ) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the chosen tokens and of the most probable alternatives.

    logits: [rows, vocab]; tokens: [rows]. Returns ([rows], ids [rows, alternatives],
    [rows, alternatives]), in nats, of the raw distribution: before temperature and truncation.
    """
    logp = logits.float().log_softmax(dim=-1)
    values, ids = logp.topk(min(alternatives, logp.shape[-1]), dim=-1)
    return logp.gather(-1, tokens[:, None])[:, 0], ids, values
