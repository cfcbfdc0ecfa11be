"""Records of checks: whatever the facts, the answer that was given is given again, to the letter."""

from __future__ import annotations

import random
import zlib
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import Kind
from jiebang.model.facts import PLATFORM, QUOTA, REQUEST, FactBatch, FactType
from jiebang.model.origin import SERVICE, Origin
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.difference import differences
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import Facts, OwnerFacts, join_facts, line_up
from jiebang.policy.load import load_pack
from jiebang.policy.record import Evidence, decode_record, encode_record, facts_of, replay_record
from tests.examples import examples
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEXT, FILE = packs.text("wechat")
PACK: Final = pack("wechat")
NOW: Final = datetime(2026, 2, 28, 16, 0, 0, 1, tzinfo=UTC)

_TEXTS: Final = ("active", "resident_id", "passport", "", "'", "張\U00020000", "\u202e\u0007", "x" * 300)
_ZONES: Final = (UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-11, minutes=-30)))


def _time(dice: random.Random) -> datetime:
    at = datetime(1971, 1, 1, tzinfo=UTC) + timedelta(microseconds=dice.randrange(1 << 56))
    return (at if dice.random() < 1 / 2 else NOW - timedelta(days=dice.randrange(200))).astimezone(dice.choice(_ZONES))


_VALUES: Final[Mapping[FactType, Callable[[random.Random], Any]]] = {
    FactType.INT: lambda dice: dice.choice((0, 1, 7, 1 << 53)),
    FactType.FEN: lambda dice: dice.choice((0, 1, -1, 1 << 53)),
    FactType.BOOL: lambda dice: dice.random() < 1 / 2,
    FactType.TEXT: lambda dice: dice.choice(_TEXTS),
    FactType.TIME: _time,
    FactType.DATE: lambda dice: date(1900, 1, 1) + timedelta(days=dice.randrange(100_000)),
}


def _value(dice: random.Random, name: str) -> Any:
    """Anything a fact may be, absent too."""
    kind = PARTICIPANTS.facts[name].type
    if dice.random() < 1 / 3:
        return None
    if kind is not FactType.ITEMS:
        return _VALUES[kind](dice)
    fields = {field: of for field, of in PARTICIPANTS.item_fields.get(name, {}).items() if of is not FactType.ITEMS}
    return [
        {field: _in_json(_VALUES[of](dice)) for field, of in fields.items() if dice.random() < 2 / 3}
        for _ in range(dice.randrange(4))
    ]


def _in_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def batch(dice: random.Random) -> Facts:
    """The facts of up to four accounts: some owners silent, some without a row, copies that differ."""
    accounts = dice.sample(range(1, 1 << 52), dice.randint(1, 4))
    parts: dict[str, OwnerFacts] = {}
    for participant in (
        *PARTICIPANTS.databases,
        *sorted(
            PARTICIPANTS.owned.keys() - {PARTICIPANTS.owner_of(name) for name in PARTICIPANTS.databases} - {REQUEST}
        ),
    ):
        owner = PARTICIPANTS.owner_of(participant)
        if dice.random() < 1 / 10:
            continue
        if participant == "identity_guiyang" and "identity_shenzhen" in parts and dice.random() < 2 / 3:
            parts[participant] = parts["identity_shenzhen"]
            continue
        known = accounts if owner in (PLATFORM, QUOTA) else dice.sample(accounts, dice.randint(0, len(accounts)))
        columns = {name: [_value(dice, name) for _ in known] for name in PARTICIPANTS.owned[owner]}
        versions = [dice.randint(1, 99) for _ in known]
        parts[participant] = line_up(FactBatch(owner, known, versions, columns), owner, accounts, PARTICIPANTS)
    origins = [Origin(dice.choice((None, *_TEXTS)), dice.random() < 1 / 2) for _ in accounts]
    return join_facts(accounts, parts, origins, PARTICIPANTS)


