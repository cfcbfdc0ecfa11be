"""Made-up people: the demo, the tests and every later measurement stand on them being the same and being right."""

from __future__ import annotations

import hashlib
import io
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.policy.documents import DocumentType, make_passport, make_resident_id
from jiebang.sandbox.population.format import MAX_ID, Person
from jiebang.sandbox.population.generate import CHUNK, LAST_ACCOUNT, generate
from jiebang.sandbox.population.people import RESERVED, STORY_PEOPLE
from jiebang.sandbox.population.reading import MAX_LINE, LineFault, PopulationLine, read_lines, read_person
from jiebang.sandbox.population.tables import csv_of, encode_rows
from tests.examples import examples, some

NOW = datetime(2026, 1, 15, 4, tzinfo=UTC)
TODAY = date(2026, 1, 15)
DAY = 86_400


def people(count: int, seed: int = 7, first: int = 1) -> list[Person]:
    return [msgspec.json.decode(line, type=Person) for line in generate(count, seed, first=first, now=NOW)]


@pytest.fixture(scope="module")
def crowd() -> list[Person]:
    return people(4000)


def rows_of(person: Person) -> int:
    """Count what loading writes: the lists, an account row in ten databases (identity in two), and the data key."""
    lists = 0
    for name in ("wallet", "security", "social", "openplatform", "enterprise", "merchant", "gaming"):
        section = msgspec.structs.asdict(getattr(person, name))
        lists += sum(len(value) for value in section.values() if isinstance(value, list))
    return lists + 11 + (2 * len(person.identity.changes) if person.identity else 0)


def test_the_same_arguments_give_the_same_bytes_on_any_machine() -> None:
    """Whoever compares figures over time or machines needs the very same people."""
    digest = hashlib.sha256(b"".join(generate(300, 7, now=NOW))).hexdigest()
    assert digest == "4dac687f7d70b2822e904ecba20450873568a9f97e2e5f165158cae70cc7e73d"


@given(st.integers(1, 5000), st.integers(1, 40), st.integers(0, 39))
@examples(15)
def test_an_account_does_not_depend_on_who_else_is_made(first: int, count: int, offset: int) -> None:
    """Whoever makes a population in parts, on several machines, needs the people of one run."""
    offset %= count
    run = list(generate(count, 3, first=first, now=NOW))
    assert run[offset] == next(generate(1, 3, first=first + offset, now=NOW))


def test_chunks_meet_without_a_seam() -> None:
    run = list(generate(CHUNK + 3, 5, now=NOW))
    assert run[CHUNK - 1 :] == list(generate(4, 5, first=CHUNK, now=NOW))
    assert [json.loads(line)["account_id"] for line in run] == list(range(1, CHUNK + 4))


@pytest.mark.parametrize("first", [10**15, LAST_ACCOUNT - 1])
def test_the_largest_account_numbers_are_made_and_read(first: int) -> None:
    assert [
        read_person(PopulationLine(1, line), NOW, TODAY) for line in generate(2, 1, first=first, now=NOW)
    ] == people(2, 1, first)


@pytest.mark.parametrize(("count", "first"), [(1, 0), (-1, 1), (2, LAST_ACCOUNT)])
def test_accounts_that_cannot_be_are_refused(count: int, first: int) -> None:
    with pytest.raises(ValueError, match="not within"):
        next(generate(count, 1, first=first, now=NOW))
    with pytest.raises(ValueError, match="time zone"):
        next(generate(1, 1, now=NOW.replace(tzinfo=None)))


@pytest.mark.parametrize(
    ("seed", "now"), some([(1, NOW), (2**64 + 9, datetime(2025, 12, 31, 23, 59, tzinfo=UTC)), (-5, NOW)])
)
def test_every_line_keeps_every_rule_of_the_format(seed: int, now: datetime) -> None:
    """A line that the loader refuses would stop the demo; the tables' rules are checked too."""
    for number, line in enumerate(generate(1500, seed, now=now), 1):
        person = read_person(PopulationLine(number, line), now, now.date(), tables=True)
        assert isinstance(person, Person), person
        assert msgspec.json.encode(person) + b"\n" == line


def test_people_are_as_rich_as_real_ones(crowd: list[Person]) -> None:
    assert statistics.median(map(rows_of, crowd)) >= 40


