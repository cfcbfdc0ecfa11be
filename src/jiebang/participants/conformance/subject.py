"""What a run of the suite is given, and how it tells what departs from the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.remote import wire
from jiebang.remote.peer_problems import clean
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op, Verdict
from jiebang.saga.orders import Order

if TYPE_CHECKING:
    from jiebang.model.plan import PlannedOperation
    from jiebang.participants.base import Participant
    from jiebang.participants.conformance.listening import ListeningParticipant
    from jiebang.policy.pack import Pack
    from jiebang.remote.signing import Link
    from jiebang.saga.coordinator import Reply

_WAYS: Final[Mapping[CaseOp, tuple[Op, ...]]] = {
    CaseOp.TRIED: (Op.TRY,),
    CaseOp.CONFIRMED: (Op.TRY, Op.CONFIRM),
    CaseOp.CANCELLED: (Op.CANCEL,),
}
"""How a participant comes to hold a row, by ops alone."""
_NO_RESULT: Final = Text("没有可采信的结果", "no result that can be believed")
_CASES_SHOWN: Final = 3
_LONGEST: Final = 1_500


class DeviationError(Exception):
    """Something departs from the protocol: what was sent, what was answered, and what the protocol wants."""

    def __init__(self, sent: str, answered: Text, wanted: Text) -> None:
        super().__init__(f"sent {sent} answered {answered.en} wanted {wanted.en}")
        self.sent, self.answered, self.wanted = sent, answered, wanted


class NotApplicableError(Exception):
    """A property that cannot be examined here. `reason`: why."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason = reason


class Expected(msgspec.Struct, frozen=True):
    """What a case must be answered: one of `answers`; with `code`, and with `row` after it, where they are given.

    `any_code`: a refusal needs a code, whichever. `or_nothing`: no result at all is allowed too. `because`: why, where
    it is not as for the whole batch.
    """

    answers: tuple[Answer, ...]
    code: str | None = None
    row: FenceRow | None = None
    any_code: bool = False
    or_nothing: bool = False
    because: Text | None = None

    @classmethod
    def of(cls, verdict: Verdict, before: FenceRow) -> Expected:
        """Return what the fence says of a row `before`."""
        because = Text(
            f"之前的围栏行为第 {before.case_no} 号案 {before.case_op}",
            f"the fence row was at case {before.case_no}, {before.case_op}",
        )
        return cls((verdict.answer,), verdict.code, verdict.write or before, because=because)

    def admits(self, reply: Reply | None) -> bool:
        """Return whether a reply is as expected. None: there was none."""
        if reply is None:
            return self.or_nothing
        code = reply.code is not None if self.any_code else reply.code == self.code
        return (
            reply.answer in self.answers
            and (code or reply.answer is Answer.PENDING)
            and (self.row is None or reply.row == self.row)
        )

    def describe(self) -> Text:
        """Return it in words."""
        outcomes = sorted({wire.OUTCOMES[answer].value for answer in self.answers})
        zh, en = " 或 ".join(outcomes), " or ".join(outcomes)
        if self.code is not None:
            zh, en = f"{zh},代码 {self.code}", f"{en} with code {self.code}"
        elif self.any_code:
            zh, en = f"{zh},并给出代码", f"{en} with a code"
        if self.row is not None:
            row = show_row(self.row)
            zh, en = f"{zh},此后围栏行为 {row}", f"{en}, and then the fence row {row}"
        return Text(zh, en)


