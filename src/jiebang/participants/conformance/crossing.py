"""Properties of every participant under messages that cross, repeat and come late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from jiebang.model.check import Text
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.subject import Expected, Subject
from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Order

Step = tuple[Op, Sequence[int]]
"""An op for all accounts of a sequence, with the case number of each."""
SIDE_BY_SIDE: Final = 8
"""Accounts of a sequence, each with numbers of its own."""
_SEQUENCES: Final = 6
_STEPS: Final = 8
_CROSSED: Final = 24
_CROSSINGS: Final = (
    (Op.TRY, Op.TRY, Op.CANCEL, Op.TRY, Op.CANCEL),
    (Op.CANCEL, Op.TRY),
    (Op.TRY, Op.CANCEL, Op.TRY),
)
"""Ops that are sent at once, in the order in which their requests leave."""
_CANCELLED: Final = FenceRow(1, CaseOp.CANCELLED)
_DONE: Final = Expected((Answer.DONE,))


async def _end_cancelled(subject: Subject) -> None:
    chance = random.Random(subject.seed)  # noqa: S311 - a reproducible order
    for ops in _CROSSINGS:
        accounts = await subject.accounts(_CROSSED)
        orders = [Order(account, 1) for account in accounts]
        await _cross(subject, [(op, chance.sample(orders, len(orders))) for op in ops])
        why = Text("Try 与 Cancel 曾同时到达", "Try and Cancel of the case arrived at once before")
        await subject.expect(Op.CANCEL, dict.fromkeys(orders, _DONE), why)
        await subject.expect_rows(accounts, dict.fromkeys(accounts, _CANCELLED), why)


async def _cross(subject: Subject, batches: Sequence[tuple[Op, Sequence[Order]]]) -> None:
    """Send batches at once; whatever was answered as cancelled must be so when all have been answered."""
    rounds = await asyncio.gather(*(subject.participant.apply(op, batch, subject.operation) for op, batch in batches))
    why = Text("Try 与 Cancel 同时到达", "Try and Cancel of the case arrive at once")
    cancelled = set[int]()
    for (op, _), replies in zip(batches, rounds, strict=True):
        answers = (Answer.DONE,) if op is Op.CANCEL else (Answer.GRANTED, Answer.REFUSED)
        for reply in replies:
            expected = Expected((*answers, Answer.PENDING), reply.code)
            subject.demand(op, {Order(reply.account_id, reply.case_no): expected}, [reply], why)
        cancelled |= {reply.account_id for reply in replies if op is Op.CANCEL and reply.answer is Answer.DONE}
    done = Text("其 Cancel 已应答完成", "a Cancel of it was answered as done")
    await subject.expect_rows(sorted(cancelled), dict.fromkeys(cancelled, _CANCELLED), done)


async def _confirm_once(subject: Subject) -> None:
    accounts = await subject.accounts(16)
    await subject.put(FenceRow(1, CaseOp.TRIED), accounts)
    orders = [Order(account, 1) for account in accounts]
    rounds = await asyncio.gather(*(subject.participant.apply(Op.CONFIRM, orders, subject.operation) for _ in range(4)))
    why = Text("Confirm 四次同时到达", "the Confirm arrives four times at once")
    for reply in (reply for replies in rounds for reply in replies):
        expected = Expected((Answer.DONE, Answer.PENDING))
        subject.demand(Op.CONFIRM, {Order(reply.account_id, reply.case_no): expected}, [reply], why)
    await subject.expect(Op.CONFIRM, dict.fromkeys(orders, _DONE), why)


async def examine_sequence(subject: Subject, steps: Sequence[Step]) -> None:
    """Send steps to new accounts side by side, and hold each answer against the fence. Raises DeviationError."""
    accounts = await subject.accounts(SIDE_BY_SIDE)
    rows, spent = dict.fromkeys(accounts, NO_ROW), set[int]()
    for at, (op, numbers) in enumerate(steps):
        expected = dict[Order, Expected]()
        for account, number in zip(accounts, numbers, strict=True):
            before = rows[account]
            verdict = fence(before, number, op, subject.spent if account in spent else None)
            rows[account] = verdict.write or before
            if rows[account].case_op is CaseOp.CONFIRMED:
                spent.add(account)
            expected[Order(account, number)] = Expected.of(verdict, before)
        why = Text(f"此前已依次发送 {at} 批", f"after {at} other batches, in order")
        await subject.expect(op, expected, why)
    left = {account: row for account, row in rows.items() if row != NO_ROW}
    looked = await subject.participant.look(accounts)
    await subject.expect_rows(
        [account for account in accounts if account in left or looked.get(account) != NO_ROW],
        left,
        Text("全部各批之后", "after all batches"),
    )


async def _answer_any_sequence(subject: Subject) -> None:
    chance = random.Random(subject.seed)  # noqa: S311 - a reproducible order
    for _ in range(_SEQUENCES):
        steps = [
            (chance.choice(list(Op)), [chance.randint(1, 4) for _ in range(SIDE_BY_SIDE)])
            for _ in range(chance.randint(2, _STEPS))
        ]
        await examine_sequence(subject, steps)


CROSSING_PROPERTIES: Final = (
    Property(
        "ends_cancelled_whatever_crosses",
        Text(
            "Try 与 Cancel 交错之后仍为已取消,应答不自相矛盾",
            "a crossing Try and Cancel end cancelled, and never contradict",
        ),
        Text(
            "同一笔可能短暂由两个工作进程持有:无论先后,已取消的案必须保持取消",
            "two workers may hold one case for a moment: whatever the order, a cancelled case must stay cancelled",
        ),
        _end_cancelled,
    ),
    Property(
        "confirms_once_whatever_crosses",
        Text("同时到达的 Confirm 只做一次,且都算完成", "crossing Confirms are done once, and all are told so"),
        Text("Confirm 不可再退回,重复也不得出错", "a Confirm cannot be taken back, and a repeat of it must not fail"),
        _confirm_once,
    ),
    Property(
        "answers_any_sequence_as_the_fence_says",
        Text(
            "迟到、重复、乱序的各案消息,逐条与围栏表一致",
            "late, repeated and reordered messages are answered as the fence says",
        ),
        Text("网络会以任何顺序送达", "a network delivers in whatever order it likes"),
        _answer_any_sequence,
    ),
)
