"""What a save adds to a case's timeline, told from the step that led to it. Nothing personal enters it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jiebang.model.case import Case
    from jiebang.saga.coordinator import Reply, Send
    from jiebang.saga.fence import Answer, Op

_MICROSECOND: Final = timedelta(microseconds=1)


def opened(now: datetime) -> dict[str, Any]:
    """Return the first entry of every timeline."""
    return {"at": now, "what": "state", "state": "open"}


def entries(
    before: Case, after: Case, sends: Sequence[Send], replies: Iterable[Reply], now: datetime
) -> list[dict[str, Any]]:
    """Return the entries of one step, in order: answers as they came, the new state, what is sent now.

    Each is {"at", "what": "answer" | "state" | "send", ...}: states with state and reason, sends with op, attempt and
    `participants`, answers with op, answer, code and `came`: [participant, microseconds from `at`] for each that gave
    this answer. Together, because a case is told of by everybody six times over: `told` says it one by one.
    """
    row: list[dict[str, Any]] = _answers(replies, now)
    if after.state is not before.state or after.reason != before.reason:
        row.append(
            {"at": now, "what": "state", "state": after.state} | ({"reason": after.reason} if after.reason else {})
        )
    if sends:
        # Of one step, all sends are the same op.
        names = [send.participant for send in sends]
        row.append({"at": now, "what": "send", "op": sends[0].op, "attempt": after.attempt, "participants": names})
    return row or [{"at": now, "what": "state", "state": after.state}]


def _answers(replies: Iterable[Reply], now: datetime) -> list[dict[str, Any]]:
    answers: dict[tuple[Op, Answer, str | None], list[tuple[str, int]]] = {}
    for reply in replies:
        key = (reply.op, reply.answer, reply.code)
        came = 0 if reply.at is None else (reply.at - now) // _MICROSECOND
        if key in answers:
            answers[key].append((reply.participant, came))
        else:
            answers[key] = [(reply.participant, came)]
    return [
        {"at": now, "what": "answer", "op": op, "answer": answer, "came": came} | ({"code": code} if code else {})
        for (op, answer, code), came in answers.items()
    ]


def told(row: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row's entries one by one, as people and programs read them.

    Answers: {"at", "what", "participant", "op", "answer", "code"?}; sends: {"at", "what", "participant", "op",
    "attempt"}; states as they are. Times are texts of RFC 3339.
    """
    found: list[dict[str, Any]] = []
    for entry in row:
        at = entry["at"] if isinstance(entry["at"], datetime) else datetime.fromisoformat(entry["at"])
        rest = {name: value for name, value in entry.items() if name not in {"at", "what", "came", "participants"}}
        what = {"at": _text(at), "what": entry["what"]}
        if "came" in entry:
            found.extend(
                {**what, "at": _text(at + came * _MICROSECOND), "participant": name, **rest}
                for name, came in entry["came"]
            )
        elif "participants" in entry:
            found.extend({**what, "participant": name, **rest} for name in entry["participants"])
        else:
            found.append({**what, **rest})
    return found


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
