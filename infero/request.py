"""What the scheduler and the engine pass between them: requests, and the plan of a step.

Plain data, without tensors or a model. Chapters 10 and 11 explain it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Request:
    """One request. `tokens` is the prompt with the output accepted so far."""

    id: str
    tokens: list[int]
    prompt_len: int
    max_new_tokens: int
    arrival_s: float = 0.0
    priority: int = 0
    expected_tokens: int | None = None
    salt: bytes = b""
    parent: Request | None = None  # another sample of the same prompt, whose blocks it may share
    state: Any = None  # the engine's own

    status: str = "waiting"  # "waiting" | "running" | "finished"
    finish_reason: str | None = None
    block_table: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)  # of the full blocks of `tokens`
    registered: int = 0  # how many of its blocks are findable
    computed: int = 0  # tokens whose keys and values are committed
    in_flight: int = 0  # further tokens in steps that are not committed yet
    pending: int = 0  # tokens those steps will sample
    drafts: list[int] = field(default_factory=list)  # proposed tokens to verify in the next step
    verifying: bool = False  # drafts are in flight: what is computed is open until commit
    epoch: int = 0  # counts preemptions, so that a late commit knows its blocks are gone
    key: float = 0.0  # the policy's
    number: int = 0  # order of arrival
    admitted: int = 0  # order of the last admission
    cached_tokens: int = 0  # prompt tokens found in the cache at first admission
    preemptions: int = 0
    scheduled_s: float | None = None  # when it first left the queue

    def wants(self) -> int:
        """New tokens it could compute now."""
        known = len(self.tokens) + self.pending
        left = self.max_new_tokens - (known - self.prompt_len)
        if self.verifying or left <= 0:
            return 0  # the first waits for its commit, the second is about to end
        drafts = 0 if self.pending else min(len(self.drafts), left - 1)
        return known + drafts - self.computed - self.in_flight


@dataclass
class Scheduled:
    """`n` new tokens of one request, the first at position `start`.

    samples: the span reaches the last known token, so its logits give the next. The last `drafts`
    of the n tokens are proposals.
    """

    request: Request
    start: int
    n: int
    samples: bool
    drafts: int
    epoch: int


@dataclass
class Copy:
    """A block to copy before the forward pass: "cow" within the cache, "out" to the host, "in"."""

    kind: str
    source: int
    target: int


@dataclass
class Plan:
    """One step: the spans to compute, and the block copies to make first, in order."""

    step: int
    entries: list[Scheduled] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(entry.n for entry in self.entries)
