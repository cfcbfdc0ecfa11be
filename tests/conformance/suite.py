"""One suite for every participant, database or remote: what the saga relies on, whoever stands behind `Participant`.

A test module subclasses `ParticipantSuite`, names the class `Test…`, and gives a fixture `subject`:

    class TestUnionPay(ParticipantSuite):
        @pytest.fixture
        async def subject(self, ...) -> Subject: ...
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jiebang.model.plan import UNNAMED, PlannedOperation
from jiebang.participants.base import Participant
from jiebang.policy import packs
from jiebang.policy.pack import Pack
from jiebang.remote.wire import MAX_BATCH
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import NO_ROW, Answer, CaseOp, FenceRow, Op, fence
from jiebang.saga.orders import Order
from tests.packs import pack

N = 5
MORE_THAN_A_REQUEST = MAX_BATCH + 3
NUMBERS = {"above": N + 2, "below": N - 1, "same": N}
WAYS = {
    CaseOp.TRIED: (Op.TRY,),
    CaseOp.CONFIRMED: (Op.TRY, Op.CONFIRM),
    CaseOp.CANCELLED: (Op.CANCEL,),
}
"""How a participant comes to hold a row, by ops alone."""


@dataclass
class Subject:
    """A participant under test.

    `accounts(n)`: n accounts nobody used before, whose Try is granted. `refused(n)`: orders for case 1 of n new
    accounts whose Try is refused for a reason of the participant's own, with that reason's code. `operation`: what a
    plan names for it, effects included. `spent`: the code that refuses every Try of an account once a case of it was
    confirmed (None: the next case is granted as the first was). `packs`: those whose plans it must serve, whole.
    `unfit`: an operation of its own with effects that it cannot apply (None: it takes any).
    """

    participant: Participant
    accounts: Callable[[int], Awaitable[list[int]]]
    refused: Callable[[int], Awaitable[tuple[list[Order], str]]]
    operation: PlannedOperation
    spent: str | None = None
    packs: Sequence[Pack] = ()
    unfit: PlannedOperation | None = None

    @property
    def planned(self) -> list[PlannedOperation]:
        """Everything that plans send it: of the product's own packs, of `packs`, and `operation`."""
        plans = [plan for each in (*map(pack, packs.NAMES), *self.packs) for plan in each.plans.values()]
        found = [plan.operations[self.participant.name] for plan in plans if self.participant.name in plan.participants]
        return [self.operation, *(each for each in found if each != self.operation)]

    async def apply(self, op: Op, *orders: tuple[int, int]) -> dict[int, Reply]:
        """Carry out `op` for (account, case_no)s; replies by account."""
        replies = await self.participant.apply(
            op, [Order(account, case_no) for account, case_no in orders], self.operation
        )
        return {reply.account_id: reply for reply in replies}

    async def put(self, row: FenceRow, accounts: Sequence[int]) -> None:
        """Bring the fence rows of `accounts` to `row`."""
        for op in WAYS[row.case_op]:
            await self.apply(op, *((account, row.case_no) for account in accounts))
        assert await self.participant.look(accounts) == dict.fromkeys(accounts, row)


