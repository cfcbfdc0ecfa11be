"""Draws docs/images/rooms.svg from the imports of the code and the order in pyproject.toml, so that the map cannot lie.

Run `python docs/draw_rooms.py`; a test fails when the picture is older than the imports.

A box is a room, with the number of its files and its sub-rooms with theirs, then every room it imports. An arrow is an
import that no other path of imports implies, so that few lines say the order of all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import grimp
import msgspec

_ROOT: Final = Path(__file__).parents[1]
_PICTURE: Final = _ROOT / "docs" / "images" / "rooms.svg"
_PACKAGE: Final = "jiebang"

_STYLE: Final = """
.paper{fill:#fff}.ink{fill:#1d2129}.soft{fill:#5c6370}.room{fill:#f4f6fa;stroke:#b9c1cf}.sub{fill:#fff;stroke:#d5dae3}
.arrow{fill:none;stroke:#2f6fde;stroke-width:1.6}.head{fill:#2f6fde}
@media (prefers-color-scheme:dark){.paper{fill:#15181d}.ink{fill:#e8eaf0}.soft{fill:#a0a7b4}
.room{fill:#1e232b;stroke:#4a5262}.sub{fill:#272d37;stroke:#3c4452}.arrow{stroke:#6ea3ff}.head{fill:#6ea3ff}}
text{font:12px "PingFang SC","Noto Sans SC","Noto Sans CJK SC","Microsoft YaHei",system-ui,sans-serif}
.title{font-size:17px;font-weight:600}.name{font-size:14px;font-weight:600}.small{font-size:11px}
"""
_PAGE: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" aria-label="Rooms">
<style>{style}</style>
<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>
<rect class="paper" width="{wide}" height="{high}"/>
<text class="ink title" x="{edge}" y="34">房间 / Rooms</text>
<text class="soft small" x="{edge}" y="53">数字:文件数。“→”之后:所引用的房间。箭头:其中不能由其他路径推出的。</text>
<text class="soft small" x="{edge}" y="69">A number: files. After “→”: what is imported.
 An arrow: what no other path implies.</text>
{parts}
</svg>
"""
_WIDE: Final = 900.0
_EDGE: Final = 28.0
_LANE: Final = 16.0
"""From one line beside the boxes to the next."""
_HEAD: Final = 88.0
_GAP: Final = 40.0
"""Between two rows, where the arrows are."""
_BESIDE: Final = 20.0
"""Between two boxes of a row."""
_PAD: Final = 12.0
_LINE: Final = 17.0
_CHIP: Final = 24.0
_LETTER: Final = 6.9
"""How wide a letter of 12 px is at most, on average."""
_ALONE: Final = 560.0
"""How wide a room is that has its row to itself."""


class _Room(msgspec.Struct, frozen=True):
    """A room: its files in number, its sub-rooms by name with theirs, and the rooms that it imports."""

    name: str
    files: int
    subs: Mapping[str, int]
    imports: Sequence[str]


class _Box(msgspec.Struct, frozen=True):
    room: _Room
    row: int
    x: float
    y: float
    wide: float
    high: float

    @property
    def middle(self) -> float:
        return self.x + self.wide / 2


def picture() -> str:
    """Return the picture as SVG."""
    rows = _rows()
    order = [name for row in rows for name in row]
    rooms = _rooms(order)
    needed = _needed({name: set(room.imports) for name, room in rooms.items()})
    place = {name: at for at, row in enumerate(rows) for name in row}
    aside = [(one, other) for one, other in needed if place[other] - place[one] > 1]
    direct = [pair for pair in needed if pair not in aside]
    lanes = list(dict.fromkeys(other for _, other in aside))
    boxes = _boxes(rows, rooms, _WIDE - 2 * _EDGE - _LANE * len(lanes) - _BESIDE * bool(lanes))
    high = max(box.y + box.high for box in boxes.values()) + _EDGE
    right = max(box.x + box.wide for box in boxes.values())
    lines = [_straight(boxes[one], boxes[other], needed, direct) for one, other in direct]
    for one, other in aside:
        level = max(box.y + box.high for box in boxes.values() if box.row == place[one]) + _GAP / 4
        start = _spread(boxes[one], [to for by, to in needed if by == one], other)
        lines.append(_around(boxes[one], boxes[other], (start, level), right + _LANE * (lanes.index(other) + 1)))
    return _PAGE.format(
        style=_STYLE,
        wide=f"{_WIDE:.0f}",
        high=f"{high:.0f}",
        edge=f"{_EDGE:.0f}",
        parts="\n".join([*(part for name in order for part in _drawn(boxes[name])), *lines]),
    )


def _rows() -> list[list[str]]:
    """Rooms from the top down, as the linter's contract has them; `settings`, which app alone may read, beside app."""
    contracts = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [[name.strip().removeprefix(f"{_PACKAGE}.") for name in layer.split("|")] for layer in layers]
    next(row for row in rows if "app" in row).append("settings")
    return rows


def _rooms(names: Iterable[str]) -> dict[str, _Room]:
    graph = grimp.build_graph(_PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    known = list(names)
    inside = {
        name: sorted(module for module in graph.modules if f"{module}.".startswith(f"{_PACKAGE}.{name}."))
        for name in known
    }
    room_of = {module: name for name, modules in inside.items() for module in modules}
    rooms = {}
    for name, modules in inside.items():
        files = [module for module in modules if not graph.find_children(module)]
        below = [child.split(".")[-1] for child in graph.find_children(f"{_PACKAGE}.{name}")]
        subs = {sub: sum(file.startswith(f"{_PACKAGE}.{name}.{sub}.") for file in files) for sub in sorted(below)}
        used = {room_of.get(to, name) for module in modules for to in graph.find_modules_directly_imported_by(module)}
        rooms[name] = _Room(
            name,
            len(files),
            {sub: count for sub, count in subs.items() if count},
            [one for one in known if one in used - {name}],
        )
    return rooms


def _needed(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The imports between rooms that no longer path implies."""

    def reached(start: str) -> set[str]:
        found, left = set[str](), [start]
        while left:
            new = imports[left.pop()] - found
            found |= new
            left += new
        return found

    return [
        (one, other)
        for one, others in imports.items()
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def _boxes(rows: Sequence[Sequence[str]], rooms: Mapping[str, _Room], span: float) -> dict[str, _Box]:
    boxes: dict[str, _Box] = {}
    top = _HEAD
    for at, row in enumerate(rows):
        wide = min(_ALONE, span) if len(row) == 1 else (span - _BESIDE * (len(row) - 1)) / len(row)
        left = _EDGE + (span - wide * len(row) - _BESIDE * (len(row) - 1)) / 2
        high = max(_high(rooms[name], wide) for name in row)
        for nth, name in enumerate(row):
            boxes[name] = _Box(rooms[name], at, left + nth * (wide + _BESIDE), top, wide, high)
        top += high + _GAP
    return boxes


def _high(room: _Room, wide: float) -> float:
    chips, words = _chips(room, wide), _words(room, wide)
    return 2 * _PAD + 14 + bool(chips) * 8 + len(chips) * _CHIP + len(words) * _LINE


def _chips(room: _Room, wide: float) -> list[list[tuple[str, float]]]:
    """The sub-rooms in lines that fit: what each says, and how wide it is."""
    lines: list[list[tuple[str, float]]] = []
    for name, count in room.subs.items():
        chip = (f"{name} {count}", len(f"{name} {count}") * _LETTER + 14)
        if lines and sum(one + 6 for _, one in lines[-1]) + chip[1] <= wide - 2 * _PAD:
            lines[-1].append(chip)
        else:
            lines.append([chip])
    return lines


def _words(room: _Room, wide: float) -> list[str]:
    """What the room imports, in lines that fit."""
    lines: list[str] = []
    for name in room.imports:
        if lines and (len(lines[-1]) + len(name) + 3) * _LETTER * 11 / 12 <= wide - 2 * _PAD:
            lines[-1] += f" · {name}"
        else:
            lines.append(f"→ {name}" if not lines else f"    {name}")
    return lines


def _drawn(box: _Box) -> list[str]:
    x, y = box.x + _PAD, box.y + _PAD + 12
    count = f'<tspan class="soft small" dx="7">{box.room.files}</tspan>'
    parts = [
        f'<rect class="room" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.wide:.1f}" height="{box.high:.1f}" rx="8"/>',
        f'<text class="ink name" x="{x:.1f}" y="{y:.1f}">{escape(box.room.name)}{count}</text>',
    ]
    y += 10
    for line in _chips(box.room, box.wide):
        left = x
        for words, wide in line:
            middle, bottom = left + wide / 2, y + 13.5
            parts += [
                f'<rect class="sub" x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="19" rx="5"/>',
                f'<text class="ink" x="{middle:.1f}" y="{bottom:.1f}" text-anchor="middle">{escape(words)}</text>',
            ]
            left += wide + 6
        y += _CHIP
    for words in _words(box.room, box.wide):
        y += _LINE
        parts.append(
            f'<text class="soft small" x="{x:.1f}" y="{y - 3:.1f}" xml:space="preserve">{escape(words)}</text>'
        )
    return parts


def _straight(one: _Box, other: _Box, leaving: Sequence[tuple[str, str]], reaching: Sequence[tuple[str, str]]) -> str:
    """From a box to one beside it or in the next row. What leaves or reaches one box shares its edge evenly."""
    if one.row == other.row:
        level = one.y + one.high / 2
        return _arrow(f"M{one.x + one.wide:.1f} {level:.1f}H{other.x:.1f}")
    start = _spread(one, [to for by, to in leaving if by == one.room.name], other.room.name)
    stop = _spread(other, [by for by, to in reaching if to == other.room.name], one.room.name)
    top, bottom = one.y + one.high, other.y
    half = (top + bottom) / 2
    return _arrow(f"M{start:.1f} {top:.1f}C{start:.1f} {half:.1f} {stop:.1f} {half:.1f} {stop:.1f} {bottom:.1f}")


def _arrow(path: str) -> str:
    return f'<path class="arrow" marker-end="url(#to)" d="{path}"/>'


def _spread(box: _Box, ends: Sequence[str], end: str) -> float:
    return box.x + box.wide * (list(ends).index(end) + 1) / (len(ends) + 1)


def _around(one: _Box, other: _Box, turn: tuple[float, float], lane: float) -> str:
    """From a box to one further down: under its row to the side, down beside the rows, and into the other's side."""
    (start, level), stop = turn, other.y + other.high / 2
    out = f"V{level - 8:.1f}Q{start:.1f} {level:.1f} {start + 8:.1f} {level:.1f}H{lane - 8:.1f}"
    down = f"Q{lane:.1f} {level:.1f} {lane:.1f} {level + 8:.1f}V{stop - 8:.1f}"
    back = f"Q{lane:.1f} {stop:.1f} {lane - 8:.1f} {stop:.1f}H{other.x + other.wide:.1f}"
    return _arrow(f"M{start:.1f} {one.y + one.high:.1f}{out}{down}{back}")


if __name__ == "__main__":
    _PICTURE.write_text(picture(), encoding="utf-8")
