"""What a save adds to a case's timeline, told from the step that led to it. Nothing personal enters it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from jiebang.model.case import Case
    from jiebang.saga.coordinator import Reply, Send


def opened(now: datetime) -> dict[str, Any]:
    """Return the first entry of every timeline."""
    return {"at": now, "what": "state", "state": "open"}


def entries(
    before: Case, after: Case, sends: Sequence[Send], replies: Iterable[Reply], now: datetime
) -> list[dict[str, Any]]:
    """Return the entries of one step, in order: answers as they came, the new state, what is sent now.

    Each is {"at", "what": "answer" | "state" | "send", ...}: answers with participant, op, answer and code; states with
    state and reason; sends with participant, op and attempt.
    """
    told: list[dict[str, Any]] = [
        {
            "at": reply.at or now,
            "what": "answer",
            "participant": reply.participant,
            "op": reply.op.value,
            "answer": reply.answer.value,
        }
        | ({"code": reply.code} if reply.code else {})
        for reply in replies
    ]
    if after.state is not before.state or after.reason != before.reason:
        told.append(
            {"at": now, "what": "state", "state": after.state.value}
            | ({"reason": after.reason} if after.reason else {})
        )
    told.extend(
        {"at": now, "what": "send", "participant": send.participant, "op": send.op.value, "attempt": after.attempt}
        for send in sends
    )
    return told or [{"at": now, "what": "state", "state": after.state.value}]
