"""Draws the figures of docs/concepts.md and README.md: `python docs/site/figures.py`.

They have a light ground of their own, so that they are readable on any page; the site turns their
lightness in the dark (style.css).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1]
INK, FAINT, GROUND = "#222222", "#777777", "#fcfcfa"
BLUE, GREEN, ORANGE, PINK = "#0072b2", "#009e73", "#d55e00", "#cc79a7"
PALE = {BLUE: "#e3f0f8", GREEN: "#e2f4ee", ORANGE: "#fbeadf", PINK: "#f9ecf3", FAINT: "#f0f0ee"}


def figure(width: int, height: int, says: str, *parts: str) -> str:
    """An SVG on a light card; ``says`` is what a screen reader reads."""
    tips = "".join(
        f'<marker id="tip{color[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="{color}"/></marker>'
        for color in (INK, FAINT, BLUE, GREEN, ORANGE, PINK)
        if any(f"tip{color[1:]}" in part for part in parts)
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="15" role="img" '
        f'aria-label="{escape(says)}">'
    )
    card = f'<rect width="{width}" height="{height}" rx="10" fill="{GROUND}"/>'
    return "\n".join([head, f"<defs>{tips}</defs>" if tips else "", card, *parts, "</svg>", ""])


def text(
    x: float,
    y: float,
    words: str,
    *,
    color: str = INK,
    size: float = 15,
    bold: bool = False,
    at: str = "middle",
    on_lines: bool = False,
) -> str:
    weight = ' font-weight="600"' if bold else ""
    # Lines that pass behind the words leave a gap in the colour of the ground.
    halo = f' stroke="{GROUND}" stroke-width="4" paint-order="stroke"' if on_lines else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{at}" font-size="{size:g}" fill="{color}"'
        f"{weight}{halo}>{escape(words)}</text>"
    )


def box(x: float, y: float, width: float, height: float, color: str, *lines: str) -> str:
    """A rounded box; its first line is bold, the others are small."""
    shape = (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill="{PALE[color]}" stroke="{color}" stroke-width="1.5"/>'
    )
    top = y + height / 2 + 5 - 10 * (len(lines) - 1)
    words = [
        text(x + width / 2, top + 20 * n, line, bold=n == 0, size=15 if n == 0 else 13)
        for n, line in enumerate(lines)
    ]
    return "".join([shape, *words])


def arrow(
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = INK,
    *,
    width: float = 1.5,
    dashed: bool = False,
    tip: bool = True,
) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    marker = f' marker-end="url(#tip{color[1:]})"' if tip else ""
    return (
        f'<path d="M{start[0]:g} {start[1]:g} L{end[0]:g} {end[1]:g}" fill="none" '
        f'stroke="{color}" stroke-width="{width:g}"{dash}{marker}/>'
    )


def dot(x: float, y: float, color: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{color}"/>'


def task_vector() -> str:
    """Weights as a plane: two experts leave θ₀, and the merged model stands between them."""
    origin, first, second = (150, 235), (250, 75), (475, 195)
    share = (0.6, 0.5)
    along = [
        (origin[0] + s * (end[0] - origin[0]), origin[1] + s * (end[1] - origin[1]))
        for s, end in zip(share, (first, second), strict=True)
    ]
    merged = (along[0][0] + along[1][0] - origin[0], along[0][1] + along[1][1] - origin[1])
    return figure(
        760,
        300,
        "Two experts start from the same pre-trained weights. A task vector leads from those "
        "weights to an expert; the merged model adds a share of each task vector.",
        arrow(origin, first, BLUE, width=2.5),
        arrow(origin, second, GREEN, width=2.5),
        arrow(along[0], merged, FAINT, dashed=True, tip=False),
        arrow(along[1], merged, FAINT, dashed=True, tip=False),
        arrow(origin, merged, ORANGE, width=3),
        dot(*origin, INK),
        dot(*first, BLUE),
        dot(*second, GREEN),
        dot(*merged, ORANGE),
        text(150, 265, "θ₀, pre-trained"),
        text(250, 58, "θ₁, expert for digits", color=BLUE, bold=True),
        text(490, 200, "θ₂, expert for signs", color=GREEN, bold=True, at="start"),
        text(175, 140, "T₁ = θ₁ − θ₀", color=BLUE, at="end"),
        text(355, 240, "T₂ = θ₂ − θ₀", color=GREEN),
        text(merged[0] + 14, merged[1] - 6, "merged model", color=ORANGE, bold=True, at="start"),
        text(merged[0] + 14, merged[1] + 15, "θ₀ + 0.6 · T₁ + 0.5 · T₂", color=ORANGE, at="start"),
        text(740, 285, "a point is one set of weights", color=FAINT, size=13, at="end"),
    )


def _cells(x: float, y: float, values: Sequence[Sequence[float]], size: tuple[int, int]) -> str:
    """A table of coefficients, the darker the larger."""
    width, height = size
    return "".join(
        f'<rect x="{x + width * column:g}" y="{y + height * row:g}" width="{width}" '
        f'height="{height}" fill="{ORANGE}" fill-opacity="{value:g}" stroke="#ffffff"/>'
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    )


def coefficient() -> str:
    """The same two-expert merge with few, more and many coefficients."""
    layer_wise = [[0.35, 0.6], [0.7, 0.3], [0.45, 0.5], [0.2, 0.85]]
    # One row for each of three directions of a layer, stronger ones first.
    spread = (0.15, 0.0, -0.15)
    directions = [
        [value + s * (-1) ** n for value in row] for row in layer_wise for n, s in enumerate(spread)
    ]
    tables = [
        (60, "task_wise", "one per expert: K", [[0.4, 0.55]], (64, 120)),
        (320, "layer_wise", "one per layer and expert: L × K", layer_wise, (64, 30)),
        (580, "singular_wise", "one per singular direction", directions, (64, 10)),
    ]
    parts = []
    for x, name, many, values, size in tables:
        parts += [
            text(x + 64, 40, f"granularity={name}", bold=True),
            _cells(x, 75, values, size),
            text(x + 32, 213, "expert 1", size=12),
            text(x + 96, 213, "expert 2", size=12),
            text(x + 64, 245, many, size=13, color=FAINT),
        ]
    layers = [text(310, 95 + 30 * n, f"layer {n + 1}", size=12, at="end") for n in range(4)]
    return figure(
        770,
        265,
        "Three tables of merging coefficients: one per expert, one per layer and expert, one per "
        "singular direction of each layer and expert.",
        *parts,
        *layers,
        text(384, 64, "stronger colour: more of this expert", size=12, color=FAINT),
    )


def direction() -> str:
    """A layer's task matrix as a sum of things that it reads and writes."""
    parts = [
        box(30, 95, 130, 90, BLUE, "T, one layer", "of one expert"),
        text(190, 148, "=", size=24),
        text(310, 32, "reads v", size=13, color=FAINT),
        text(425, 32, "strength σ", size=13, color=FAINT),
        text(540, 32, "writes u", size=13, color=FAINT),
        text(655, 32, "coefficient λ", size=13, color=FAINT),
    ]
    for row, (strength, share) in enumerate([(9.0, 1.0), (5.0, 1.3), (2.0, 0.4)]):
        y, number = 75 + 65 * row, "₁₂₃"[row]
        if row:
            parts.append(text(240, y + 6, "+", size=22))
        parts += [
            box(270, y - 20, 80, 40, GREEN, f"v{number}"),
            arrow((350, y), (496, y), INK, width=strength / 2 + 0.5, tip=False),
            text(425, y - 12, f"σ{number} = {strength:g}", size=13),
            box(500, y - 20, 80, 40, GREEN, f"u{number}"),
            text(600, y + 5, "×", size=18),
            f'<rect x="620" y="{y - 8}" width="{45 * share:g}" height="16" rx="3" '
            f'fill="{ORANGE}"/>',
            text(628 + 45 * share, y + 5, f"λ{number} = {share:g}", at="start", color=ORANGE),
        ]
    return figure(
        770,
        250,
        "A layer's task matrix is a sum of singular directions. Each reads one pattern, v, with "
        "strength σ, and writes another, u; each has a merging coefficient of its own.",
        *parts,
    )


