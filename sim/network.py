"""Between workers and participants: batches that are lost, repeated, delayed and so reordered, and what takes them.

A call carries one op for a batch of cases. A participant takes the batch at one moment; on a slow disk that moment
comes late, and a restart before it loses the batch, as it loses what a participant that answered "pending" still had
in mind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jiebang.saga.coordinator import Reply, Send
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from sim.parties import Applied, Party, PartyRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.world import World

SLOWEST = 4_000
"""The longest that a message takes, in milliseconds."""
SLOW_DISK = 1_500
LATEST_FINISH = 400


class Call(msgspec.Struct, frozen=True, gc=False):
    """One op for a batch of cases at one participant; `heard` takes its replies, or None when it failed as a whole."""

    participant: str
    op: Op
    orders: tuple[Send, ...]
    heard: Callable[[tuple[Reply, ...] | None], None]
    recovering: bool = False  # sent by recovery, whose Try leaves no mark where it is refused


class Network:
    """Carries calls of one world. Nothing is lost, repeated or slow once the world has healed."""

    def __init__(self, world: World) -> None:
        """Serve a world."""
        self.world = world

    def carry(self, call: Call) -> None:
        """Take a call to its participant: perhaps never, perhaps twice, perhaps seconds late."""
        self._ship("call", call, self._arrive, call)

    def _ship(self, what: str, call: Call, then: Callable[..., None], *args: object) -> None:
        world = self.world
        if world.chance(world.options.loss):
            world.seen[f"{what} lost"] += 1
            if world.traced:
                world.tell("the network", f"loses the {what} {_told_call(call)}")
            return
        world.after(self._delay(), then, *args)
        if world.chance(world.options.repeat):
            world.seen[f"{what} repeated"] += 1
            world.after(self._delay(), then, *args)

    def _delay(self) -> int:
        world = self.world
        if world.chance(world.options.slow):
            world.seen["message late"] += 1
            return world.up_to(SLOWEST)
        return 1 + world.up_to(14)

    def _arrive(self, call: Call) -> None:
        world = self.world
        party = world.parties[call.participant]
        if not party.up:
            return
        if world.chance(world.options.disk):
            world.seen["op on a slow disk"] += 1
            world.after(world.up_to(SLOW_DISK), self._take, call, party.life)
        else:
            self._take(call, party.life)

    def _take(self, call: Call, life: int) -> None:
        """The participant carries the batch out, unless it restarted meanwhile."""
        world = self.world
        party = world.parties[call.participant]
        if party.life != life:
            world.seen["op lost in a restart"] += 1
            return
        if any(world.poisoned((one.account_id, one.case_no), party.name) for one in call.orders):
            world.seen["batch poisoned at a participant"] += 1
            if world.traced:
                world.tell(party.name, f"fails as a whole: {_told_call(call)}")
            self._ship("answer", call, call.heard, None)
            return
        replies = tuple(
            reply
            for order in call.orders
            if (reply := self._order(party, order, call.recovering)) and not world.chance(world.options.part)
        )
        self._ship("answer", call, call.heard, replies)

    def _order(self, party: Party, send: Send, recovering: bool) -> Reply:
        world, account = self.world, send.account_id
        row = party.row(account)
        if send.op is not Op.TRY and world.chance(world.options.broken):
            applied = Applied(Answer.ERROR, "BROKEN", row)
        elif world.chance(world.options.pending):
            applied = Applied(Answer.PENDING, None, row)
            if world.chance(1 / 2):
                world.after(world.up_to(LATEST_FINISH), self._finish, party, send, party.life, recovering)
        else:
            applied = self._apply(party, send, row, recovering)
        self._judged(party, send, row, applied)
        return Reply(account, send.case_no, party.name, send.op, applied.answer, applied.code, applied.row.fence)

    def _finish(self, party: Party, send: Send, life: int, recovering: bool) -> None:
        """What was answered "pending" is done after all, unless a restart made the participant forget it."""
        if party.life != life or not party.up:
            self.world.seen["op lost in a restart"] += 1
            return
        row = party.row(send.account_id)
        self._judged(party, send, row, self._apply(party, send, row, recovering))

    def _apply(self, party: Party, send: Send, row: PartyRow, recovering: bool) -> Applied:
        world = self.world
        refusal = party.refusal(send.account_id)
        free = row.fence.case_no < send.case_no and row.fence.case_op is not CaseOp.TRIED
        if recovering and send.op is Op.TRY and refusal and free:
            world.seen["recovery's Try refused without a mark"] += 1
            return Applied(Answer.PENDING, refusal, row)
        whim = "BUSINESS" if not recovering and world.chance(world.options.whim) else None
        world.fenced[_place(row.fence, send.case_no), row.fence.case_op, send.op] += 1
        return party.take(send.account_id, send.case_no, send.op, send.version, whim)

    def _judged(self, party: Party, send: Send, row: PartyRow, applied: Applied) -> None:
        world, after = self.world, applied.row
        world.seen[f"answered {applied.answer}"] += 1
        if world.traced:
            world.tell(party.name, _told(send, applied, row))
        world.judge.answered(
            send.account_id,
            send.case_no,
            send.participant,
            send.op,
            applied.answer,
            ((row.fence.case_no, row.fence.case_op), (after.fence.case_no, after.fence.case_op)),
            (row.status, after.status),
            (row.version, bool(row.open_items)),
        )


def _place(row: FenceRow, case_no: int) -> str:
    return "above" if row.case_no > case_no else "below" if row.case_no < case_no else "same"


def _told_call(call: Call) -> str:
    cases = ", ".join(f"{one.account_id}/{one.case_no}" for one in call.orders)
    return f"{call.op} {call.participant}: {cases}"


def _told(send: Send, applied: Applied, before: PartyRow) -> str:
    mark = applied.row.fence
    change = f", row {before.fence.case_no} {before.fence.case_op} → {mark.case_no} {mark.case_op}"
    return (
        f"answers {send.op} {send.account_id}/{send.case_no}: {applied.answer}{' ' * bool(applied.code)}"
        f"{applied.code or ''}{change if before.fence != mark else ''}, {applied.row.status}, "
        f"version {applied.row.version}"
    )