def test_all_kinds_of_things_occur(crowd: list[Person]) -> None:
    """A kind that never occurs is one that no later test or measurement ever meets."""
    assert {person.identity.document_type for person in crowd if person.identity} == set(DocumentType)
    messages = [message for person in crowd for message in person.social.messages]
    assert {"text", "sticker", "image", "voice", "video", "file", "link", "location"} == {one.kind for one in messages}
    assert any(message.recalled_at for message in messages)
    for name in ("wallet", "security", "social", "openplatform", "enterprise", "merchant", "gaming"):
        lists = [
            field for field in msgspec.structs.fields(type(getattr(crowd[0], name))) if field.default_factory is list
        ]
        for field in lists:
            assert any(getattr(getattr(person, name), field.name) for person in crowd), f"{name}.{field.name}"
    assert {binding.network for person in crowd for binding in person.bindings} == {"unionpay", "netsunion"}
    assert 0.02 < sum(person.gaming.game_guard for person in crowd) / len(crowd) < 0.04


def ages(person: Person) -> int:
    assert person.identity is not None
    assert person.identity.birth_date is not None
    return (TODAY - person.identity.birth_date).days * 4 // 1461


def seconds_ago(at: datetime) -> float:
    return (NOW - at).total_seconds()


BLOCKERS: Mapping[str, Callable[[Any], Any]] = {
    "PAY-AUTODEBIT": lambda p: any(one.ended_at is None for one in p.wallet.autodebit_contracts),
    "PAY-BALANCE": lambda p: p.wallet.balance_fen,
    "CREDIT-OPEN": lambda p: any(one.closed_at is None for one in p.wallet.credit_products),
    "PAY-RED-PACKET": lambda p: any(one.state == "unclaimed" for one in p.wallet.red_packets),
    "PAY-PENDING": lambda p: any(one.state == "pending" for one in p.wallet.entries),
    "PAY-ARREARS": lambda p: any(one.repaid_at is None for one in p.wallet.arrears),
    "PAY-FROZEN": lambda p: any(one.lifted_at is None for one in p.wallet.freezes),
    "SEC-ABNORMAL-LOGIN": lambda p: any(
        one.anomaly and not one.confirmed_at and seconds_ago(one.at) < 30 * DAY for one in p.security.logins
    ),
    "SEC-DEVICE-RECENT": lambda p: seconds_ago(p.security.primary_device_since) < 7 * DAY,
    "ID-RECENT-CHANGE": lambda p: seconds_ago(p.identity.changed_at) <= 91 * DAY,
    "DOC-REVIEW": lambda p: p.identity.document_type in ("hk_macao_permit", "taiwan_permit", "passport"),
    "MINOR-EVIDENCE": lambda p: ages(p) < 18,
    "ORG-ADMIN": lambda p: any(one.role == "administrator" for one in p.enterprise.memberships),
    "OA-ADMIN": lambda p: any(one.role == "administrator" for one in p.openplatform.official_accounts),
    "LEGAL-HOLD": lambda p: p.security.holds,
}


def met_by(person: Person) -> set[str]:
    return {code for code, test in BLOCKERS.items() if test(person)}


def test_the_picture_of_today_holds(crowd: list[Person]) -> None:
    """Fewer than 35% pass, and over 60% of the failures have an auto-debit contract: later backtests rely on it."""
    others = [met_by(person) for person in crowd[RESERVED:]]
    failures = [codes for codes in others if codes]
    assert 0.25 < 1 - len(failures) / len(others) < 0.35
    assert sum("PAY-AUTODEBIT" in codes for codes in failures) / len(failures) > 0.6
    assert set(Counter(code for codes in failures for code in codes)) == set(BLOCKERS)


def test_nothing_unconfirmed_lies_beyond_the_thirty_days(crowd: list[Person]) -> None:
    """An old abnormal login that nobody confirmed would block some rule sets and not others."""
    logins = [login for person in crowd for login in person.security.logins if login.anomaly]
    assert any(login.confirmed_at for login in logins)
    assert all(login.confirmed_at or seconds_ago(login.at) < 30 * DAY for login in logins)


@pytest.mark.parametrize("seed", [7, 8])
def test_the_people_of_the_stories_are_as_told(seed: int) -> None:
    made = people(RESERVED, seed)
    assert made == people(RESERVED, 1)
    assert sorted(person.account_id for person in STORY_PEOPLE.values()) == list(range(1, RESERVED + 1))
    for told in STORY_PEOPLE.values():
        person = made[told.account_id - 1]
        assert person.identity is not None
        assert (person.account_id, person.identity.name) == (told.account_id, told.name)
        assert person.identity.document_type == "resident_id"
        assert met_by(person) == set(told.meets)
        assert person.wallet.balance_fen == told.balance_fen
        assert person.wallet.payment_password == told.payment_password == "246810"
        assert person.security.primary_device_id == told.device_id
        assert person.security.second_factors[0].address == told.phone
    blocked = made[STORY_PEOPLE["blocked"].account_id - 1].wallet
    assert blocked.balance_fen == 1
    assert [packet.state for packet in blocked.red_packets].count("unclaimed") == 1
    assert all(packet.expires_at > NOW for packet in blocked.red_packets if packet.state == "unclaimed")


