"""Results of a program that is not done yet, so that its end does not cost what it has measured."""

from __future__ import annotations

from collections.abc import Sequence

from infero.results import Recorder, record


def save(r: Recorder, argv: Sequence[str] | None, out: str | None, device: str | None) -> None:
    """Write what was recorded until now; the program's last writing replaces it."""
    with record(r.name, argv=argv, out=out, device=device) as now:
        now.values |= r.values
        now.tables |= r.tables
