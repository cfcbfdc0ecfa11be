"""Waiting times to the second: a day too many wrongs a person, a day too few lets a thief through.

The oracle counts days by hand, in a fixed zone eight hours ahead (Shanghai has had no summer time since 1991).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jiebang.model.case import Kind
from jiebang.model.facts import PLATFORM, QUOTA, FactBatch, FactType
from jiebang.model.origin import SERVICE
from jiebang.participants import PARTICIPANTS
from jiebang.policy.calendar import local_date, start_of
from jiebang.policy.evaluate import evaluate
from jiebang.policy.frame import join_facts, line_up
from tests.examples import examples
from tests.packs import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACK: Final = pack("wechat")
EMONEY: Final = pack("emoney")
SHANGHAI: Final = timezone(timedelta(hours=8))
TICK: Final = timedelta(microseconds=1)
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
CLEAN: Final[Mapping[str, Any]] = {
    "identity_state": "active",
    "identity_changed_at": LONG_AGO,
    "document_type": "resident_id",
    "birth_date": date(1980, 5, 17),
    "primary_device_id": "phone-1",
    "primary_device_since": LONG_AGO,
    "account_known": True,
}
_NOTHING: Final = {FactType.INT: 0, FactType.FEN: 0, FactType.BOOL: False, FactType.ITEMS: []}

WAITS: Final = {
    # code: the fact, and the last day that still blocks, counted from the day it happened
    "SEC-ABNORMAL-LOGIN": ("abnormal_login_at", 30),
    "SEC-DEVICE-RECENT": ("primary_device_since", 6),
    "ID-RECENT-CHANGE": ("identity_changed_at", 90),
    "ID-COOLING": ("quota_refused_at", 180),
}
INSTANTS: Final = st.datetimes(datetime(2004, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


def standing(now: datetime, **person: Any) -> dict[str, datetime | None]:
    """The codes that stand in the way of changing the identity at `now`, each with the time it can pass."""
    parts = {}
    for name in (*PARTICIPANTS.databases, PLATFORM, QUOTA):
        owner = PARTICIPANTS.owner_of(name)
        columns: dict[str, Sequence[Any]] = {
            fact: [person.get(fact, CLEAN.get(fact, _NOTHING.get(PARTICIPANTS.facts[fact].type)))]
            for fact in PARTICIPANTS.owned[owner]
        }
        parts[name] = line_up(FactBatch(owner, [1], [1], columns), owner, [1], PARTICIPANTS)
    [answer] = evaluate(PACK, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.CHANGE_IDENTITY, now)
    return {blocker.code: blocker.remedy.earliest for blocker in answer.blockers}


def test_nothing_stands_in_a_clean_persons_way() -> None:
    """Else the tests below would prove nothing."""
    assert standing(datetime(2026, 3, 1, tzinfo=UTC)) == {}


@pytest.mark.parametrize("code", WAITS)
@examples(15)
@given(happened=INSTANTS)
@example(happened=datetime(2024, 2, 29, 15, 59, 59, 999_999, UTC))  # a leap day's last instant in Shanghai
@example(happened=datetime(2024, 2, 28, 16, 0, tzinfo=UTC))  # its first
@example(happened=datetime(2023, 12, 1, 4, 0, tzinfo=UTC))  # 90 days over a leap day
@example(happened=datetime(2026, 12, 31, 15, 59, 59, 999_999, UTC))  # the year's last instant
@example(happened=datetime(2026, 12, 31, 16, 0, tzinfo=UTC))  # the next year's first
@example(happened=datetime(2026, 7, 4, 16, 0, tzinfo=UTC))  # 180 days to the year's last day
def test_a_wait_ends_with_its_last_day_in_shanghai_and_says_so(code: str, happened: datetime) -> None:
    """Blocked to the last microsecond of the day, free from the next one on, and the date promised is that one."""
    fact, last_day = WAITS[code]
    day = happened.astimezone(SHANGHAI).date() + timedelta(days=last_day + 1)
    free = datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)
    assert standing(happened, **{fact: happened}) == {code: free}
    assert standing(free - TICK, **{fact: happened}) == {code: free}
    assert standing(free, **{fact: happened}) == {}


def test_day_90_still_blocks_and_day_91_passes() -> None:
    """The domain's own words: not yet more than 90 days since the last identity change."""
    changed = datetime(2026, 1, 1, 12, 0, tzinfo=SHANGHAI)
    assert "ID-RECENT-CHANGE" in standing(
        datetime(2026, 4, 1, 23, 59, 59, tzinfo=SHANGHAI), identity_changed_at=changed
    )
    assert standing(datetime(2026, 4, 2, 0, 0, 0, tzinfo=SHANGHAI), identity_changed_at=changed) == {}


