"""Data and table of the bit-budget planner: measured sensitivities and measured plans (chapter 5).

The page solves the knapsack itself; tests/book/test_explorer_bitbudget.py compares it with
`infero.quant.sensitivity.choose`. The numbers are those of benchmarks/sensitivity.py.
"""

from __future__ import annotations

import html
from typing import Any

from infero import results
from infero.quant.fold import MATRICES

KEY = "gpu/sensitivity"
SCALE_BITS = 16  # of a group's scale


def data() -> dict[str, Any]:
    """`{"matrices": [[layer, name, weights, [kl at each of options]]], "options", "plans", …}`."""
    rows = results.table(f"{KEY}/costs").records()
    options = sorted({row["bits"] for row in rows})
    found: dict[tuple[int, str], dict[int, float]] = {}
    weights = {}
    for row in rows:
        at = (row["layer"], row["matrix"])
        found.setdefault(at, {})[row["bits"]] = row["kl"]
        weights[at] = row["weights"]
    order = sorted(found, key=lambda at: (at[0], MATRICES.index(at[1])))
    tables = {}
    for name in ("plans", "uniform"):
        table = results.table(f"{KEY}/{name}").records()
        tables[name] = [[r["budget"], r["kl"], r["perplexity"]] for r in table]
    return {
        "options": options,
        "names": list(MATRICES),
        "matrices": [[*at, weights[at], [max(0.0, found[at][b]) for b in options]]
                     for at in order],
        **tables,
        "base_perplexity": results.get(f"{KEY}/base_perplexity").value,
        "scale_bits": SCALE_BITS / results.get(f"{KEY}/group").value,
    }


def fallback() -> str:
    """The measured plans as an HTML table."""
    given = data()
    total = sum(row[2] for row in given["matrices"])
    alone = [sum(row[3][o] for row in given["matrices"]) for o in range(len(given["options"]))]
    same = dict(zip(given["options"], alone, strict=True))
    rows = []
    for budget, kl, perplexity in given["plans"]:
        size = total * (budget + given["scale_bits"]) / 8e6
        most = f"{same[budget]:.3f}" if budget in same else "–"
        rows.append(f'<tr><th scope="row">{budget:g}</th><td>{size:.0f} MB</td><td>{kl:.3f}</td>'
                    f"<td>{perplexity:,.1f}</td><td>{most}</td></tr>")
    heads = ("bits a weight", "size of the layers", "KL of the plan", "perplexity of the plan",
             "sum of costs with the same bits for all")
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    return (
        '<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        "<caption>Plans of mixed precision for SmolLM2 under a budget of bits, measured; KL in "
        f"nats a token. The unquantized model has a perplexity of {given['base_perplexity']:.2f}."
        f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
