"""The promises, as conditions on a state: what `explore` checks in every state it reaches (docs/protocol.md, P1 to P9).

Its own transcription of design.md in plain strings, like the judge of the random worlds: it shares no table with the
coordinator or the fence, so a slip in the product's tables is not a slip here. Most promises concern one participant
of one case, so they are conditions on what the store says of the case (`Head`) and one participant's `Column`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from jiebang.model.case import IllegalTransitionError
from sim.evidence import ViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.parties import PartyRow
    from sim.states import Column, Head, Message, Words

AFTER: Final = {
    "open": {"in_review", "ready", "withdrawn", "expired", "rejected"},
    "in_review": {"ready", "rejected", "withdrawn"},
    "ready": {"ready", "trying", "withdrawn", "rejected"},
    "trying": {"trying", "confirming", "cancelling"},
    "confirming": {"confirming", "done"},
    "cancelling": {"cancelling", "aborted"},
}
MARK_AFTER: Final = {
    ".": ".t", "t": "tgcx", "g": "gcx",
    "c": "ced", "e": "eCd", "C": "Ccd", "d": "d",
    "x": "xyz", "y": "yXz", "X": "Xxz", "z": "z",
}  # fmt: skip
COMMITTED: Final = frozenset({"confirming", "done"})
BROKEN_OFF: Final = frozenset({"cancelling", "aborted"})
UNTOUCHED: Final = frozenset({"open", "in_review", "ready", "rejected", "withdrawn", "expired", "untouched"})
TRIED, CONFIRMED, CANCELLED = "tried", "confirmed", "cancelled"


def broken(what: str) -> None:
    """Say that a promise is broken."""
    raise ViolationError(what)


@contextmanager
def during(told: str) -> Iterator[None]:
    """Say what was going on when a promise was broken."""
    try:
        yield
    except (ViolationError, IllegalTransitionError) as wrong:
        message = f"{told} → {wrong}"
        raise ViolationError(message) from None


def judge_save(before: Head, after: Head, marks: tuple[str, str], *, late: bool) -> None:
    """P1, P4, P6, P7: a save moves along the state table, commits neither late nor over a promise nor over money."""
    if after.state not in AFTER.get(before.state, ()):
        broken(f"P7: the case went from {before.state} to {after.state}")
    if any(new not in MARK_AFTER[old] for old, new in zip(*marks, strict=True)):
        broken(f"P7: the marks went from {marks[0]} to {marks[1]}")
    if before.wished and not after.wished:
        broken("P6: a save forgot the wish to withdraw")
    if after.state == "confirming" != before.state:
        if before.promised:
            broken("P6: the case is committed though its withdrawal was promised")
        if late:
            broken("P1: the case is committed after its deadline")
        if before.moved:
            broken("P4: the case is committed though money moved since the last proof")


def judge_sent(state: str, op: str, mark: str, earlier_wave_granted: bool) -> None:
    """P2: what leaves was saved first; waves go in order. `state` and `mark`: as stored when it leaves."""
    if op == "try" and mark == ".":
        broken("P2: a Try leaves before it is saved as sent")
    if op == "try" and not earlier_wave_granted:
        broken("P2: a Try leaves before the wave before it has granted")
    if op == "confirm" and state not in COMMITTED:
        broken(f"P2: a Confirm leaves while the case is {state}")
    if op == "cancel" and state not in BROKEN_OFF:
        broken(f"P2: a Cancel leaves while the case is {state}")


def judge_answer(message: Message, answer: str, rows: tuple[PartyRow, PartyRow], has_facts: bool) -> None:
    """P8: what an op answered and wrote, by the table of design.md, "Fence"."""
    before, after = rows
    number, op = message.case_no, message.op
    was, mark = (before.fence.case_no, str(before.fence.case_op)), (after.fence.case_no, str(after.fence.case_op))
    if before != after:
        if mark[0] != number or was[0] > number:
            broken(f"P8: {op} of case {number} took a row from {was} to {mark}")
        if was[0] == number and was[1] != TRIED:
            broken(f"P8: {op} of case {number} overwrote the finished row {was}")
        if was[0] < number and was[1] == TRIED:
            broken(f"P8: {op} of case {number} overwrote the unfinished row {was}")
        if mark[1] == TRIED and (before.open_items or (has_facts and message.version != before.version)):
            broken(f"P4: a Try at version {message.version} is granted at version {before.version}")
    holds = {
        "granted": mark in ((number, TRIED), (number, CONFIRMED)),
        "refused": mark[0] > number or mark == (number, CANCELLED),
        "done": mark == (number, CONFIRMED if op == "confirm" else CANCELLED),
        "stale": mark[0] > number,
        "pending": mark[0] < number and mark[1] == TRIED,
    }
    if not holds.get(answer, False):
        broken(f"P8: {op} of case {number} was answered {answer} with the row at {mark}")


def judge_column(head: Head, column: Column, is_wallet: bool, words: Words) -> None:
    """P1, P2, P4, P7, P8 in one state, for one participant."""
    number, row = head.case_no, column.row
    at, op = row.fence.case_no, str(row.fence.case_op)
    outcome = "" if not at or at > number else head.state if at == number else head.earlier[at - 1]
    if at > number:
        broken(f"P8: a row stands at case {at}, which does not exist")
    if op == CONFIRMED and outcome not in COMMITTED:
        broken(f"P1: case {at} is confirmed while it is {outcome}")
    if at and op == CANCELLED and outcome in COMMITTED:
        broken(f"P1: case {at} is cancelled while it is {outcome}")
    if at and outcome in UNTOUCHED:
        broken(f"P1: case {at} has touched a participant while it is {outcome}")
    if op == TRIED and at < number:
        broken(f"P7: case {at} has ended {outcome} and a participant still holds its Try")
    if is_wallet and op == TRIED and head.moved:
        broken("P4: the wallet holds a Try though money moved since the last proof")
    _judge_decision(head, at, op)
    _judge_status(head, row, at, op)
    _judge_words(head, column, words)


def _judge_decision(head: Head, at: int, op: str) -> None:
    """What a decision of the store says of every participant."""
    number = head.case_no
    holds = (
        head.state not in ("confirming", "done", "aborted")
        or (head.state == "confirming" and at == number and op != CANCELLED)
        or (head.state == "done" and at == number and op == CONFIRMED)
        or (head.state == "aborted" and at == number and op == CANCELLED)
    )
    if not holds:
        broken(f"P1: case {number} is {head.state} and a participant's row is ({at}, {op})")


def _judge_status(head: Head, row: PartyRow, at: int, op: str) -> None:
    """What a participant did to the account: as many changes as cases took effect."""
    if (row.status == "pending") != (op == TRIED):
        broken(f"P8: a row at ({at}, {op}) is {row.status}")
    applied = head.earlier.count("done") + (at == head.case_no and op == CONFIRMED)
    if op != TRIED and row.status != ("bound", "reclaimed")[applied % 2]:
        broken(f"P1: a participant is {row.status} after {applied} cases took effect")


def _judge_words(head: Head, column: Column, words: Words) -> None:
    """Marks say what happened; a Confirm is under way only after the commit point; a refusal is kept."""
    number, row = head.case_no, column.row
    mine = str(row.fence.case_op) if row.fence.case_no == number else ""
    true = {"g": TRIED, "d": CONFIRMED, "z": CANCELLED}.get(column.mark)
    if true is not None and mine != true:
        broken(f"P7: case {number} marks {column.mark} where the row says {mine or 'nothing'}")
    if any(said.answer == "refused" for said in words.answers(column.replies)) and mine in (TRIED, CONFIRMED):
        broken(f"P8: a participant granted a Try of case {number} that it had refused")
    for message in words.messages(column.net):
        state = head.state if message.case_no == number else head.earlier[message.case_no - 1]
        if message.op == "confirm" and state not in COMMITTED:
            broken(f"P2: a Confirm of case {message.case_no} is under way and it is {state}")
        if message.op == "cancel" and state not in BROKEN_OFF:
            broken(f"P2: a Cancel of case {message.case_no} is under way and it is {state}")