# --- Bad lines -------------------------------------------------------------------------------------------------------


def line_with(path: str, value: Any) -> bytes:
    """Return account 2's line with one value changed; `path` like "wallet.entries.0.kind"; a value ... removes it."""
    document = json.loads(next(generate(1, 7, first=2, now=NOW)))
    *steps, last = path.split(".")
    place: Any = document
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if value is ...:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return json.dumps(document, ensure_ascii=False).encode()


def faults_of(line: bytes | None, number: int = 12) -> list[LineFault]:
    found = read_person(PopulationLine(number, line), NOW, TODAY, tables=True)
    assert isinstance(found, list), "a bad line would have been loaded"
    assert all(fault.line == number and fault.reason.zh and fault.reason.en for fault in found)
    return found


NO_DAY = "E1234567<4DEU8503<<2F3001019<<<<<<<<<<<<<<02"
"""A passport's line without the day of birth."""
NO_UUID = "00000000-0000-4000-8000-000000000000"
BAD_LINES: Mapping[str, tuple[str, Any, str]] = {
    "a text for a number": ("wallet.balance_fen", "1", "wallet.balance_fen"),
    "half a fen": ("wallet.balance_fen", 0.5, "wallet.balance_fen"),
    "money below zero": ("wallet.balance_fen", -1, "wallet.balance_fen"),
    "money that the ledger does not explain": ("wallet.balance_fen", 2, "wallet.balance_fen"),
    "an account number of nobody": ("account_id", 0, "account_id"),
    "an account number too large for JSON": ("account_id", MAX_ID + 1, "account_id"),
    "a missing field": ("wallet.balance_fen", ..., "wallet.balance_fen"),
    "a misspelt field": ("wallet.balanse_fen", 1, "wallet.balanse_fen"),
    "a missing section": ("gaming", ..., "gaming"),
    "a word that is not allowed": ("wallet.entries.0.kind", "gift", "wallet.entries[0].kind"),
    "a time without a zone": ("created_at", "2020-01-01T00:00:00", "created_at"),
    "a day that is none": ("identity.birth_date", "1990-02-30", "identity.birth_date"),
    "a document with a wrong check digit": (
        "identity.document_number",
        "110105194912310021",
        "identity.document_number",
    ),
    "a birth date in another month than the passport's": (
        "identity",
        {
            "name": "甲",
            "document_type": "passport",
            "document_number": NO_DAY,
            "birth_date": "1985-04-01",
            "region": "DEU",
            "level": 1,
            "changed_at": "2020-01-01T00:00:00Z",
        },
        "identity.birth_date",
    ),
    "a birth date that is not the document's": ("identity.birth_date", "1990-01-01", "identity.birth_date"),
    "a region that is none": ("identity.region", "XX", "identity.region"),
    "a change in the future": ("identity.changed_at", "2027-01-01T00:00:00Z", "identity.changed_at"),
    "a wrong document in the history": (
        "identity.changes.0.document_number",
        "110105194912310021",
        "identity.changes[0].document_number",
    ),
    "a password that is not six digits": ("wallet.payment_password", "12345a", "wallet.payment_password"),
    "an entry number that is no UUID": ("wallet.entries.0.entry_id", "x", "wallet.entries[0].entry_id"),
    "a payment that brings money": ("wallet.entries.3.amount_fen", 5, "wallet.entries[3].amount_fen"),
    "a transfer from nobody": ("wallet.entries.3.kind", "transfer", "wallet.entries[3].counterparty_id"),
    "an ended entry without its time": ("wallet.entries.3.ended_at", None, "wallet.entries[3].ended_at"),
    "a packet claimed by no entry": ("wallet.red_packets.0.entry_id", NO_UUID, "wallet.red_packets[0].entry_id"),
    "a packet that expires before it is sent": (
        "wallet.red_packets.0.expires_at",
        "2001-01-01T00:00:00Z",
        "wallet.red_packets[0].expires_at",
    ),
    "a card number with a letter": ("wallet.bank_cards.0.number", "411111111111111A", "wallet.bank_cards[0].number"),
    "no birth date, though the document has it": ("identity.birth_date", None, "identity.birth_date"),
    "a time before the first year": ("created_at", "0001-01-01T00:00:00+08:00", "created_at"),
    "a time after the last day in Shanghai": (
        "wallet.red_packets.0.expires_at",
        "9999-12-31T23:59:59Z",
        "wallet.red_packets[0].expires_at",
    ),
    "a time on the last day but one, where the zone carries it out": (
        "wallet.entries.0.made_at",
        "9999-12-30T16:01:00-23:59",
        "wallet.entries[0].made_at",
    ),
    "a time out of range in a later list": (
        "social.messages.0.sent_at",
        "9999-12-31T23:59:59.9-11:30",
        "social.messages[0].sent_at",
    ),
    "a primary device that is not registered": ("security.primary_device_id", "other", "security.primary_device_id"),
    "a confirmed login with nothing odd": (
        "security.logins.0.confirmed_at",
        "2026-01-01T00:00:00Z",
        "security.logins[0].confirmed_at",
    ),
    "a phone with letters": ("security.second_factors.0.address", "call me", "security.second_factors[0].address"),
    "two contacts in one": ("social.contacts.1.contact_id", 474, "social.contacts[1].contact_id"),
    "oneself as a contact": ("social.contacts.0.contact_id", 2, "social.contacts[0].contact_id"),
    "a message in no chat": ("social.messages.0.peer_id", None, "social.messages[0].group_id"),
    "a message in a foreign group": ("social.messages.0.group_id", 5, "social.messages[0].group_id"),
    "a text with a medium": ("social.messages.0.media", "x", "social.messages[0].media"),
    "a mail address without a host": ("social.email", "me@", "social.email"),
    "a token under no grant": ("openplatform.oauth_tokens.0.grant_id", 99, "openplatform.oauth_tokens[0].grant_id"),
    "a scope with a quotation mark": (
        "openplatform.oauth_grants.0.scopes",
        ['a"'],
        "openplatform.oauth_grants[0].scopes",
    ),
    "a time of playing no game": ("gaming.play_sessions.0.game_id", 99, "gaming.play_sessions[0].game_id"),
    "a binding with a blank": ("bindings.0.binding", "a b", "bindings[0].binding"),
    "a NUL character": ("social.nickname", "a\0b", ""),
    "an empty name": ("identity.name", "", "identity.name"),
}


