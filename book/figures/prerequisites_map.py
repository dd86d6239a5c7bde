"""Which chapter builds on which: drawn from book/chapters.yml and the edges below."""

from pathlib import Path

import yaml

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters.yml"

# The chapters that each chapter's ideas rest on, and its place in the drawing (lane, row).
NEEDS = {
    2: [1], 3: [2], 4: [3], 5: [4], 6: [5], 7: [3], 8: [7], 9: [8], 13: [3], 14: [13], 15: [14],
    16: [15], 10: [8], 11: [10], 12: [10], 17: [11], 18: [17], 19: [18], 20: [18],
}  # fmt: skip
PLACE = {
    1: (1.5, 0), 2: (1.5, 1), 3: (1.5, 2),
    4: (0, 3), 5: (0, 4), 6: (0, 5),
    7: (1, 3), 8: (1, 4), 9: (1, 5), 12: (1, 6),
    10: (2, 5), 11: (2, 6), 17: (2, 7), 18: (2, 8), 19: (1.5, 9), 20: (2.5, 9),
    13: (3, 3), 14: (3, 4), 15: (3, 5), 16: (3, 6),
}  # fmt: skip


def draw(theme):
    rows = yaml.safe_load(CHAPTERS.read_text(encoding="utf-8"))
    names = {number: row["short"] for number, row in enumerate(rows, start=1)}
    width, height, box_w, box_h = 7.2, 5.9, 1.66, 0.35
    figure, ax = theme.canvas(width, height)

    def corner(number):
        lane, row = PLACE[number]
        return 0.02 + lane * 1.833, height - 0.4 - row * 0.58

    for number, needs in NEEDS.items():
        x, y = corner(number)
        for need in needs:
            nx, ny = corner(need)
            theme.arrow(ax, (nx + box_w / 2, ny), (x + box_w / 2, y + box_h))
    for number, name in names.items():
        trunk = number <= 3
        theme.box(
            ax, corner(number), box_w, box_h, f"{number}  {name}",
            color=theme.blue if trunk else None, size=8.6,
        )  # fmt: skip
    return figure