def teacher() -> str:
    """An unlabeled image, its expert and the merged model, and the loss between them."""
    return figure(
        760,
        250,
        "An unlabeled image of the digits task passes the digits expert, the teacher, and the "
        "merged model, the student, both with the same frozen head. The loss compares their "
        "answers, and no ground-truth label is used.",
        box(30, 95, 120, 60, FAINT, "image", "of digits, no label"),
        box(220, 35, 170, 60, BLUE, "expert for digits", "the teacher, frozen"),
        box(220, 155, 170, 60, ORANGE, "merged model", "the student"),
        box(430, 35, 110, 60, FAINT, "head", "of digits, frozen"),
        box(430, 155, 110, 60, FAINT, "head", "of digits, frozen"),
        box(620, 95, 110, 60, PINK, "loss", "same answer?"),
        arrow((150, 110), (218, 68)),
        arrow((150, 140), (218, 182)),
        arrow((390, 65), (428, 65)),
        arrow((390, 185), (428, 185)),
        arrow((540, 65), (632, 93)),
        arrow((540, 185), (632, 157)),
        text(600, 66, "“7”", bold=True, color=BLUE),
        text(600, 196, "“1”", bold=True, color=ORANGE),
        arrow((618, 125), (392, 160), PINK, dashed=True),
        text(505, 128, "gradient, to λ alone", size=13, color=PINK),
    )