@pytest.mark.parametrize("what", BAD_LINES)
def test_a_bad_line_is_told_by_number_field_and_reason(what: str) -> None:
    path, value, field = BAD_LINES[what]
    assert field in [fault.field for fault in faults_of(line_with(path, value))]


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"account_id":1\xff}', None])
def test_what_is_no_json_object_is_told(line: bytes | None) -> None:
    assert [fault.field for fault in faults_of(line)] == [""]


def test_a_time_out_of_range_is_told_however_it_is_written() -> None:
    """JSON lets any character be escaped: one line so written must not end everybody's load."""
    line = line_with("created_at", "0001-01-01T00:00:00+08:00").replace(b'"0001-', b'"\\u0030001-')
    assert "created_at" in [fault.field for fault in faults_of(line)]


@pytest.mark.parametrize(
    ("field", "at"),
    [
        ("wallet.red_packets.0.expires_at", "9999-12-31T23:59:59+08:00"),
        ("social.messages.0.sent_at", "0001-01-01T00:00:00Z"),
    ],
)
def test_a_time_at_the_edge_of_the_range_is_one(field: str, at: str) -> None:
    """Many systems write "never" as the last second of 9999."""
    assert isinstance(read_person(PopulationLine(1, line_with(field, at)), NOW, TODAY, tables=True), Person)


