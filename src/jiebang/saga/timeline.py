"""The timeline entries that a save adds to a case, made from the step that led to it. They hold nothing personal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jiebang.model.case import Case
    from jiebang.saga.coordinator import Reply, Send
    from jiebang.saga.fence import Answer, Op

_MICROSECOND: Final = timedelta(microseconds=1)


def first_entry(now: datetime) -> dict[str, Any]:
    """Return the first entry of every timeline."""
    return {"at": now, "what": "state", "state": "open"}


def entries(
    before: Case, after: Case, sends: Sequence[Send], replies: Iterable[Reply], now: datetime
) -> list[dict[str, Any]]:
    """Return the entries of one step, in order: answers as they came, the new state, what is sent now.

    Each is {"at", "what": "answer" | "state" | "send", ...}. A "state" has `state` and `reason`; a "send" has `op`,
    `attempt` and `participants`; an "answer" has `op`, `answer`, `code` and `came`: a pair [participant, microseconds
    after `at`] for each participant that gave this answer. One entry covers several participants to keep rows small;
    `expand_entries` makes one entry for each.
    """
    row: list[dict[str, Any]] = _group_answers(replies, now)
    if after.state is not before.state or after.reason != before.reason:
        row.append(
            {"at": now, "what": "state", "state": after.state} | ({"reason": after.reason} if after.reason else {})
        )
    if sends:
        # All sends of one step are of the same op.
        names = [send.participant for send in sends]
        row.append({"at": now, "what": "send", "op": sends[0].op, "attempt": after.attempt, "participants": names})
    return row or [{"at": now, "what": "state", "state": after.state}]


def _group_answers(replies: Iterable[Reply], now: datetime) -> list[dict[str, Any]]:
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


def expand_entries(row: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Expand a row's entries to one for each participant, as people and programs read them.

    An answer becomes {"at", "what", "participant", "op", "answer", "code"?}, a send {"at", "what", "participant", "op",
    "attempt"}; a state stays as it is. Times are strings of RFC 3339.
    """
    expanded: list[dict[str, Any]] = []
    for entry in row:
        at = entry["at"] if isinstance(entry["at"], datetime) else datetime.fromisoformat(entry["at"])
        rest = {name: value for name, value in entry.items() if name not in {"at", "what", "came", "participants"}}
        what = {"at": _format_time(at), "what": entry["what"]}
        if "came" in entry:
            expanded.extend(
                {**what, "at": _format_time(at + came * _MICROSECOND), "participant": name, **rest}
                for name, came in entry["came"]
            )
        elif "participants" in entry:
            expanded.extend({**what, "participant": name, **rest} for name in entry["participants"])
        else:
            expanded.append({**what, **rest})
    return expanded


def _format_time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
