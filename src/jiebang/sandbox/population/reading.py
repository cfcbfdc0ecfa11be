"""Decodes a line into a person, or into its faults: field and reason in both languages, never the value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError, UndecodableError
from jiebang.model.plain import strip_acting
from jiebang.sandbox.population.checks import check
from jiebang.sandbox.population.format import Person
from jiebang.sandbox.population.format.fields import LONG_TEXTS
from jiebang.sandbox.population.table_checks import find_table_faults
from jiebang.sandbox.population.times import find_times_out_of_range

if TYPE_CHECKING:
    from datetime import date, datetime
    from typing import BinaryIO

MAX_LINE: Final = 16 << 20
"""The longest line read, in bytes."""

CHUNK_LINES: Final = 2000
CHUNK_BYTES: Final = 32 << 20


class LineFault(msgspec.Struct, frozen=True):
    """One thing wrong with one line: its number from 1, the field's path from the person down, and why."""

    line: int
    field: str
    reason: Text


class PopulationLine(msgspec.Struct, frozen=True, gc=False):
    """A line as read: its number from 1 and its bytes; None for one that is too long to read."""

    number: int
    text: bytes | None


def read_lines(source: BinaryIO, first: int, limit: int = CHUNK_LINES) -> tuple[list[PopulationLine], int]:
    """Read up to `limit` lines from a binary file, numbered from `first`; return them and how many bytes that was.

    No lines: the file has ended. Constant memory, however long a line is.
    """
    lines = list[PopulationLine]()
    size = 0
    while len(lines) < limit and size < CHUNK_BYTES and (text := source.readline(MAX_LINE + 1)):
        size += len(text)
        whole = len(text) <= MAX_LINE or text.endswith(b"\n")
        lines.append(PopulationLine(first + len(lines), text if whole else None))
        while not whole and (rest := source.readline(1 << 20)):
            size += len(rest)
            whole = rest.endswith(b"\n")
    return lines, size


_OUT_OF_RANGE: Final = Text(
    "超出可表示的时间范围(公元 1 年至北京时间 9999 年底)", "is out of range: the year 1 in UTC to 9999 in Shanghai"
)
_BOM: Final = b"\xef\xbb\xbf"
_MAY_ACT: Final = re.compile(
    rb"\\[bfr]|\\u(?:00[01]|007[fF]|00[89]|061[cC]|20[026]|[fF][eE][fF][fF])"
    rb"|\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]|\xef\xbb\xbf"
)
"""What a line holds whose texts may act on a reader's screen: such characters as they are, or written as escapes."""


def read_person(
    line: PopulationLine, now: datetime, today: date, *, tables: bool = False
) -> Person | list[LineFault] | None:
    """Decode and check one line. None: it is blank. What lies after `now` (Shanghai day `today`) is yet to come.

    With `tables` the rules of the tables are checked too; a line that is bad otherwise is always checked for them.
    """
    if line.text is None:
        return [LineFault(line.number, "", Text("行过长(上限 16 MiB)", "the line is over 16 MiB"))]
    text = line.text.removeprefix(_BOM) if line.number == 1 else line.text
    try:
        person = decode(text, Person)
        if _MAY_ACT.search(text):
            person = msgspec.convert(_strip(msgspec.to_builtins(person)), Person)
    except InvalidInputError as error:
        return None if not text or text.isspace() else [LineFault(line.number, *_translate_error(error))]
    problems = list(check(person, now, today))
    problems.extend((field, _OUT_OF_RANGE) for field in find_times_out_of_range(person, text))
    if tables or problems:
        problems.extend(find_table_faults(person))
        if b"\\u0000" in text and _holds_nul(person):
            problems.append(("", Text("文字中不能有 NUL 字符", "text cannot hold the NUL character")))
    return [LineFault(line.number, field, reason) for field, reason in problems] if problems else person


def _strip(value: Any) -> Any:
    """Return a decoded value whose names and titles hold no character that acts on a reader's screen.

    But NUL, which is a fault; and what people wrote to each other is theirs, and stays as it was written.
    """
    if isinstance(value, str):
        return "\0".join(map(strip_acting, value.split("\0")))
    if isinstance(value, list):
        return [_strip(each) for each in value]
    if isinstance(value, dict):
        return {name: each if name in LONG_TEXTS else _strip(each) for name, each in value.items()}
    return value


def _holds_nul(person: Person) -> bool:
    return b"\\u0000" in msgspec.json.encode(person).replace(b"\\\\", b"")


_KINDS: Final = {
    "int": Text("整数", "a whole number"),
    "float": Text("小数", "a number with a fraction"),
    "str": Text("文字", "text"),
    "bool": Text("true 或 false", "true or false"),
    "null": Text("null", "null"),
    "object": Text("对象", "an object"),
    "array": Text("数组", "an array"),
    "datetime": Text("时间", "a time"),
    "date": Text("日期", "a date"),
    "uuid": Text("UUID", "a UUID"),
}
_EXPECTED: Final = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_BOUND: Final = re.compile(r"Expected `int` (>=|<=) (-?[0-9]+)")
_LENGTH: Final = re.compile(r"Expected `(\w+)` of length (>=|<=) ([0-9]+)")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_PLAIN: Final = (
    ("Invalid enum value", Text("不是允许的取值", "is not one of the words allowed here")),
    ("Invalid RFC3339 encoded datetime", Text("不是 RFC 3339 时间", "is not an RFC 3339 time")),
    ("Invalid RFC3339 encoded date", Text("不是有效日期", "is not a date (YYYY-MM-DD)")),
    ("with a timezone", Text("时间须带时区", "a time needs its time zone")),
    ("Invalid UUID", Text("不是 UUID", "is not a UUID")),
)
_NOT_JSON: Final = Text("不是有效的 UTF-8 JSON 对象", "is not a valid JSON object in UTF-8")


def _kind(names: str) -> Text:
    known = [_KINDS.get(name.strip(), Text(name, name)) for name in names.split("|")]
    return Text("或".join(one.zh for one in known), " or ".join(one.en for one in known))


def _translate_error(error: InvalidInputError) -> tuple[str, Text]:  # noqa: PLR0911 - one return a kind of message
    """Translate what the decoder says; the value itself, which may be personal, is left out."""
    if isinstance(error, UndecodableError):
        return "", _NOT_JSON
    if not isinstance(error.__cause__, msgspec.ValidationError):
        return error.fields["field"], error.fields["reason"]  # a name that stands twice
    said, _, where = str(error.__cause__).partition(" - at `$")
    field = where.rstrip("`").removeprefix(".")
    inside = f"{field}." if field else ""
    if found := _MISSING.search(said):
        return inside + found[1], Text("缺少此字段", "is missing")
    if found := _UNKNOWN.search(said):
        return inside + found[1][:64], Text("没有此字段", "is not a field of the format")
    if found := _EXPECTED.search(said):
        wanted, got = _kind(found[1]), _kind(found[2])
        return field, Text(f"应为{wanted.zh},实为{got.zh}", f"must be {wanted.en}, not {got.en}")
    if found := _BOUND.search(said):
        zh, en = ("不得小于", "at least") if found[1] == ">=" else ("不得大于", "at most")
        return field, Text(f"{zh} {found[2]}", f"must be {en} {found[2]}")
    if found := _LENGTH.search(said):
        zh, en = ("至少", "at least") if found[2] == ">=" else ("至多", "at most")
        return field, Text(f"长度{zh}为 {found[3]}", f"must have a length of {en} {found[3]}")
    reason = next((text for words, text in _PLAIN if words in said), Text("值无效", "is not valid"))
    return field, reason