def agreement() -> str:
    """What the teacher and the merged model say of eight held-out images."""
    teachers, students = "72104149", "72104199"
    parts = [
        text(190, 55, "held-out image", at="end"),
        text(190, 110, "teacher says", at="end", color=BLUE, bold=True),
        text(190, 160, "merged model says", at="end", color=ORANGE, bold=True),
    ]
    for n, (theirs, ours) in enumerate(zip(teachers, students, strict=True)):
        x, same = 240 + 62 * n, theirs == ours
        color = GREEN if same else PINK
        parts += [
            f'<rect x="{x - 20}" y="30" width="40" height="40" rx="4" fill="{PALE[FAINT]}" '
            f'stroke="{FAINT}"/>',
            text(x, 56, "?", color=FAINT, size=18),
            f'<rect x="{x - 22}" y="86" width="44" height="90" rx="6" fill="{PALE[color]}" '
            f'stroke="{color}" stroke-width="1.5"/>',
            text(x, 112, theirs, size=18),
            text(x, 162, ours, size=18),
        ]
    return figure(
        720,
        225,
        "Teacher and merged model give the same class for seven of eight unlabeled images: the "
        "agreement is 87.5 percent.",
        *parts,
        text(457, 208, "the same class for 7 of 8 images: agreement 87.5 %", bold=True),
    )


def demo(readme: str) -> str:
    """The averages of README's table, between the two bounds."""
    rows = re.findall(r"^\| ([^|]+?) \| [^|]* \| [^|\d]*(\d[\d.]*)[^|]*\|", readme, re.MULTILINE)
    bounds = [(name, float(mean)) for name, mean in rows if name in ("Pre-trained", "Individual")]
    merged = [(name, float(mean)) for name, mean in rows if name not in dict(bounds)]
    left, right, low, high = 300, 730, 60, 90

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    bottom = 60 + 28 * len(merged)
    parts = [text((left + right) / 2, bottom + 42, "average test accuracy, %", size=13)]
    for tick in range(low, high + 1, 10):
        parts += [
            arrow((at(tick), 46), (at(tick), bottom), "#dddddd", width=1, tip=False),
            text(at(tick), bottom + 20, str(tick), size=13, color=FAINT),
        ]
    for name, value in bounds:
        parts += [
            arrow((at(value), 46), (at(value), bottom), INK, dashed=True, tip=False),
            text(at(value), 34, f"{name} {value:g}", size=13),
        ]
    for row, (name, value) in enumerate(merged):
        x, y = at(value), 64 + 28 * row
        color = ORANGE if name.startswith("StatsMerging") else BLUE
        parts += [
            text(left - 16, y + 5, name, at="end", size=14),
            text(x + 12, y + 5, f"{value:.1f}", at="start", size=13, color=color, on_lines=True),
            dot(x, y, color),
        ]
    says = ", ".join(f"{name} {value:g}" for name, value in [*bounds, *merged])
    return figure(760, bottom + 56, f"Average accuracy of eight tasks in percent: {says}.", *parts)


def drawings() -> dict[str, str]:
    """Name of the file in docs/figures/ → what is in it."""
    concepts = (task_vector, coefficient, direction, teacher, agreement)
    readme = (DOCS.parent / "README.md").read_text()
    return {f"{draw.__name__}.svg": draw() for draw in concepts} | {"demo.svg": demo(readme)}


if __name__ == "__main__":
    for name, drawing in drawings().items():
        (DOCS / "figures" / name).write_text(drawing)
