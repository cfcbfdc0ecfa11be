"""Each fault of a clearing network does what it says: the demo, the kill tests and the saga's own tests rely on it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time

import pytest

from jiebang.model.plan import UNNAMED
from jiebang.participants.http import HttpParticipant
from jiebang.remote.client import RemoteError
from jiebang.remote.wire import IgnoreReason
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault, Phase
from jiebang.sandbox.ledger import Binding, BindingState
from jiebang.sandbox.processes import Sandbox
from tests.patience import PATIENCE_S


async def until_looked(participant: HttpParticipant, accounts: list[int]) -> dict[int, FenceRow]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return dict(await participant.look(accounts))
            except OSError:
                await asyncio.sleep(0.05)


async def test_slow_answers_later_and_in_full(unionpay: HttpParticipant, control: Control, account: int) -> None:
    """A slow network must still be a working one."""
    await control.set_faults([NetworkFault(FaultKind.SLOW, ops=(FaultOp.TRY,), ms=300, count=1)])
    began = time.monotonic()
    (reply,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED
    assert time.monotonic() - began >= 0.3


async def test_break_answers_500_to_the_whole_request_and_does_nothing(
    unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """What one bad row does to a batch of another team's service: the platform must find the row."""
    good, bad = next(numbers), next(numbers)
    await control.set_faults([NetworkFault(FaultKind.BREAK, accounts=(str(bad),))])
    with pytest.raises(RemoteError) as caught:
        await unionpay.apply(Op.TRY, [Order(good, 1), Order(bad, 1)], UNNAMED)
    assert (caught.value.status, caught.value.refused_whole) == (500, True)
    (reply,) = await unionpay.apply(Op.TRY, [Order(good, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED


@pytest.mark.parametrize("phase", [Phase.BEFORE, Phase.AFTER])
async def test_silent_never_answers_with_or_without_having_done_the_work(
    world: Sandbox, unionpay: HttpParticipant, control: Control, account: int, phase: Phase
) -> None:
    """Silence is unknown: the platform must be made to meet both truths behind it."""
    impatient = HttpParticipant(world.link("unionpay"), limit=0.4)
    await control.set_faults(
        [NetworkFault(FaultKind.SILENT, ops=(FaultOp.TRY,), phase=phase, accounts=(str(account),))]
    )
    with pytest.raises(TimeoutError):
        await impatient.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await impatient.aclose()
    done = {account: FenceRow(1, CaseOp.TRIED)} if phase is Phase.AFTER else {}
    assert await unionpay.look([account]) == done
    (confirmed,) = await unionpay.apply(Op.CANCEL, [Order(account, 1)], UNNAMED)
    assert confirmed.answer is Answer.DONE, "only Try was to be silent"


async def test_silence_for_one_account_leaves_other_batches_alone(
    world: Sandbox, control: Control, numbers: itertools.count[int]
) -> None:
    """Halving a silent batch must find the one bad case, and the others must pass."""
    impatient = HttpParticipant(world.link("unionpay"), limit=0.4)
    bad, good = next(numbers), next(numbers)
    await control.set_faults([NetworkFault(FaultKind.SILENT, accounts=(str(bad),))])
    with pytest.raises(TimeoutError):
        await impatient.apply(Op.TRY, [Order(bad, 1), Order(good, 1)], UNNAMED)
    (reply,) = await impatient.apply(Op.TRY, [Order(good, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED
    await impatient.aclose()


async def test_refuse_hits_named_accounts_alone_and_leaves_its_mark(
    unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """A refused Try that left no mark could be granted when it comes again late."""
    named, other = next(numbers), next(numbers)
    await control.bind([Binding(str(named), "card-1", "card")])
    await control.set_faults([NetworkFault(FaultKind.REFUSE, accounts=(str(named),), code="NETWORK-HOLD", count=1)])
    replies = {
        reply.account_id: reply for reply in await unionpay.apply(Op.TRY, [Order(named, 3), Order(other, 3)], UNNAMED)
    }
    assert (replies[named].answer, replies[named].code) == (Answer.REFUSED, "NETWORK-HOLD")
    assert replies[named].row == FenceRow(3, CaseOp.CANCELLED)
    assert replies[other].answer is Answer.GRANTED
    (again,) = await unionpay.apply(Op.TRY, [Order(named, 3)], UNNAMED)
    assert (again.answer, again.code) == (Answer.REFUSED, "FENCE-CANCELLED"), "the count is used up; the fence stays"
    (binding,) = (await control.state([named]))[named].bindings
    assert binding.state is BindingState.BOUND
    (later,) = await unionpay.apply(Op.TRY, [Order(named, 4)], UNNAMED)
    assert later.answer is Answer.GRANTED


async def test_refuse_can_hit_a_share(
    unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """Load with a known part of refusals needs the part to be about right, and the same each time."""
    orders = [Order(next(numbers), 1) for _ in range(1000)]
    await control.set_faults([NetworkFault(FaultKind.REFUSE, share=0.3)])
    first = {
        reply.account_id for reply in await unionpay.apply(Op.TRY, orders, UNNAMED) if reply.answer is Answer.REFUSED
    }
    assert 200 < len(first) < 400
    again = {
        reply.account_id for reply in await unionpay.apply(Op.TRY, orders, UNNAMED) if reply.answer is Answer.REFUSED
    }
    assert again == first


@pytest.mark.parametrize("op", list(Op))
async def test_twice_does_the_work_twice_answers_twice_and_changes_nothing(
    unionpay: HttpParticipant, control: Control, account: int, op: Op
) -> None:
    """At-least-once is what networks give; the second time must be without effect and the second answer unread."""
    await control.bind([Binding(str(account), "card-1", "card")])
    if op is not Op.TRY:
        await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await control.set_faults([NetworkFault(FaultKind.TWICE)])
    (reply,) = await unionpay.apply(op, [Order(account, 1)], UNNAMED)
    assert reply.answer is (Answer.GRANTED if op is Op.TRY else Answer.DONE)
    assert unionpay.ignored == {IgnoreReason.REPEATED: 1}
    (binding,) = (await control.state([account]))[account].bindings
    after = {Op.TRY: BindingState.RELEASING, Op.CONFIRM: BindingState.RELEASED, Op.CANCEL: BindingState.BOUND}
    assert binding.state is after[op]


@pytest.mark.parametrize("phase", list(Phase))
async def test_die_ends_the_process_at_the_named_moment_and_it_comes_back(
    world: Sandbox, unionpay: HttpParticipant, control: Control, account: int, phase: Phase
) -> None:
    """A crash may lose the answer but never half a batch; afterwards the same address answers from what was kept."""
    await control.bind([Binding(str(account), "card-1", "card")])
    other = NetworkFault(FaultKind.REFUSE, accounts=("1",))
    await control.set_faults([NetworkFault(FaultKind.DIE, ops=(FaultOp.TRY,), phase=phase, count=1), other])
    pid = world.processes["unionpay"].pid
    with pytest.raises(OSError, match="unionpay"):
        await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    kept = await until_looked(unionpay, [account])
    assert kept == ({account: FenceRow(1, CaseOp.TRIED)} if phase is Phase.AFTER else {})
    (binding,) = (await control.state([account]))[account].bindings
    assert binding.state is (BindingState.RELEASING if phase is Phase.AFTER else BindingState.BOUND)
    assert world.processes["unionpay"].pid != pid
    (reply,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED, "the counted fault is used up, though the process began anew"
    (refused,) = await unionpay.apply(Op.TRY, [Order(1, 1)], UNNAMED)
    assert refused.answer is Answer.REFUSED, "the other fault outlived the process"
    await control.set_faults([])


async def test_answers_for_cases_nobody_asked_about_are_ignored_and_counted(
    unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """One account's answer taken for another's would confirm what nobody reserved; the true answer comes when asked."""
    orders = [Order(next(numbers), 1), Order(next(numbers), 1)]
    await control.set_faults([NetworkFault(FaultKind.STRANGE, count=1)])
    assert await unionpay.apply(Op.TRY, orders, UNNAMED) == []
    assert unionpay.ignored == {IgnoreReason.NOT_ASKED: 3}, (
        "both next cases, and the one neighbour that was not asked about"
    )
    assert {reply.answer for reply in await unionpay.apply(Op.TRY, orders, UNNAMED)} == {Answer.GRANTED}


async def test_a_grant_after_a_refusal_comes_from_the_same_reservation_or_is_ignored(
    unionpay: HttpParticipant, control: Control, account: int
) -> None:
    """A network that changes its mind must not leave a card reserved for a case that was rolled back on its refusal."""
    await control.bind([Binding(str(account), "card-1", "card")])
    await control.set_faults([NetworkFault(FaultKind.FICKLE)])
    (refused,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert refused.answer is Answer.REFUSED
    (granted,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert granted.answer is Answer.GRANTED
    (done,) = await unionpay.apply(Op.CANCEL, [Order(account, 1)], UNNAMED)
    assert done.answer is Answer.DONE
    (late,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert late.answer is Answer.REFUSED
    (binding,) = (await control.state([account]))[account].bindings
    assert binding.state is BindingState.BOUND
    assert unionpay.ignored == {}
    await unionpay.apply(Op.TRY, [Order(account + 500_000, 1)], UNNAMED)
    assert unionpay.ignored == {IgnoreReason.NOT_ASKED: 1}, "the grant of the other, that nobody asked for"


@pytest.mark.parametrize("op", list(Op))
async def test_of_two_voices_neither_is_believed(
    unionpay: HttpParticipant, control: Control, account: int, op: Op
) -> None:
    """Whichever came first would otherwise decide whether a person's card is released."""
    if op is not Op.TRY:
        await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await control.set_faults([NetworkFault(FaultKind.TWO_VOICES, count=1)])
    assert await unionpay.apply(op, [Order(account, 1)], UNNAMED) == []
    assert unionpay.ignored == {IgnoreReason.CONTRADICTORY: 1}
    (reply,) = await unionpay.apply(op, [Order(account, 1)], UNNAMED)
    assert reply.answer is (Answer.GRANTED if op is Op.TRY else Answer.DONE)


@pytest.mark.parametrize("op", [Op.CONFIRM, Op.CANCEL])
async def test_a_denied_op_is_told_as_against_the_protocol_and_leaves_its_row(
    unionpay: HttpParticipant, control: Control, account: int, op: Op
) -> None:
    """It is what parks a case for an operator; taken for done, the card would stay reserved for ever."""
    await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await control.set_faults([NetworkFault(FaultKind.DENY, count=1)])
    (reply,) = await unionpay.apply(op, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.ERROR
    assert await unionpay.look([account]) == {account: FenceRow(1, CaseOp.TRIED)}
    (reply,) = await unionpay.apply(op, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.DONE


async def test_an_answer_to_another_request_is_no_answer(
    unionpay: HttpParticipant, control: Control, account: int
) -> None:
    """Its signature is the network's own: only that it is bound to the request keeps yesterday's grant out of today."""
    await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    await control.set_faults([NetworkFault(FaultKind.STALE, ops=(FaultOp.TRY,), count=1)])
    with pytest.raises(RemoteError, match="not signed by it"):
        await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    (reply,) = await unionpay.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED


async def test_a_kill_in_the_middle_of_batches_keeps_everything_that_was_answered(
    world: Sandbox, unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """A grant the network forgets in a crash would let a cancelled case's late Try in, or lose a Confirm."""
    accounts = [next(numbers) for _ in range(2000)]
    await control.bind([Binding(str(account), "card-1", "card") for account in accounts])
    single, batches = accounts[:1000], [accounts[1000:1500], accounts[1500:]]
    answered, enough = dict[int, CaseOp](), asyncio.Event()

    async def drive(part: list[int]) -> None:
        for account in part:
            for op in (Op.TRY, Op.CONFIRM):
                try:
                    (reply,) = await unionpay.apply(op, [Order(account, 1)], UNNAMED)
                except OSError:
                    return  # killed: what became of this op nobody knows
                assert reply.row
                answered[account] = reply.row.case_op
            if len(answered) >= 20:
                enough.set()

    driving = [asyncio.create_task(drive(single[at::4])) for at in range(4)]
    await enough.wait()
    whole = [
        asyncio.create_task(unionpay.apply(Op.TRY, [Order(one, 1) for one in batch], UNNAMED)) for batch in batches
    ]
    await asyncio.sleep(0.005)  # somewhere in the batches; where, is left to chance
    pid = world.processes["unionpay"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*driving)
    outcomes = await asyncio.gather(*whole, return_exceptions=True)
    rows = await until_looked(unionpay, accounts)
    for account, case_op in answered.items():
        assert rows[account].case_op in {case_op, CaseOp.CONFIRMED}, "an answer was forgotten"
    for batch, outcome in zip(batches, outcomes, strict=True):
        assert len([account for account in batch if account in rows]) in {0, len(batch)}, "half a batch was kept"
        assert isinstance(outcome, OSError) or batch[0] in rows
    states = await control.state(accounts)
    for account in accounts:
        held = rows.get(account)
        expected = {
            None: BindingState.BOUND,
            CaseOp.TRIED: BindingState.RELEASING,
            CaseOp.CONFIRMED: BindingState.RELEASED,
        }[held.case_op if held else None]
        assert states[account].bindings[0].state is expected, "binding and fence changed together or not at all"


async def test_a_dead_network_is_silence_not_an_error_of_the_worker(world: Sandbox) -> None:
    """The worker treats OSError and TimeoutError as silence; anything else would stop it."""
    link = world.link("unionpay")
    nobody = HttpParticipant(
        type(link)(name="unionpay", base_url="http://127.0.0.1:9", private_key=link.private_key, peer_key=link.peer_key)
    )
    with pytest.raises(RemoteError):
        await nobody.apply(Op.TRY, [Order(1, 1)], UNNAMED)
    with pytest.raises(RemoteError):
        await nobody.look([1])
    await nobody.aclose()