def test_the_third_is_allowed_and_the_fourth_is_not() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert standing(now, document_changes_this_year=2) == {}
    assert set(standing(now, document_changes_this_year=3)) == {"ID-QUOTA"}


@examples(30)
@given(INSTANTS)
@example(datetime(2024, 12, 31, 15, 59, 59, 999_999, UTC))
@example(datetime(2024, 12, 31, 16, 0, tzinfo=UTC))
@example(datetime(2028, 2, 29, 4, 0, tzinfo=UTC))
def test_a_used_up_quota_is_free_again_with_the_year_in_shanghai(now: datetime) -> None:
    year = now.astimezone(SHANGHAI).year
    assert standing(now, document_changes_this_year=3) == {"ID-QUOTA": datetime(year + 1, 1, 1, tzinfo=SHANGHAI)}


def test_a_cooling_off_outlasts_the_year() -> None:
    """Refused in December: the new year brings new changes, and the cooling-off still stands."""
    refused = datetime(2026, 12, 20, 4, tzinfo=UTC)
    free = datetime(2027, 6, 19, tzinfo=SHANGHAI)
    assert standing(datetime(2027, 1, 2, tzinfo=UTC), quota_refused_at=refused) == {"ID-COOLING": free}


@given(st.dates(date(2004, 1, 1), date(2090, 1, 1)))
@example(date(2024, 2, 29))
def test_a_day_is_24_hours_from_midnight_in_shanghai(day: date) -> None:
    """An instant belongs to one day, whatever zone it is written in."""
    begin = start_of(day)
    assert begin == datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)
    for zone in (UTC, SHANGHAI, timezone(timedelta(hours=-11)), timezone(timedelta(hours=14))):
        assert local_date(begin.astimezone(zone)) == day
        assert local_date((begin - TICK).astimezone(zone)) == day - timedelta(days=1)
        assert local_date((begin + timedelta(days=1) - TICK).astimezone(zone)) == day


def test_a_pack_counts_the_days_of_its_own_zone() -> None:
    """Fourteen days of Brussels: in Shanghai's days the wait would end seven hours early, and be told in Chinese time.

    Between login and end lies the change to summer time (29 March 2026), so an offset alone would be wrong too.
    """
    at = datetime(2026, 3, 22, 23, 30, tzinfo=UTC)  # 23 March, 00:30 in Brussels
    end = datetime(2026, 4, 6, 22, 0, tzinfo=UTC)  # 7 April begins in Brussels, in summer time
    columns = {**CLEAN, "abnormal_login_at": at, "abnormal_login_items": [{"id": "1", "at": at.isoformat()}]}
    for now, stands in ((end - TICK, True), (end, False)):
        parts = {}
        for name in (*PARTICIPANTS.databases, PLATFORM):
            owner = PARTICIPANTS.owner_of(name)
            facts = {
                fact: [columns.get(fact, _NOTHING.get(PARTICIPANTS.facts[fact].type))]
                for fact in PARTICIPANTS.owned[owner]
            }
            parts[name] = line_up(FactBatch(owner, [1], [1], facts), owner, [1], PARTICIPANTS)
        [answer] = evaluate(EMONEY, join_facts([1], parts, [SERVICE], PARTICIPANTS), Kind.REVOKE, now)
        assert answer.time_zone == "Europe/Brussels"
        assert [blocker.code for blocker in answer.blockers] == ["LOGIN-DOUBTFUL"] * stands
        for blocker in answer.blockers:
            assert blocker.remedy.earliest == end
            assert "23 Mar 2026, 00:30" in blocker.explanation.en
            assert "7 Apr 2026" in blocker.remedy.what.en