ODD: Mapping[str, Sequence[tuple[str, Any]]] = {
    "a region that was": [
        ("identity.document_number", make_resident_id("349001", date(1990, 5, 17), 123)),
        ("identity.birth_date", "1990-05-17"),
    ],
    "a region in no list": [
        ("identity.document_number", make_resident_id("449999", date(1990, 5, 17), 123)),
        ("identity.birth_date", "1990-05-17"),
    ],
    "a passport without the day of birth": [
        ("identity.document_type", "passport"),
        ("identity.document_number", NO_DAY),
        ("identity.birth_date", None),
    ],
    "such a one, the day known from elsewhere": [
        ("identity.document_type", "passport"),
        ("identity.document_number", NO_DAY),
        ("identity.birth_date", "1985-03-09"),
    ],
    "a passport of somebody born in 1920": [
        ("identity.document_type", "passport"),
        ("identity.document_number", make_passport("E1234567", "DEU", date(1920, 5, 1), "M", date(2030, 1, 1))),
        ("identity.birth_date", "1920-05-01"),
    ],
    "a card without a Luhn digit": [("wallet.bank_cards.0.number", "6214830000000000001")],
    "a company with a wrong check character": [
        (
            "enterprise.memberships",
            [
                {
                    "enterprise_id": 1,
                    "name": "厦门甲公司",
                    "credit_code": "91350203M0001FUE2P",
                    "role": "administrator",
                    "legal_person": True,
                    "joined_at": "2020-01-01T00:00:00Z",
                }
            ],
        )
    ],
}
"""What real people have, although the standards' formulas refuse it."""


@pytest.mark.parametrize("what", ODD)
def test_what_real_people_have_is_read(what: str) -> None:
    """Whoever the loader refuses can never take a name back."""
    line = next(generate(1, 7, first=2, now=NOW))
    document = json.loads(line)
    for path, value in ODD[what]:
        section, *steps = path.split(".")
        place: Any = document[section]
        for step in steps[:-1]:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[steps[-1]] = value
    found = read_person(PopulationLine(1, json.dumps(document).encode()), NOW, TODAY, tables=True)
    assert isinstance(found, Person), found


def test_a_reason_never_repeats_the_value() -> None:
    """Faults are printed and kept; names and numbers of people must not get there."""
    number = "110105194912310021"
    for line in (line_with("identity.document_number", number), line_with("wallet.entries.0.kind", number)):
        assert number not in repr(faults_of(line))


@given(st.binary(max_size=200), st.integers(0, 5000))
@examples(200)
def test_no_damage_to_a_line_is_more_than_a_fault(noise: bytes, place: int) -> None:
    line = next(generate(1, 7, first=2, now=NOW)).rstrip()
    found = read_person(PopulationLine(1, line[:place] + noise + line[place + len(noise) :]), NOW, TODAY, tables=True)
    assert found is None or isinstance(found, list | Person)


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    line = next(generate(1, 7, now=NOW))
    assert read_person(PopulationLine(3, b"  \r\n"), NOW, TODAY) is None
    assert isinstance(read_person(PopulationLine(1, b"\xef\xbb\xbf" + line), NOW, TODAY), Person)


class _Endless(io.RawIOBase):
    """A line of so many bytes that never stands in memory as a whole, then another."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._rest = iter([*(b"x" * (1 << 20) for _ in range(size >> 20)), b"\n{}\n"])
        self._buffer = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        self._buffer = self._buffer or next(self._rest, b"")
        part = self._buffer[: len(target)]
        target[: len(part)] = part
        self._buffer = self._buffer[len(part) :]
        return len(part)


def test_a_line_without_end_is_passed_over_in_constant_memory() -> None:
    source = io.BufferedReader(_Endless(3 * MAX_LINE))
    assert read_lines(source, 1) == ([PopulationLine(1, None)], 3 * MAX_LINE + 1)
    assert read_lines(source, 2) == ([PopulationLine(2, b"{}\n")], 3)
    assert read_lines(source, 3) == ([], 0)
    assert "16 MiB" in faults_of(None)[0].reason.en


def _csv(text: bytes | bytearray) -> Iterator[list[str | None]]:
    """Read CSV as COPY does: quotation marks with a backslash as escape, an unquoted null as NULL."""
    field, quoted, was_quoted, row = "", False, False, list[str | None]()
    characters = iter(text.decode())
    for one in characters:
        if quoted and one == "\\":
            other = next(characters)
            field += other if other in '"\\' else f"\\{other}"
        elif one == '"':
            quoted, was_quoted = not quoted, True
        elif not quoted and one in ",\n":
            row.append(None if field == "null" and not was_quoted else field)
            field, was_quoted = "", False
            if one == "\n":
                yield row
                row = []
        else:
            field += one


@given(
    st.lists(
        st.tuples(st.integers(), st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
    )
)
def test_any_text_reaches_copy_as_it_is(rows: list[tuple[int, str | None]]) -> None:
    """A quotation mark, a newline or a backslash in a message must neither be lost nor end the row."""
    listed: list[tuple[Any, ...]] = [(number, text, number) for number, text in rows]
    read = list(_csv(csv_of([encode_rows(listed[:2]), encode_rows(listed[2:])]))) if rows else []
    assert read == [[f" {number}", text, f"{number} "] for number, text in rows]