@examples(150)
@given(st.integers(0, 1 << 64), st.sampled_from(Kind), st.booleans())
def test_replay_equals_record(seed: int, kind: Kind, whole: bool) -> None:
    """A decision that cannot be given again cannot be defended; one account of a batch must do without the others."""
    facts = batch(random.Random(seed))  # noqa: S311 - reproducible
    for row, answer in enumerate(evaluate(PACK, facts, kind, NOW, whole=whole)):
        record = decode_record(encode_record(Evidence(answer, facts, row, whole)))
        assert replay_record(record, PACK) == []
        again = facts_of(record, PARTICIPANTS)
        assert again.frame.row(0, named=True) == {name: facts.frame[name][row] for name in again.frame.columns}, (
            "the facts themselves are exact"
        )
        assert set(again.frame.columns) == set(facts.frame.columns)


def given_facts(**values: Any) -> Facts:
    """One account, of whom the wallet and the identity databases know `values`."""
    parts = {}
    for participant in ("wallet", "identity_shenzhen", "identity_guiyang", PLATFORM):
        owner = PARTICIPANTS.owner_of(participant)
        columns = {name: [values.get(name)] for name in PARTICIPANTS.owned[owner]}
        parts[participant] = line_up(FactBatch(owner, [7], [3], columns), owner, [7], PARTICIPANTS)
    return join_facts([7], parts, [SERVICE], PARTICIPANTS)


def test_replay_says_what_differs() -> None:
    """A version that was changed behind the record, or a record of other facts: the place is named."""
    facts = given_facts(balance_fen=1, identity_state="active")
    (answer,) = evaluate(PACK, facts, Kind.REVOKE, NOW)
    record = decode_record(encode_record(Evidence(answer, facts, 0)))
    other = load_pack(TEXT.replace("when: balance_fen > 0", "when: balance_fen > 1"), FILE, PARTICIPANTS)
    found = replay_record(record, other)
    assert ("blockers[PAY-BALANCE]", "removed") in {(one.path, one.what) for one in found}
    changed = msgspec.structs.replace(record, facts={**record.facts, "balance_fen": 2})
    paths = {one.path for one in replay_record(changed, PACK)}
    assert "blockers[PAY-BALANCE].facts.balance_fen" in paths
    assert "blockers[PAY-BALANCE].explanation.zh" in paths


def test_what_is_no_record_is_refused() -> None:
    """A damaged or hostile record must not become an answer."""
    facts = given_facts()
    (answer,) = evaluate(PACK, facts, Kind.REVOKE, NOW)
    whole = encode_record(Evidence(answer, facts, 0))
    for bad in (b"", b"x", whole[:-9], zlib.compress(b"{}"), zlib.compress(b"[1]"), zlib.compress(bytes(1 << 27))):
        with pytest.raises(ValueError, match="not a record"):
            decode_record(bad)
    record = decode_record(whole)
    with pytest.raises(ValueError, match="does not know"):
        facts_of(msgspec.structs.replace(record, facts={"a_fact_of_long_ago": 1}), PARTICIPANTS)
    with pytest.raises(ValueError, match="does not know"):
        facts_of(msgspec.structs.replace(record, unread=("nobody",)), PARTICIPANTS)


WORDS: Final = st.sampled_from(["a", "b", "code", "id"])
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@given(JSON, JSON)
def test_differences_are_none_exactly_for_equals(one: Any, other: Any) -> None:
    """A difference overlooked is a wrong replay; one made up is a false alarm."""
    assert differences(one, one) == []
    as_json = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert (differences(one, other) == []) == as_json


def test_differences_follow_names_not_places() -> None:
    """A rule put in front must not make every rule after it look changed."""
    before = [{"code": "A", "n": 1}, {"code": "B", "n": 1}]
    found = differences(before, [{"code": "C", "n": 0}, {"code": "B", "n": 2}, {"code": "A", "n": 1}])
    assert [(one.path, one.what) for one in found] == [("[B].n", "changed"), ("[C]", "added"), ("", "reordered")]