@dataclass(frozen=True)
class Subject:
    """A participant under test.

    `accounts(n)`: n accounts nobody used before, whose Try is granted. `refused(n)`: orders for case 1 of n new
    accounts whose Try is refused for a reason of the participant's own, with that reason's code (None: nobody knows of
    any). `operation`: what a plan names for it, effects included. `spent`: the code that refuses every Try of an
    account once a case of it was confirmed (None: the next case is granted as the first was). `packs`: those whose
    plans it must serve, whole. `unfit`: an operation of its own with effects that it cannot apply (None: it takes any,
    or nobody knows of any). `link`: our end of the link to a remote participant; None for a database. `listening`: the
    client that keeps what crossed the network, for the report. `seed`: of the order of crossing and late messages.
    """

    participant: Participant
    accounts: Callable[[int], Awaitable[list[int]]]
    refused: Callable[[int], Awaitable[tuple[list[Order], str]]] | None
    operation: PlannedOperation
    spent: str | None = None
    packs: Sequence[Pack] = ()
    unfit: PlannedOperation | None = None
    link: Link | None = None
    listening: ListeningParticipant | None = None
    seed: int = 7

    @property
    def planned(self) -> list[PlannedOperation]:
        """Everything that plans send it: those of `packs`, and `operation`."""
        plans = [plan for each in self.packs for plan in each.plans.values()]
        found = [plan.operations[self.participant.name] for plan in plans if self.participant.name in plan.participants]
        return [self.operation, *(each for each in found if each != self.operation)]

    async def apply(self, op: Op, *orders: tuple[int, int]) -> dict[int, Reply]:
        """Carry out `op` for (account, case_no)s; replies by account."""
        replies = await self.participant.apply(
            op, [Order(account, case_no) for account, case_no in orders], self.operation
        )
        return {reply.account_id: reply for reply in replies}

    async def expect(
        self, op: Op, expected: Mapping[Order, Expected], because: Text, planned: PlannedOperation | None = None
    ) -> list[Reply]:
        """Send a batch and demand for each order what is `expected` of it. Raises DeviationError."""
        planned = planned or self.operation
        replies = await self.participant.apply(op, list(expected), planned)
        self.demand(op, expected, replies, because, planned)
        return list(replies)

    def demand(
        self,
        op: Op,
        expected: Mapping[Order, Expected],
        replies: Collection[Reply],
        because: Text,
        planned: PlannedOperation | None = None,
    ) -> None:
        """Demand that the replies to a batch are as `expected`. Raises DeviationError at the first that is not."""
        planned = planned or self.operation
        found = {(reply.account_id, reply.case_no): reply for reply in replies}
        for order, each in expected.items():
            reply = found.get((order.account_id, order.case_no))
            if not each.admits(reply):
                sent = show_batch(op, [order, *(other for other in expected if other != order)], planned)
                raise DeviationError(sent, show_reply(reply), _explain(each.describe(), each.because or because))
            if reply is not None and (reply.op, reply.participant) != (op, self.participant.name):
                sent = show_batch(op, [order], planned)
                wrong = f"{reply.participant} {reply.op}"
                raise DeviationError(sent, Text(wrong, wrong), Text(f"{self.participant.name} {op}", f"{op}"))

    async def expect_rows(self, accounts: Sequence[int], rows: Mapping[int, FenceRow], because: Text) -> None:
        """Look at `accounts` and demand exactly `rows`. Raises DeviationError."""
        seen = await self.participant.look(accounts)
        wrong = [account for account in accounts if seen.get(account) != rows.get(account)]
        if wrong or seen.keys() - set(accounts):
            shown = wrong[:_CASES_SHOWN] or sorted(seen.keys() - set(accounts))[:_CASES_SHOWN]
            told, wanted = show_rows(seen, shown), show_rows(rows, shown)
            raise DeviationError(show_look(shown), Text(told, told), _explain(Text(wanted, wanted), because))

    async def put(self, row: FenceRow, accounts: Sequence[int]) -> None:
        """Bring the fence rows of `accounts` to `row` by ops alone. Raises DeviationError."""
        for op in _WAYS[row.case_op]:
            await self.apply(op, *((account, row.case_no) for account in accounts))
        zh, en = " → ".join(_WAYS[row.case_op]), " then ".join(_WAYS[row.case_op])
        because = Text(
            f"已对新账户的第 {row.case_no} 号案发送 {zh}", f"{en} of case {row.case_no} was sent for new accounts"
        )
        await self.expect_rows(accounts, dict.fromkeys(accounts, row), because)


def show_row(row: FenceRow) -> str:
    """Return a fence row as the protocol writes it."""
    return f'{{"case_no": {row.case_no}, "case_op": "{row.case_op}"}}'


def show_batch(op: Op, orders: Sequence[Order], planned: PlannedOperation) -> str:
    """Return a batch as the protocol writes it, cut to the first cases."""
    cases = [wire.CaseOrder(str(each.account_id), each.case_no, each.version) for each in orders[:_CASES_SHOWN]]
    effects = {} if op is Op.CANCEL else dict(planned.effects)
    body = msgspec.json.encode(wire.CaseBatch(cases, effects, planned.operation)).decode()
    more = f" (+{len(orders) - _CASES_SHOWN})" if len(orders) > _CASES_SHOWN else ""
    return f"POST /{op} {cut(body)}{more}"


def show_look(accounts: Sequence[int]) -> str:
    """Return a look as the protocol writes it."""
    return "POST /look " + msgspec.json.encode(wire.LookBatch([str(account) for account in accounts])).decode()


def show_reply(reply: Reply | None) -> Text:
    """Return a reply in the protocol's words; None: there was none."""
    if reply is None:
        return _NO_RESULT
    told: dict[str, Any] = {
        "account": str(reply.account_id),
        "case_no": reply.case_no,
        "outcome": wire.OUTCOMES[reply.answer].value,
    }
    if reply.code is not None:
        told["code"] = reply.code
    if reply.row is not None:
        told["row"] = {"case_no": reply.row.case_no, "case_op": reply.row.case_op.value}
    shown = msgspec.json.encode(told).decode()
    return Text(shown, shown)


def show_rows(rows: Mapping[int, FenceRow], accounts: Sequence[int]) -> str:
    """Return the rows of `accounts` as the answer to a look writes them."""
    told = [
        {"account": str(account), "case_no": rows[account].case_no, "case_op": rows[account].case_op.value}
        for account in accounts
        if account in rows
    ]
    return msgspec.json.encode({"rows": told}).decode()


def cut(text: str) -> str:
    """Return what a party wrote, or we, on one line and not too long."""
    plain = "".join(one if one.isprintable() else " " for one in text[: _LONGEST + 1])
    return plain if len(plain) <= _LONGEST else plain[:_LONGEST] + "…"


def show_silence(error: BaseException) -> Text:
    """Return why there was no answer."""
    what = getattr(error, "what", None)
    if what is None:
        return Text(f"没有应答({type(error).__name__})", f"no answer ({type(error).__name__})")
    detail = clean(" ".join(filter(None, (what, getattr(error, "detail", None)))))
    return Text(f"没有可采信的应答:{detail}", f"no answer that can be believed: {detail}")


def _explain(wanted: Text, because: Text) -> Text:
    return Text(f"{wanted.zh}({because.zh})", f"{wanted.en} ({because.en})")
