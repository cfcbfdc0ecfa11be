"""Characters that act on whoever reads them: refused or made plain where they come in, and again where they go out."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text as Styled

from jiebang.cli import runner
from jiebang.cli.plain_console import PlainConsole
from jiebang.model.errors import InvalidInputError, PackInvalidError
from jiebang.model.facts import FactType
from jiebang.model.plain import escape_json, find_acting, make_all_plain, make_plain, may_act, strip_acting
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.policy.wording import render
from jiebang.remote.bodies import convert_strictly
from jiebang.sandbox.population.format import social
from jiebang.sandbox.population.format.fields import LONG_TEXTS, LongText
from jiebang.sandbox.population.generate import generate
from jiebang.sandbox.population.reading import PopulationLine, read_person
from jiebang.usecases.operations.on_record import require_text

NOW = datetime(2026, 4, 1, tzinfo=UTC)
ESC = "\x1b]8;;http://evil\x07张三\x1b]8;;\x07"
BIDI = "给张三\u202e三李给\u202c"
HOSTILE = {
    "ESC": ESC,
    "bidi": BIDI,
    "isolate": "a\u2066b\u2069",
    "mark": "a\u200eb\u061c",
    "NUL": "a\0b",
    "C1": "a\x9b31mb\x85",
    "delete": "a\x7fb",
    "bell": "\a",
    "carriage return": "harmless\rhostile",
    "line separator": "a\u2028b",
    "byte order": "\ufeffa",
}
"""A text of every kind."""
ACTING = {
    *range(0x20),
    *range(0x7F, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
}
ACTING -= {ord("\n"), ord("\t")}


def acts(text: str) -> bool:
    """The judge: it shares nothing with the code."""
    return any(ord(each) in ACTING for each in text)


@given(st.text())
def test_plain_text_acts_on_nobody_and_other_text_stays_as_it_is(text: str) -> None:
    """A name must not be spoilt by what protects its reader."""
    plain = make_plain(text)
    assert not acts(plain)
    assert len(plain) == len(text)
    assert (find_acting(text) is not None) == acts(text) == (plain != text)
    assert not acts(strip_acting(text))
    assert "\n" not in make_plain(text, lines=False)
    document = json.dumps({text: [text]}, ensure_ascii=False)
    assert not acts(escape_json(document))
    assert json.loads(escape_json(document)) == {text: [text]}
    assert may_act(document) or not acts(text)
    assert not acts(json.dumps(make_all_plain({text: [text, 7]}), ensure_ascii=False))


@pytest.mark.parametrize("text", ["张三", "👨‍👩‍👧 家", "Zoë", "ا ب", "a\nb\tc", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_what_people_are_called_is_left_alone(text: str) -> None:
    """Joined emoji and other scripts are names."""
    assert make_plain(text) == strip_acting(text) == text
    assert find_acting(text) is None


# The exits.


def print_on(terminal: bool, *things: Any, **how: Any) -> str:
    file = io.StringIO()
    PlainConsole(file=file, force_terminal=terminal, width=80, color_system="truecolor" if terminal else None).print(
        *things, **how
    )
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_the_operators_terminal_is_written_to_by_us_alone(text: str, terminal: bool) -> None:
    """A name that moves the cursor could show another answer than ours, or a link of its own."""
    table = Table("name")
    table.add_row(text)
    for printed in (text, Styled(text), table):
        shown = print_on(terminal, printed, style="red", markup=False)
        ours = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # colours are ours: no text of the list has any
        assert not acts(ours), repr(shown)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_on_a_terminal_acts_on_nobody_and_says_the_same(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` is read by people, too; and programs must get the very text."""
    runner.print_json({"name": text})
    shown = capsys.readouterr().out
    assert not acts(shown)
    assert json.loads(shown) == {"name": text}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_value_in_a_text_is_one_plain_line(text: str) -> None:
    """Checks, SMS and mails are worded from what other systems' people typed."""
    shown = render(f"{text}\nSubject: another", FactType.TEXT)
    assert not acts(shown.zh + shown.en)
    assert "\n" not in shown.zh + shown.en


# The doors.


class Body(msgspec.Struct):
    """A body with a text."""

    name: str
    items: list[dict[str, str]] = []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["name", "items[0].id"])
def test_a_request_with_such_a_text_is_refused_and_told_where(text: str, where: str) -> None:
    """NUL made the database fail with a 500; the others were stored and shown to operators."""
    body = {"name": text} if where == "name" else {"name": "a", "items": [{"id": text}]}
    with pytest.raises(InvalidInputError) as refused:
        convert_strictly(body, Body)
    assert refused.value.fields["field"] == where
    with pytest.raises(InvalidInputError):
        convert_strictly({"name": "a", text: 1}, Body)
    deep: Any = text
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(InvalidInputError):
        convert_strictly({"name": deep}, Body)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_an_operator_writes_down_is_readable(text: str) -> None:
    """Who did what and why stands on record and is shown to others."""
    with pytest.raises(InvalidInputError):
        require_text("by", text)
    require_text("by", "梅 Mei")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("escaped", [True, False])
def test_a_population_comes_in_clean(text: str, escaped: bool) -> None:
    """What stands in the databases is read by every system there is. NUL, which no database takes, stays a fault."""
    person = json.loads(next(generate(1, 1, now=NOW)))
    person["identity"]["name"] = f"张{text}三"
    line = json.dumps(person, ensure_ascii=escaped).encode()
    found = read_person(PopulationLine(1, line), NOW, date(2026, 4, 1), tables=True)
    if "\0" in text:
        assert isinstance(found, list)
        return
    assert not isinstance(found, list), found
    assert found is not None
    assert found.identity is not None
    assert not acts(found.identity.name)
    assert found.identity.name.startswith("张")
    assert found.identity.name.endswith("三")


def test_what_people_wrote_to_each_other_stays_as_it_was_written() -> None:
    """It is theirs, and comes back in their archive; it is never worded into a text of ours."""
    person = json.loads(next(generate(1, 1, now=NOW)))
    message = {"message_id": 1, "sent_at": "2026-01-01T00:00:00Z", "kind": "text", "body": ESC + BIDI, "sender_id": 2}
    person["social"]["messages"] = [{**message, "media": None, "peer_id": 2, "group_id": None}]
    found = read_person(PopulationLine(1, json.dumps(person).encode()), NOW, date(2026, 4, 1), tables=True)
    assert not isinstance(found, list), found
    assert found is not None
    assert found.social is not None
    assert found.social.messages[0].body == ESC + BIDI
    long = {
        field.name
        for of in vars(social).values()
        if isinstance(of, type) and issubclass(of, msgspec.Struct)
        for field in msgspec.structs.fields(of)
        if field.type == LongText
    }
    assert long == LONG_TEXTS


@pytest.mark.parametrize("written", ["\u202e", "\u2066", "\\u202E", "\\x1b", "\\a", "\\u2028"])
def test_a_policy_reads_as_it_is(written: str) -> None:
    """Whoever approves a version must see the text that is stored."""
    text, name = packs.text("wechat")
    at = text.index('"', text.index("\nkinds:")) + 1
    with pytest.raises(PackInvalidError) as refused:
        load_pack(text[:at] + written + text[at:], name, PARTICIPANTS)
    [problem] = refused.value.fields["problems"]
    assert "U+" in problem["en"]
    assert problem["line"] == text[:at].count("\n") + 1
