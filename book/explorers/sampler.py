"""Data and table of the sampler explorer: the default model's logits after a few prompts.

The 200 largest logits of each prompt stand for the whole vocabulary, which the page says.
Computing them takes some seconds, so they are kept in _build under a hash of what they depend on.
"""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = (
    "Once upon a time, there was a",
    "The capital of France is",
    "The opposite of hot is",
    "My favourite colour is",
)
TOKENS = 200
SETTINGS = (
    ("as the model gives it", {}),
    ("temperature 0.5", {"temperature": 0.5}),
    ("temperature 1.5", {"temperature": 1.5}),
    ("top-k 5", {"top_k": 5}),
    ("top-p 0.8", {"top_p": 0.8}),
    ("min-p 0.1", {"min_p": 0.1}),
)


def data() -> dict[str, Any]:
    """`{"vocab_size", "prompts": [{"prompt", "tokens", "logits"}]}`, likeliest token first."""
    from infero_book import execution

    text = Path(__file__).read_text(encoding="utf-8") + execution.model_identity()
    for folder in ("loading", "cache"):
        text += execution.tree_hash(ROOT / "infero" / folder)
    for name in ("model.py", "tokenizer.py"):
        text += (ROOT / "infero" / name).read_text(encoding="utf-8")
    name = f"sampler-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    kept = ROOT / "_build" / "explorers" / name
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_computed()), encoding="utf-8")
    out: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return out


def _computed() -> dict[str, Any]:
    import torch

    import infero
    from infero.cache import contiguous
    from infero.generate import step

    model = infero.load(dtype="float32", device="cpu")
    rows = []
    for prompt in PROMPTS:
        assert model.tokenizer is not None
        ids = model.tokenizer.encode(prompt)
        cache = contiguous.allocate(model.config, 1, len(ids), model.dtype, model.device)
        logits = step(model, cache, ids, 0)
        values, best = torch.topk(logits, TOKENS)
        tokens = [model.tokenizer.decode([int(token)]) for token in best]
        rounded = [round(float(value), 4) for value in values]
        rows.append({"prompt": prompt, "tokens": tokens, "logits": rounded})
    return {"model": model.name, "vocab_size": model.config.vocab_size, "prompts": rows}


def fallback() -> str:
    """The first prompt's five likeliest tokens under a few settings, as an HTML table."""
    import torch

    from infero import sampling

    row = data()["prompts"][0]
    logits = torch.tensor([row["logits"]])
    words = [token.replace("\n", "⏎").strip() or token for token in row["tokens"][:5]]
    head = "".join(f'<th scope="col">{html.escape(word)}</th>' for word in words)
    lines = []
    for name, settings in SETTINGS:
        params = sampling.SamplingParams(**settings)
        rows = sampling.rows_of([params], [0], [0])
        probs = sampling.process(logits, rows).softmax(-1)[0, :5].tolist()
        cells = "".join(f"<td>{p:.1%}</td>" if p else "<td>cut</td>" for p in probs)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        f'<div tabindex="0" role="group" aria-label="Table"><table class="table">'
        f"<caption>Probability of the likeliest next tokens after “{html.escape(row['prompt'])}”."
        f'</caption><thead><tr><th scope="col">setting</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
