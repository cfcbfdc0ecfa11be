"""Timelines: what each save tells a person, in order, once, and nothing personal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jiebang.model.case import Case, Kind, State
from jiebang.model.plan import Plan
from jiebang.saga.coordinator import Event, Proven, Rechecked, Replied, Reply, Timing, Woken, step
from jiebang.saga.fence import Answer, Op
from jiebang.saga.timeline import entries, expand_entries, first_entry

NAMES = ("identity", "social", "wallet")
PLAN = Plan(name="test/1", participants=NAMES, waves=(0, 0, 1))
AT = datetime(2026, 4, 1, tzinfo=UTC)
OPEN = Case(
    account_id=7, case_no=1, kind=Kind.REVOKE, state=State.OPEN, plan=PLAN.name, marks="...", revision=1,
    created_at=AT, due_at=AT + timedelta(hours=1), device_id="phone-7",
)  # fmt: skip
KNOWN = {"at", "what", "state", "reason", "participant", "op", "answer", "code", "attempt"}


def reply(name: str, op: Op, answer: Answer, code: str | None = None, at: datetime | None = None) -> Reply:
    return Reply(7, 1, name, op, answer, code, at=at)


def history(events: list[Event]) -> list[list[dict[str, Any]]]:
    """Step a case through `events`, a second apart; the rows of its timeline as they are read from the store."""
    case, rows = OPEN, [expand_entries([first_entry(AT)])]
    for second, event in enumerate(events, start=1):
        now = AT + timedelta(seconds=second)
        decision = step(case, PLAN, event, now, Timing())
        replies = event.replies if isinstance(event, Replied) else ()
        stored = msgspec.json.encode(entries(case, decision.case, decision.sends, replies, now))
        rows.append(expand_entries(msgspec.json.decode(stored)))
        case = decision.case
    return rows


def short(row: list[dict[str, Any]]) -> list[str]:
    return [" ".join(str(entry[name]) for name in entry if name != "at") for entry in row]


def test_a_case_that_passes_is_told_from_open_to_done() -> None:
    """The person, and whoever reviews the case later, reads what happened to each system in the order it did."""
    both = Replied((reply("identity", Op.TRY, Answer.GRANTED), reply("social", Op.TRY, Answer.GRANTED)))
    last = Replied((reply("wallet", Op.TRY, Answer.GRANTED),))
    done = Replied(tuple(reply(name, Op.CONFIRM, Answer.DONE) for name in NAMES))
    rows = history([Proven(1), Rechecked({"identity": 4, "social": 4, "wallet": 1}), both, last, done])
    assert [short(row) for row in rows] == [
        ["state open"],
        ["state ready"],
        ["state trying", "send identity try 0", "send social try 0"],
        ["answer identity try granted", "answer social try granted", "send wallet try 0"],
        [
            "answer wallet try granted",
            "state confirming",
            *(f"send {name} confirm 0" for name in NAMES),
        ],
        [*(f"answer {name} confirm done" for name in NAMES), "state done"],
    ]


def test_a_refusal_tells_its_code_and_why_the_case_turned() -> None:
    """Without the code nobody could say which system said no."""
    refused = Replied((reply("social", Op.TRY, Answer.REFUSED, "SOCIAL-BUSY"),))
    row = history([Proven(1), Rechecked({"identity": 4, "social": 4, "wallet": 1}), refused])[-1]
    assert short(row) == [
        "answer social try refused SOCIAL-BUSY",
        "state cancelling SOCIAL-BUSY",
        "send identity cancel 0",
        "send social cancel 0",
        "send wallet cancel 0",
    ]


def test_an_answer_keeps_the_time_it_came() -> None:
    """How long each system took is read from here; the time of the save would blame them all for the slowest."""
    came = AT + timedelta(milliseconds=1500)
    answers = Replied((reply("identity", Op.TRY, Answer.GRANTED, at=came), reply("social", Op.TRY, Answer.PENDING)))
    row = history([Proven(1), Rechecked({"identity": 4, "social": 4, "wallet": 1}), answers])[-1]
    assert [datetime.fromisoformat(entry["at"]) for entry in row] == [came, AT + timedelta(seconds=3)]


def test_a_save_always_tells_something() -> None:
    """A row of the timeline may not be empty: the schema refuses it, and the save with it."""
    rechecked = Rechecked({"identity": None, "social": 4, "wallet": 1})
    rows = history([Proven(1), rechecked, rechecked])
    assert all(rows)
    assert short(rows[-1]) == ["state ready"]
    resent = history([Proven(1), Rechecked({"identity": 4, "social": 4, "wallet": 1}), Woken()])[-1]
    assert short(resent) == ["send identity try 1", "send social try 1"]


def test_nothing_personal_enters() -> None:
    """Timelines are streamed and kept; account, device and name have no place in them."""
    refused = Replied((reply("social", Op.TRY, Answer.REFUSED, "SOCIAL-BUSY"),))
    for row in history([Proven(1), Rechecked({"identity": 4, "social": 4, "wallet": 1}), refused, Woken()]):
        for entry in row:
            assert entry.keys() <= KNOWN
            assert "phone-7" not in map(str, entry.values())
