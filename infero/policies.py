"""Who goes next: the sort key of a waiting request, the smallest first. Chapter 11 explains it.

Ageing keeps a policy from starving anyone: a request's key falls while it waits. If all keys fall
at one rate, the differences between them never change, so `now` drops out: what is left is a key
that is worked out once, `... + ageing * arrival_s`, and the queue is a plain heap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infero.request import Request


def first_come(request: Request) -> float:
    """First come, first served: the time of arrival in seconds."""
    return request.arrival_s


def shortest_first(request: Request, ageing: float) -> float:
    """Shortest job first: the tokens that are still to be processed, plus ageing * arrival_s.

    Still to process are the tokens not yet computed, and the output still expected:
    `expected_tokens` in all (`max_new_tokens` where no estimate was given) less what was
    generated, but at least 1. ageing is in tokens a second: who waits a second longer goes before
    a job that many tokens shorter.
    """
    expected = request.expected_tokens
    if expected is None:
        expected = request.max_new_tokens
    generated = len(request.tokens) - request.prompt_len
    left = len(request.tokens) - request.computed + max(expected - generated, 1)
    return left + ageing * request.arrival_s


def priority_first(request: Request, ageing: float) -> float:
    """Most urgent first: the priority (0 before 1 before 2), plus ageing * arrival_s.

    ageing is in levels a second: at 0.1, ten seconds of waiting are worth one level.
    """
    return request.priority + ageing * request.arrival_s
