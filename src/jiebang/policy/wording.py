"""Texts with places for values: `{balance_fen}` in a pack becomes "¥0.01" for the person who reads it.

Values are rendered by the type of their fact in each language: money as ¥ with two decimals, times and dates in
the pack's zone, lists of items by the pack's own line for one item. A value is never treated as a template, so text
that a person or merchant wrote cannot reveal another value.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.facts import FactType
from jiebang.model.plain import make_plain
from jiebang.policy.calendar import ZONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from zoneinfo import ZoneInfo

YUAN: Final = "¥"
_PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_LIST_LIMIT: Final = 20
_ABSENT: Final = Text("无", "none")
_BOOLS: Final = {True: Text("是", "yes"), False: Text("否", "no")}
_EN_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
"""Own names, because strftime's follow the server's locale."""
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""Later times are capped: an absurd fact must not make a text fail."""


class WordingError(Exception):
    """A text has a stray brace or a place for an unknown value. `token`: the offending part."""

    def __init__(self, text: Text, token: str) -> None:
        super().__init__(text.en)
        self.text = text
        self.token = token


class Wording(msgspec.Struct, frozen=True):
    """A text in both languages, cut at its places: even parts are literal, odd parts are names of values."""

    zh: tuple[str, ...]
    en: tuple[str, ...]
    names: frozenset[str]
    whole: Text | None
    """The finished text, where it has no places."""


def cut(text: str, known: Mapping[str, FactType]) -> tuple[str, ...]:
    """Cut one language's text at its places. Raises WordingError for a name not in `known` or a stray brace."""
    parts = tuple(_PLACE.split(text))
    for literal in parts[::2]:
        for brace in "{}":
            if brace in literal:
                stray = literal[literal.index(brace) :][:24]
                raise WordingError(
                    Text(
                        f"花括号只用于占位，如 {{name}}:“{stray}”",
                        f"braces only enclose a name, like {{name}}: '{stray}'",
                    ),
                    stray,
                )
    for name in parts[1::2]:
        if name not in known:
            raise WordingError(
                Text(
                    f"占位 {{{name}}} 不是事实、参数或此处可用的值", f"{{{name}}} is no fact, parameter or value here"
                ),
                f"{{{name}}}",
            )
    return parts


def join_wording(zh: tuple[str, ...], en: tuple[str, ...]) -> Wording:
    """Join both languages' cut texts."""
    names = frozenset(zh[1::2]) | frozenset(en[1::2])
    return Wording(zh, en, names, None if names else Text("".join(zh), "".join(en)))


def fill(text: Wording, values: Mapping[str, Text]) -> Text:
    """Fill the places of `text` with rendered `values`, which must have every name of `text.names`."""
    if text.whole is not None:
        return text.whole
    zh, en = list(text.zh), list(text.en)
    zh[1::2] = [values[name].zh for name in zh[1::2]]
    en[1::2] = [values[name].en for name in en[1::2]]
    return Text("".join(zh), "".join(en))


def money(fen: int, currency: str = YUAN) -> str:
    """Render money, an integer of hundredths: 1 fen is "¥0.01"."""
    sign = "-" if fen < 0 else ""
    yuan, rest = divmod(abs(fen), 100)
    return f"{sign}{currency}{yuan:,}.{rest:02}"


def _render_day(day: date) -> Text:
    return Text(f"{day.year}年{day.month}月{day.day}日", f"{day.day} {_EN_MONTHS[day.month - 1]} {day.year}")


def _render_time(at: datetime | str, zone: ZoneInfo) -> Text:
    """Render a time in `zone`. Items come as JSON, so theirs are ISO strings."""
    instant = datetime.fromisoformat(at) if isinstance(at, str) else at
    if instant.tzinfo is None:
        raise ValueError("a time without a zone is no instant")
    local = instant.astimezone(zone) if instant < _LAST else _LAST
    day = _render_day(local.date())
    return Text(f"{day.zh} {local:%H:%M}", f"{day.en}, {local:%H:%M}")


def _verbatim(value: object) -> Text:
    """Show a value as it is, in one line: other systems' texts must not act on whoever reads them."""
    plain = make_plain(str(value), lines=False)
    return Text(plain, plain)


def _render_date(value: date | str) -> Text:
    return _render_day(date.fromisoformat(value) if isinstance(value, str) else value)


_RENDER: Final[Mapping[FactType, Callable[[Any], Text]]] = {
    FactType.INT: lambda value: _verbatim(f"{int(value):,}"),
    FactType.BOOL: lambda value: _BOOLS[bool(value)],
    FactType.TEXT: _verbatim,
    FactType.DATE: _render_date,
}


def render(
    value: Any,
    kind: FactType,
    currency: str = YUAN,
    zone: ZoneInfo = ZONE,
    words: Mapping[str, Text] = MappingProxyType({}),
) -> Text:
    """Render one value of any type but ITEMS in both languages; NULL as "none". `words`: texts of TEXT values."""
    if value is None:
        return _ABSENT
    if kind is FactType.FEN:
        return _verbatim(money(int(value), currency))
    if kind is FactType.TIME:
        return _render_time(value, zone)
    return words.get(value) or _RENDER[kind](value) if kind is FactType.TEXT else _RENDER[kind](value)


def render_items(
    items: Sequence[Mapping[str, Any]],
    line: Wording,
    fields: Mapping[str, FactType],
    currency: str = YUAN,
    zone: ZoneInfo = ZONE,
) -> Text:
    """Render a list of items, one `line` for each of the first 20. A missing field of an item reads "none".

    `items` come from another system: a value that is not of its field's type is shown unchanged.
    """
    texts = [
        fill(line, {name: _render_field(item.get(name), fields[name], currency, zone) for name in line.names})
        for item in items[:_LIST_LIMIT]
    ]
    zh, en = "；".join(text.zh for text in texts), "; ".join(text.en for text in texts)
    more = len(items) - _LIST_LIMIT
    if more > 0:
        return Text(f"{zh}；另有 {more} 项", f"{en}; and {more} more")
    return Text(zh, en) if texts else _ABSENT


def _render_field(value: Any, kind: FactType, currency: str, zone: ZoneInfo) -> Text:
    try:
        return render(value, kind, currency, zone)
    except (AttributeError, TypeError, ValueError):
        return _verbatim(value)