class ParticipantSuite:
    """What must hold of every participant. Each test says what would break."""

    async def test_every_row_and_op_answers_as_the_fence_says(self, subject: Subject) -> None:
        """One cell that differs, and a late message tears an account apart between databases."""
        cells = list(product(NUMBERS, CaseOp, Op))
        cases = dict(zip(cells, await subject.accounts(len(cells)), strict=True))
        for where, case_op in product(NUMBERS, CaseOp):
            accounts = [account for cell, account in cases.items() if cell[:2] == (where, case_op)]
            await subject.put(FenceRow(NUMBERS[where], case_op), accounts)
        for op in Op:
            batch = {account: cell for cell, account in cases.items() if cell[2] is op}
            replies = await subject.apply(op, *((account, N) for account in batch))
            rows = await subject.participant.look(list(batch))
            for account, (where, case_op, _) in batch.items():
                before = FenceRow(NUMBERS[where], case_op)
                verdict = fence(before, N, op, subject.spent if case_op is CaseOp.CONFIRMED else None)
                reply = replies[account]
                cell = f"{where} {case_op}, {op}"
                assert (reply.answer, reply.code) == (verdict.answer, verdict.code), cell
                assert rows[account] == (verdict.write or before), cell
                assert reply.row == rows[account], cell
                assert (reply.case_no, reply.op, reply.participant) == (N, op, subject.participant.name), cell

    async def test_an_account_never_seen_is_number_0_finished(self, subject: Subject) -> None:
        """A Cancel that overtakes its Try must leave a mark, or the Try is granted after it and never released."""
        account, other = await subject.accounts(2)
        assert (await subject.apply(Op.CONFIRM, (account, 1)))[account].answer is Answer.ERROR
        assert (await subject.apply(Op.CANCEL, (account, 1)))[account].answer is Answer.DONE
        assert await subject.participant.look([account]) == {account: FenceRow(1, CaseOp.CANCELLED)}
        assert (await subject.apply(Op.TRY, (account, 1)))[account].answer is Answer.REFUSED
        assert (await subject.apply(Op.TRY, (other, 1)))[other].answer is Answer.GRANTED

    async def test_a_refused_try_leaves_its_mark(self, subject: Subject) -> None:
        """A refused Try that left none could be granted when it comes again late, after the case was rolled back."""
        orders, code = await subject.refused(2)
        keys = [(order.account_id, order.case_no) for order in orders]
        refused = await subject.participant.apply(Op.TRY, orders, subject.operation)
        assert [(reply.answer, reply.code) for reply in refused] == [(Answer.REFUSED, code)] * len(orders)
        assert [reply.row for reply in refused] == [FenceRow(1, CaseOp.CANCELLED)] * len(orders)
        again = await subject.apply(Op.TRY, *keys)
        assert {reply.answer for reply in again.values()} == {Answer.REFUSED}
        done = await subject.apply(Op.CANCEL, *keys)
        assert {reply.answer for reply in done.values()} == {Answer.DONE}
        confirmed = await subject.apply(Op.CONFIRM, *keys)
        assert {reply.answer for reply in confirmed.values()} == {Answer.ERROR}

    async def test_effects_that_it_cannot_apply_are_refused_at_the_try(self, subject: Subject) -> None:
        """Granted, the case passes its commit point, and its person stays half unbound for ever."""
        if subject.unfit is None:
            pytest.skip("it applies whatever a plan writes")
        [account] = await subject.accounts(1)
        [refused] = await subject.participant.apply(Op.TRY, [Order(account, 1)], subject.unfit)
        assert refused.answer is Answer.REFUSED
        assert refused.code
        assert refused.row == FenceRow(1, CaseOp.CANCELLED)

    async def test_one_bad_case_leaves_the_others_of_its_batch_alone(self, subject: Subject) -> None:
        """A batch is a set of people who know nothing of each other."""
        (bad, *_), code = await subject.refused(1)
        good = await subject.accounts(3)
        replies = await subject.participant.apply(
            Op.TRY, [Order(good[0], 1), bad, *(Order(a, 1) for a in good[1:])], subject.operation
        )
        answers = {reply.account_id: (reply.answer, reply.code) for reply in replies}
        expected = dict.fromkeys(good, (Answer.GRANTED, None))
        assert answers == {**expected, bad.account_id: (Answer.REFUSED, code)}

    async def test_marks_are_found_without_naming_their_accounts(self, subject: Subject) -> None:
        """A mark of an account that the platform does not know would otherwise stay for ever, and no audit see it."""
        accounts = sorted(await subject.accounts(4))
        await subject.apply(Op.CANCEL, *((account, 3) for account in accounts))
        rows = dict.fromkeys(accounts, FenceRow(3, CaseOp.CANCELLED))
        below, top = accounts[0] - 1, accounts[-1]
        assert await subject.participant.marks(below, top, 9) == rows
        assert list(await subject.participant.marks(below, top, 3)) == accounts[:3]
        assert list(await subject.participant.marks(accounts[1], accounts[2], 9)) == accounts[2:3]
        assert await subject.participant.marks(top, top, 9) == {}

    async def test_whatever_plans_send_goes_the_whole_way(self, subject: Subject) -> None:
        """A party that was asked with bare orders alone passed, and answered 422 to the Confirm of every real case."""
        for planned in subject.planned:
            kept, undone = await subject.accounts(2)
            tried = await subject.participant.apply(Op.TRY, [Order(kept, 1), Order(undone, 1)], planned)
            assert {reply.answer for reply in tried} == {Answer.GRANTED}, planned.operation
            for op, account in ((Op.CONFIRM, kept), (Op.CANCEL, undone)):
                for _ in range(2):
                    (reply,) = await subject.participant.apply(op, [Order(account, 1)], planned)
                    assert reply.answer is Answer.DONE, (planned.operation, op, reply.code)

    async def test_a_cancel_needs_no_operation(self, subject: Subject) -> None:
        """A recovery cancels what it finds where a restore lost the plan: else it stays reserved for ever."""
        tried, unseen = await subject.accounts(2)
        await subject.apply(Op.TRY, (tried, 1))
        replies = await subject.participant.apply(Op.CANCEL, [Order(tried, 1), Order(unseen, 1)], UNNAMED)
        assert {reply.answer for reply in replies} == {Answer.DONE}
        rows = dict.fromkeys((tried, unseen), FenceRow(1, CaseOp.CANCELLED))
        assert await subject.participant.look([tried, unseen]) == rows

    async def test_more_cases_than_a_request_holds_are_answered_whole(self, subject: Subject) -> None:
        """A worker's round is not cut to a protocol's limit; nobody may fall between two requests."""
        accounts = await subject.accounts(MORE_THAN_A_REQUEST)
        replies = await subject.apply(Op.CANCEL, *((account, 1) for account in accounts))
        assert {reply.answer for reply in replies.values()} == {Answer.DONE}
        rows = dict.fromkeys(accounts, FenceRow(1, CaseOp.CANCELLED))
        assert await subject.participant.look(accounts) == rows

    async def test_an_empty_batch_is_answered_with_nothing(self, subject: Subject) -> None:
        """A round whose last case went away must not be an error."""
        assert list(await subject.participant.apply(Op.TRY, [], subject.operation)) == []
        assert await subject.participant.look([]) == {}

    async def test_a_case_named_twice_in_a_batch_is_still_one_case(self, subject: Subject) -> None:
        """A repeat inside a batch must not be answered as if it were another case."""
        (account,) = await subject.accounts(1)
        for op, allowed in ((Op.TRY, Answer.GRANTED), (Op.CONFIRM, Answer.DONE)):
            replies = await subject.participant.apply(op, [Order(account, 1), Order(account, 1)], subject.operation)
            assert replies
            assert {reply.answer for reply in replies} <= {allowed, Answer.PENDING}
        assert await subject.participant.look([account]) == {account: FenceRow(1, CaseOp.CONFIRMED)}

    async def test_two_cases_of_one_account_in_a_batch_do_not_mix(self, subject: Subject) -> None:
        """A stale op beside a live one must neither be taken for it nor take its place."""
        (account,) = await subject.accounts(1)
        await subject.apply(Op.CANCEL, (account, 3))
        replies = await subject.participant.apply(Op.TRY, [Order(account, 4), Order(account, 2)], subject.operation)
        answers = {reply.case_no: reply.answer for reply in replies}
        assert answers.get(2, Answer.REFUSED) is Answer.REFUSED
        assert answers.get(4, Answer.GRANTED) is Answer.GRANTED
        row = (await subject.participant.look([account]))[account]
        assert row == (FenceRow(4, CaseOp.TRIED) if 4 in answers else FenceRow(3, CaseOp.CANCELLED))

    async def test_a_crossing_try_and_cancel_end_cancelled_and_never_contradict(self, subject: Subject) -> None:
        """Two workers may hold one case for a moment: whatever the order, a cancelled case must stay cancelled."""
        accounts = await subject.accounts(48)
        orders = [Order(account, 1) for account in accounts]
        ops = [Op.TRY, Op.TRY, Op.CANCEL, Op.TRY, Op.CANCEL]
        chance = random.Random(7)  # noqa: S311 - a reproducible order
        batches = [(op, chance.sample(orders, len(orders))) for op in ops]
        rounds = await asyncio.gather(
            *(subject.participant.apply(op, batch, subject.operation) for op, batch in batches)
        )
        for (op, _), replies in zip(batches, rounds, strict=True):
            allowed = {Answer.DONE} if op is Op.CANCEL else {Answer.GRANTED, Answer.REFUSED}
            assert {reply.answer for reply in replies} <= {*allowed, Answer.PENDING}
        settled = await subject.apply(Op.CANCEL, *((account, 1) for account in accounts))
        assert {reply.answer for reply in settled.values()} == {Answer.DONE}
        assert await subject.participant.look(accounts) == dict.fromkeys(accounts, FenceRow(1, CaseOp.CANCELLED))

    async def test_crossing_confirms_are_done_once(self, subject: Subject) -> None:
        """A Confirm sent twice at once must be done, and done for good."""
        accounts = await subject.accounts(16)
        await subject.put(FenceRow(1, CaseOp.TRIED), accounts)
        orders = [Order(account, 1) for account in accounts]
        rounds = await asyncio.gather(
            *(subject.participant.apply(Op.CONFIRM, orders, subject.operation) for _ in range(4))
        )
        assert {reply.answer for replies in rounds for reply in replies} <= {Answer.DONE, Answer.PENDING}
        again = await subject.apply(Op.CONFIRM, *((account, 1) for account in accounts))
        assert {reply.answer for reply in again.values()} == {Answer.DONE}

    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(Op), st.lists(st.integers(1, 4), min_size=8, max_size=8)), min_size=1, max_size=10
        )
    )
    async def test_any_sequence_of_batches_answers_as_the_fence_says(
        self, subject: Subject, steps: list[tuple[Op, list[int]]]
    ) -> None:
        """Late, repeated and reordered messages of several cases: eight accounts side by side, each with its own."""
        accounts = await subject.accounts(8)
        model, spent = dict.fromkeys(accounts, NO_ROW), set[int]()
        for op, numbers in steps:
            replies = await subject.apply(op, *zip(accounts, numbers, strict=True))
            for account, number in zip(accounts, numbers, strict=True):
                verdict = fence(model[account], number, op, subject.spent if account in spent else None)
                model[account] = verdict.write or model[account]
                if model[account].case_op is CaseOp.CONFIRMED:
                    spent.add(account)
                assert (replies[account].answer, replies[account].row) == (verdict.answer, model[account])
        looked = await subject.participant.look(accounts)
        assert {account: looked.get(account, NO_ROW) for account in accounts} == model
