"""Lines over a few places, drawn as SVG of its own: Chinese and English, light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

import msgspec

Words = tuple[str, str]
"""Chinese and English."""

_STYLE: Final = """
.paper{fill:#fff}.ink{fill:#1d2129}.soft{fill:#5c6370}.grid{stroke:#dfe3ea;stroke-width:1}
.limit{stroke:#c2571a;stroke-width:1;stroke-dasharray:2 3}
.c0{--c:#2f6fde}.c1{--c:#138a4b}.c2{--c:#b3307c}.c3{--c:#8a6a00}.c4{--c:#5b4bc4}.c5{--c:#c2571a}
@media (prefers-color-scheme:dark){.paper{fill:#15181d}.ink{fill:#e8eaf0}.soft{fill:#a0a7b4}.grid{stroke:#363b45}
.c0{--c:#6ea3ff}.c1{--c:#4cc38a}.c2{--c:#f07ac0}.c3{--c:#d9b44a}.c4{--c:#a99bff}.c5{--c:#f0995b}}
text{font:13px "PingFang SC","Noto Sans SC","Noto Sans CJK SC","Microsoft YaHei",system-ui,sans-serif}
.title{font-size:17px;font-weight:600}.small{font-size:11px}
.line{fill:none;stroke:var(--c);stroke-width:2.2;stroke-linejoin:round}.dot,.name{fill:var(--c)}
"""
_WIDE: Final = 900.0
_LEFT, _RIGHT, _BOTTOM = 74.0, 30.0, 84.0
_HEAD: Final = 86.0
"""Above the figures: title, a line of the legend, the axis's name."""
_FIGURES: Final = 302.0
_ROW: Final = 22.0
"""From one line of the legend to the next."""
_EDGE: Final = 78.0
"""From the sides to the first and the last place, whose words stand below them."""
_EDGES: Final = 20.0
"""From the sides to the words at the top."""
_COLOURS: Final = 6


class Axis(msgspec.Struct, frozen=True):
    """An axis: its name; `places`: where along it what stands, in two lines (else numbers). `log`: powers of ten."""

    name: Words
    places: Sequence[tuple[float, Words]] = ()
    log: bool = False


class Line(msgspec.Struct, frozen=True):
    """One thing's figures: (place, value). Values on a log axis are above 0."""

    name: Words
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def _ticks(axis: Axis, values: Sequence[float]) -> list[float]:
    """Round numbers around all values, from below the lowest to above the highest."""
    if axis.log:
        low, high = floor(log10(min(values))), ceil(log10(max(values)))
        steps = [m * 10.0**e for e in range(low, max(high, low + 1) + 1) for m in (1, 2, 5)]
        first = max([at for at, step in enumerate(steps) if step <= min(values)], default=0)
        last = min([at for at, step in enumerate(steps) if step >= max(values)], default=len(steps) - 1)
        return steps[first : max(last, first + 1) + 1]
    top = max(*values, 1e-9)
    unit = 10.0 ** floor(log10(top / 4))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m * 5 >= top)
    return [step * at for at in range(ceil(top / step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"  # noqa: PLR2004 - two figures are enough from there on


def chart(
    title: Words, across: Axis, up: Axis, lines: Sequence[Line], limits: Sequence[tuple[float, Words]] = ()
) -> str:
    """Return the picture. Every line has a point at some of the places of `across`; `limits`: values with a name."""
    ticks = _ticks(up, [*(value for line in lines for _, value in line.points), *(value for value, _ in limits)])
    legend, rows = _legend(lines)
    top = _HEAD + rows * _ROW
    foot = top + _FIGURES
    high = foot + _BOTTOM
    ends = (log10(ticks[0]), log10(ticks[-1])) if up.log else (ticks[0], ticks[-1])
    most = max(place for place, _ in across.places) or 1.0

    def x(place: float) -> float:
        return _LEFT + _EDGE + (_WIDE - _LEFT - _RIGHT - 2 * _EDGE) * place / most

    def y(value: float) -> float:
        share = ((log10(value) if up.log else value) - ends[0]) / (ends[1] - ends[0])
        return foot - _FIGURES * share

    parts = [
        f'<rect class="paper" width="{_WIDE}" height="{high}"/>',
        f'<text class="ink title" x="{_EDGES}" y="30">{_both(title)}</text>',
        f'<text class="soft" x="{_EDGES}" y="{top - 16}">{_both(up.name)}</text>',
        f'<text class="soft" x="{_WIDE / 2}" y="{high - 14}" text-anchor="middle">{_both(across.name)}</text>',
    ]
    parts += [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="soft small" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        for tick in ticks
    ]
    parts += [
        f'<line class="limit" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text class="soft small" x="{_WIDE - _RIGHT - 4}" y="{y(value) - 5:.1f}" text-anchor="end">'
        f"{_both(name)} {_number(value)}</text>"
        for value, name in limits
    ]
    parts += [
        f'<text class="ink" x="{x(place):.1f}" y="{foot + 20}" text-anchor="middle">{escape(above)}</text>'
        f'<text class="soft small" x="{x(place):.1f}" y="{foot + 36}" text-anchor="middle">{escape(below)}</text>'
        for place, (above, below) in across.places
    ]
    for at, line in enumerate(lines):
        path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in line.points)
        dots = "".join(
            f'<circle class="dot" cx="{x(place):.1f}" cy="{y(value):.1f}" r="3.5">'
            f"<title>{_both(line.name)}: {_number(value)}</title></circle>"
            for place, value in line.points
        )
        parts.append(f'<g class="c{at % _COLOURS}"><polyline class="line"{_dash(line)} points="{path}"/>{dots}</g>')
    parts.append(legend)
    label = escape(" ".join(title))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE:.0f}" height="{high:.0f}" '
        f'viewBox="0 0 {_WIDE:.0f} {high:.0f}" role="img" aria-label="{label}"><style>{_STYLE}</style>'
        f"{''.join(parts)}</svg>\n"
    )


def _legend(lines: Sequence[Line]) -> tuple[str, int]:
    """Return the lines' names with their colours, and how many rows they take: as many as the width asks for."""
    parts, at, rows = [], _EDGES, 1
    for number, line in enumerate(lines):
        told = line.name[0] if line.name[0] == line.name[1] else " ".join(line.name)
        wide = sum(14 if ord(sign) > 0x2E80 else 7 for sign in told) + 27  # noqa: PLR2004 - where full-width signs begin
        if at + wide > _WIDE - _EDGES and at > _EDGES:
            at, rows = _EDGES, rows + 1
        y = _HEAD - 28 + (rows - 1) * _ROW
        parts.append(
            f'<g class="c{number % _COLOURS}"><line class="line"{_dash(line)} x1="{at:.0f}" x2="{at + 20:.0f}" '
            f'y1="{y}" y2="{y}"/><circle class="dot" cx="{at + 10:.0f}" cy="{y}" r="3.5"/>'
            f'<text class="name" x="{at + 27:.0f}" y="{y + 4.5}">{escape(told)}</text></g>'
        )
        at += wide + 20
    return "".join(parts), rows


def _dash(line: Line) -> str:
    return ' stroke-dasharray="5 4"' if line.dashed else ""


def _both(words: Words) -> str:
    zh, en = words
    return escape(zh if zh == en else f"{zh} {en}")
