"""The coordinator's step, rule by rule, and what must hold after any sequence of events whatever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import ENDED, MARKS_OF, TRANSITIONS, Case, Kind, State
from jiebang.model.plan import Plan
from jiebang.saga import coordinator
from jiebang.saga.coordinator import (
    Decision,
    Event,
    Proven,
    Rechecked,
    Replied,
    Reply,
    Send,
    Timing,
    Unparked,
    Woken,
    backoff,
    condition,
    condition_key,
    start_together,
    step,
    versions_to_start,
)
from jiebang.saga.fence import Answer, Op

NOW = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
TIMING = Timing()
PLAN = Plan(name="p/1", participants=("identity", "unionpay", "social", "wallet"), waves=(0, 0, 1, 2))
VERSIONS = {"identity": 11, "social": 13, "wallet": 14}
MOMENT = timedelta(milliseconds=10)


def opened(**changes: Any) -> Case:
    case = Case(
        account_id=7,
        case_no=2,
        kind=Kind.REVOKE,
        state=State.OPEN,
        plan=PLAN.name,
        marks="....",
        revision=1,
        created_at=NOW,
        due_at=NOW + timedelta(hours=1),
    )
    return msgspec.structs.replace(case, **changes)


def play(case: Case, *events: Event, now: datetime = NOW) -> Decision:
    decision = Decision(case)
    for event in events:
        decision = step(decision.case, PLAN, event, now, TIMING)
    return decision


def said(answer: Answer, op: Op, *names: str, code: str | None = None) -> Replied:
    return Replied(tuple(Reply(7, 2, name, op, answer, code) for name in names))


def granted(*names: str) -> Replied:
    return said(Answer.GRANTED, Op.TRY, *names)


def trying() -> Case:
    return play(opened(), Proven(14), Rechecked(VERSIONS)).case


def confirming() -> Case:
    return play(trying(), granted("identity", "unionpay"), granted("social"), granted("wallet")).case


def cancelling() -> Case:
    return play(trying(), said(Answer.REFUSED, Op.TRY, "identity", code="HELD")).case


def sent(decision: Decision) -> list[tuple[str, str]]:
    return [(send.participant, str(send.op)) for send in decision.sends]


def test_the_last_proof_makes_a_case_ready_at_once() -> None:
    """A person who has proven themselves must not wait for a timer."""
    case = play(opened(), Proven(14)).case
    assert (case.state, case.wallet_version, case.due_at) == (State.READY, 14, NOW)


def test_an_open_case_expires_at_its_hour_and_not_before() -> None:
    """A person half way through their proofs must not lose the case early; one who left must not block themselves."""
    case = opened()
    assert case.due_at is not None
    assert play(case, Woken(), now=case.due_at - MOMENT).case is case
    assert play(case, Woken(), now=case.due_at).case.state is State.EXPIRED


def test_a_case_in_review_never_expires() -> None:
    """Nothing is cancelled by age alone while people are reviewing."""
    case = opened(state=State.IN_REVIEW)
    assert play(case, Woken(), now=NOW + timedelta(days=400)).case is case


@pytest.mark.parametrize("state", [State.OPEN, State.IN_REVIEW])
def test_a_wish_beats_even_the_last_proof(state: State) -> None:
    """Who withdrew while the last code was on its way stays withdrawn."""
    case = opened(state=state, withdraw_at=NOW)
    assert play(case, Proven(14)).case.state is State.WITHDRAWN
    assert play(case, Woken()).case.state is State.WITHDRAWN


def test_a_ready_case_withdraws_before_anything_is_sent() -> None:
    """Withdrawing before the first Try must leave no trace at any participant."""
    ready = msgspec.structs.replace(play(opened(), Proven(14)).case, withdraw_at=NOW)
    decision = play(ready, Woken())
    assert (decision.case.state, decision.case.reason, decision.sends) == (State.WITHDRAWN, "WITHDRAWN", ())
    assert play(ready, Rechecked(VERSIONS)).case.state is State.WITHDRAWN


def test_a_ready_case_only_moves_on_a_recheck() -> None:
    """Waking a ready case must never send a Try on facts nobody has read again."""
    ready = play(opened(), Proven(14)).case
    for event in (Woken(), Proven(15), Unparked(), granted("identity")):
        assert play(ready, event) == Decision(ready)


def test_the_recheck_sends_the_first_wave_at_the_versions_it_read() -> None:
    """A Try at another version would let a change slip in between check and Try."""
    decision = play(opened(), Proven(14), Rechecked(VERSIONS))
    assert decision.sends == (Send(7, 2, "identity", Op.TRY, 11), Send(7, 2, "unionpay", Op.TRY, None))
    case = decision.case
    assert (case.state, case.marks, case.versions) == (State.TRYING, "tttt", (11, 0, 13, 14))
    assert case.deadline == NOW + TIMING.try_limit
    assert case.due_at == NOW + TIMING.resend


def test_a_blocker_found_again_rejects_with_its_codes() -> None:
    """The person learns which blocker came up between submit and start."""
    case = play(opened(), Proven(14), Rechecked(VERSIONS, ("PAY-BALANCE", "CREDIT-OPEN"))).case
    assert (case.state, case.reason, case.due_at) == (State.REJECTED, "PAY-BALANCE,CREDIT-OPEN", None)


def test_money_moved_since_the_last_proof_rejects() -> None:
    """Money first: a movement after the last proof breaks the case off."""
    case = play(opened(), Proven(13), Rechecked(VERSIONS)).case
    assert (case.state, case.reason) == (State.REJECTED, "FUNDS-MOVED")


def test_facts_that_cannot_be_read_wait_with_growing_patience_and_never_pass() -> None:
    """Unknown is never treated as passed, and a database that is down is not hammered."""
    case = play(opened(), Proven(14)).case
    waits = []
    for _ in range(9):
        decision = play(case, Rechecked({**VERSIONS, "social": None}))
        case = decision.case
        assert (case.state, case.reason, decision.sends) == (State.READY, "FACT-UNAVAILABLE", ())
        assert case.due_at is not None
        waits.append(case.due_at - NOW)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (TIMING.resend, TIMING.resend_limit)
    assert play(case, Rechecked(VERSIONS)).case.reason is None


def test_waves_go_one_by_one_and_the_wallet_last() -> None:
    """The wallet answers "busy" to the person while it is tried: it must be held last and shortest."""
    first = play(trying(), granted("identity"))
    assert (first.case.marks, first.sends) == ("gttt", ())
    second = play(first.case, granted("unionpay"))
    assert (second.case.marks, sent(second)) == ("ggtt", [("social", "try")])
    third = play(second.case, granted("social"))
    assert (third.case.marks, third.sends) == ("gggt", (Send(7, 2, "wallet", Op.TRY, 14),))


def test_a_granted_wave_costs_no_save() -> None:
    """Later waves were saved as sent with the first: a save a wave would be the most expensive thing a case does."""
    case = trying()
    for names in (("identity", "unionpay"), ("social",)):
        decision = play(case, granted(*names))
        assert decision.case.revision == case.revision
        assert decision.sends
        case = decision.case
    assert play(case, granted("wallet")).case.revision == case.revision + 1


def test_whoever_forgot_the_grants_asks_for_them_again() -> None:
    """A worker that dies between two waves leaves a row that knows no grant; the next begins with the first wave."""
    case = trying()
    assert case.due_at is not None
    decision = play(case, Woken(), now=case.due_at)
    assert sent(decision) == [("identity", "try"), ("unionpay", "try")]


def test_the_last_grant_commits_and_confirms_everywhere() -> None:
    """The commit point is one save; Confirms leave only in the decision that carries it."""
    before = play(trying(), granted("identity", "unionpay"), granted("social")).case
    decision = play(before, granted("wallet"))
    assert (decision.case.state, decision.case.marks) == (State.CONFIRMING, "cccc")
    assert sent(decision) == [(name, "confirm") for name in PLAN.participants]


def test_done_when_every_confirm_is_done() -> None:
    """Done is said only when it is true everywhere."""
    case = play(confirming(), said(Answer.DONE, Op.CONFIRM, "identity", "social", "wallet")).case
    assert (case.state, case.marks) == (State.CONFIRMING, "dcdd")
    case = play(case, said(Answer.DONE, Op.CONFIRM, "unionpay")).case
    assert (case.state, case.marks, case.due_at) == (State.DONE, "dddd", None)


def test_one_refusal_cancels_every_try_that_was_sent() -> None:
    """Cancel goes to whoever may have reserved: all were saved as sent, whatever they answered or were asked."""
    for others in ((), ("identity",)):
        before = play(trying(), granted(*others)).case
        decision = play(before, said(Answer.REFUSED, Op.TRY, "unionpay", code="PAY-PENDING"))
        assert (decision.case.state, decision.case.marks) == (State.CANCELLING, "xxxx")
        assert decision.case.reason == "PAY-PENDING"
        assert sent(decision) == [(name, "cancel") for name in PLAN.participants]


def test_a_grant_does_not_outvote_a_refusal_in_the_same_round() -> None:
    """All granted but one is not granted."""
    before = play(trying(), granted("identity", "unionpay"), granted("social")).case
    decision = play(before, said(Answer.REFUSED, Op.TRY, "wallet"))
    assert (decision.case.state, decision.case.marks, decision.case.reason) == (State.CANCELLING, "xxxx", "refused")


def test_aborted_when_every_cancel_is_done() -> None:
    """A rolled-back case frees the account for the next one only when every participant is released."""
    case = play(cancelling(), said(Answer.DONE, Op.CANCEL, "identity", "social", "wallet")).case
    assert (case.state, case.marks) == (State.CANCELLING, "zxzz")
    case = play(case, said(Answer.DONE, Op.CANCEL, "unionpay")).case
    assert (case.state, case.marks, case.reason, case.due_at) == (State.ABORTED, "zzzz", "HELD", None)


def test_a_wish_wins_over_the_last_grant() -> None:
    """202 was answered: the case may not be committed any more, grants or not."""
    before = play(trying(), granted("identity", "unionpay"), granted("social")).case
    decision = play(msgspec.structs.replace(before, withdraw_at=NOW), granted("wallet"))
    assert (decision.case.state, decision.case.reason) == (State.CANCELLING, "WITHDRAWN")


def test_after_the_commit_point_a_wish_changes_nothing() -> None:
    """The guard should keep such a row from existing; if it did, cancelling would still tear the case apart."""
    case = msgspec.structs.replace(confirming(), withdraw_at=NOW)
    assert play(case, said(Answer.DONE, Op.CONFIRM, *PLAN.participants)).case.state is State.DONE


def test_a_silent_try_is_sent_again_until_the_deadline_then_all_is_cancelled() -> None:
    """A network that fell silent holds a person's money no longer than the limit."""
    case, sends = trying(), 0
    assert case.deadline is not None
    while case.state is State.TRYING:
        assert case.due_at is not None
        assert case.due_at <= case.deadline
        assert play(case, Woken(), now=case.due_at - MOMENT) == Decision(case)
        decision = play(case, Woken(), now=case.due_at)
        case, sends = decision.case, sends + 1
    assert sends > 2
    assert (case.state, case.reason) == (State.CANCELLING, "TRY-TIMED-OUT")
    assert sent(decision) == [(name, "cancel") for name in PLAN.participants]


@pytest.mark.parametrize("answered", [("identity", "unionpay"), ("identity", "unionpay", "social", "wallet")])
def test_a_grant_after_the_deadline_comes_too_late(answered: tuple[str, ...]) -> None:
    """Any time-out before the commit point rolls everything back, even when the missing grant arrives with it."""
    case = trying()
    for name in answered[:-1]:
        case = play(case, granted(name)).case
    assert case.deadline is not None
    decision = play(case, granted(answered[-1]), now=case.deadline)
    assert (decision.case.state, decision.case.reason) == (State.CANCELLING, "TRY-TIMED-OUT")


def test_pending_is_not_an_answer() -> None:
    """An answer of "still working" must neither grant nor refuse nor count against anyone."""
    for case, op in ((trying(), Op.TRY), (confirming(), Op.CONFIRM), (cancelling(), Op.CANCEL)):
        assert play(case, said(Answer.PENDING, op, *PLAN.participants)) == Decision(case)


def test_a_silent_confirm_is_repeated_for_ever_with_growing_waits() -> None:
    """After the commit point nothing gives up, however long a database is down."""
    case, waits = confirming(), []
    for _ in range(40):
        assert case.due_at is not None
        before = case.due_at
        decision = play(case, Woken(), now=before)
        case = decision.case
        assert len(decision.sends) == 4
        assert case.due_at is not None
        waits.append(case.due_at - before)
    assert case.state is State.CONFIRMING
    assert waits == sorted(waits)
    assert waits[-1] == TIMING.resend_limit


@pytest.mark.parametrize(
    ("case", "op", "letters"), [(confirming(), Op.CONFIRM, "ceC"), (cancelling(), Op.CANCEL, "xyX")]
)
@pytest.mark.parametrize("answer", [Answer.ERROR, Answer.STALE, Answer.REFUSED])
def test_the_second_refusal_parks_one_participant_and_the_others_go_on(
    case: Case, op: Op, letters: str, answer: Answer
) -> None:
    """An operator is asked early, and one broken participant holds up nobody else."""
    once = play(case, said(answer, op, "identity", "identity"))
    assert (once.case.marks[0], once.sends) == (letters[1], ())
    assert once.case.due_at is not None
    again = play(once.case, Woken(), now=once.case.due_at)
    assert ("identity", str(op)) in sent(again)
    parked = play(again.case, said(answer, op, "identity")).case
    assert parked.marks[0] == letters[2]
    assert parked.due_at is not None
    others = [name for name, mark in zip(PLAN.participants, parked.marks, strict=True) if mark == letters[0]]
    assert others
    waiting = play(parked, said(Answer.DONE, op, *others)).case
    assert (waiting.state, waiting.due_at) == (case.state, None)
    assert play(waiting, Woken(), now=NOW + timedelta(days=9)) == Decision(waiting)


def test_an_operator_sends_parked_ops_again_and_never_changes_the_decision() -> None:
    """Unparking a Confirm sends a Confirm: no operator can turn a commit into a rollback."""
    parked = msgspec.structs.replace(confirming(), marks="dCdC", due_at=None)
    decision = play(parked, Unparked())
    assert (decision.case.state, decision.case.marks) == (State.CONFIRMING, "dcdc")
    assert sent(decision) == [("unionpay", "confirm"), ("wallet", "confirm")]
    assert decision.case.due_at is not None
    assert play(confirming(), Unparked()).sends == ()


def test_a_done_that_comes_late_counts_for_a_parked_op() -> None:
    """Work that was done is done, whoever had given up on it."""
    parked = msgspec.structs.replace(confirming(), marks="dCdd", due_at=None)
    assert play(parked, said(Answer.DONE, Op.CONFIRM, "unionpay")).case.state is State.DONE


@pytest.mark.parametrize(
    "reply",
    [
        Reply(8, 2, "identity", Op.TRY, Answer.GRANTED),
        Reply(7, 1, "identity", Op.TRY, Answer.REFUSED),
        Reply(7, 3, "identity", Op.TRY, Answer.REFUSED),
        Reply(7, 2, "stranger", Op.TRY, Answer.REFUSED),
        Reply(7, 2, "identity", Op.CANCEL, Answer.DONE),
        Reply(7, 2, "identity", Op.CONFIRM, Answer.ERROR),
        Reply(7, 2, "wallet", Op.TRY, Answer.GRANTED),
        Reply(7, 2, "identity", Op.TRY, Answer.DONE),
    ],
)
def test_a_reply_out_of_place_changes_nothing(reply: Reply) -> None:
    """Another case's, another op's, a stranger's, or one nobody asked for yet: hostile or late, it moves nothing."""
    case = trying()
    assert play(case, Replied((reply,))).case is case


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_case_is_deaf(state: State) -> None:
    """A late reply must not wake the dead."""
    case = opened(state=state, marks="dddd" if state is State.DONE else "....", due_at=None)
    for event in (Woken(), Proven(1), Rechecked(VERSIONS), granted("identity"), Unparked()):
        assert play(case, event, now=NOW + timedelta(days=1)) == Decision(case)


def test_backoff_doubles_up_to_its_limit_however_often_it_is_asked() -> None:
    """An attempt counter that has grown for a year must not overflow the wait."""
    waits = [backoff(attempt, TIMING) for attempt in (*range(20), 10**9)]
    assert waits[:4] == [TIMING.resend * factor for factor in (1, 2, 4, 8)]
    assert waits == sorted(waits)
    assert waits[-1] == TIMING.resend_limit


replies = st.builds(
    Reply,
    st.sampled_from([7, 7, 7, 8]),
    st.sampled_from([2, 2, 2, 1]),
    st.sampled_from([*PLAN.participants, "stranger"]),
    st.sampled_from(Op),
    st.sampled_from([*Answer, Answer.GRANTED, Answer.DONE, Answer.GRANTED, Answer.DONE]),
)
likely = st.sampled_from(
    [
        Woken(),
        granted(*PLAN.participants),
        said(Answer.DONE, Op.CONFIRM, *PLAN.participants),
        said(Answer.DONE, Op.CANCEL, *PLAN.participants),
        said(Answer.ERROR, Op.CONFIRM, *PLAN.participants),
        said(Answer.ERROR, Op.CANCEL, *PLAN.participants),
        Unparked(),
    ]
)
events = st.one_of(
    likely,
    st.builds(Replied, st.lists(replies, max_size=5).map(tuple)),
    st.builds(Proven, st.integers(13, 15)),
    st.builds(
        Rechecked,
        st.fixed_dictionaries({"identity": st.just(11), "social": st.sampled_from([13, None]), "wallet": st.just(14)}),
        st.sampled_from([(), (), ("CREDIT-OPEN",)]),
    ),
)
walks = st.lists(st.tuples(events, st.integers(0, 2500), st.sampled_from([False] * 12 + [True])), max_size=40)
starts = st.sampled_from([opened(), play(opened(), Proven(14)).case, trying(), confirming(), cancelling()])


@given(starts, walks)
def test_any_history_keeps_the_rules(case: Case, walk: list[tuple[Event, int, bool]]) -> None:
    """Whatever arrives in whatever order: the rows the schema admits, one decision, and no send nobody saved."""
    now, committed, rolled_back = NOW, case.state is State.CONFIRMING, case.state is State.CANCELLING
    for event, wait, withdraws in walk:
        now += timedelta(milliseconds=wait)
        if withdraws and case.state in {State.OPEN, State.READY, State.TRYING, State.CANCELLING}:
            case = msgspec.structs.replace(case, withdraw_at=case.withdraw_at or now)
        decision = step(case, PLAN, event, now, TIMING)
        _check(case, decision, now)
        committed |= decision.case.state is State.CONFIRMING
        rolled_back |= decision.case.state is State.CANCELLING
        assert not (committed and rolled_back)
        case = decision.case
    if committed:
        assert case.state in {State.CONFIRMING, State.DONE}


@given(
    st.sampled_from([trying(), play(trying(), granted("identity", "unionpay")).case, confirming(), cancelling()]),
    st.integers(0, 4000),
    st.booleans(),
    st.lists(st.sampled_from([*PLAN.participants, "stranger"]), unique=True),
    st.sampled_from(Op),
)
def test_alike_cases_step_alike(case: Case, wait: int, withdraws: bool, names: list[str], op: Op) -> None:
    """A batch takes one step for everybody: had a case its own fate, it would be lost in the crowd."""
    now = NOW + timedelta(milliseconds=wait)
    if withdraws and case.state is not State.CONFIRMING:
        case = msgspec.structs.replace(case, withdraw_at=NOW)
    answer = Answer.GRANTED if op is Op.TRY else Answer.DONE
    crowd = [
        msgspec.structs.replace(case, account_id=account, case_no=account % 3 + 1, versions=(account, 0, 2, 3))
        for account in (7, 8, 9)
    ]
    assert len({condition_key(one) for one in crowd}) == 1

    def replies(one: Case) -> tuple[Reply, ...]:
        return tuple(Reply(*one.key, name, op, answer) for name in names)

    alone = [step(one, PLAN, Replied(replies(one)), now, TIMING) for one in crowd]
    decision = alone[0]
    assert [msgspec.structs.replace(one, **condition(decision.case)) for one in crowd] == [each.case for each in alone]
    assert {sent(each)[0] if each.sends else None for each in alone} == {sent(decision)[0] if decision.sends else None}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, NOW]),
            st.sampled_from([(), ("PAY-BALANCE",)]),
            st.dictionaries(st.sampled_from([*PLAN.participants, "stranger"]), st.sampled_from([None, 1, 2])),
        ),
        min_size=1,
    ),
    st.sampled_from([1, 2]),
)
def test_who_starts_together_starts_as_alone(
    crowd: list[tuple[datetime | None, tuple[str, ...], dict[str, int | None]]], wallet_version: int
) -> None:
    """Whose re-check found something in the way, or whose money moved, must not be taken along by those who passed.

    People prove themselves each at their own moment, and some have waited for a fact: if that told them apart here,
    everybody would start alone.
    """
    cases = [
        msgspec.structs.replace(
            play(opened(account_id=at), Proven(wallet_version)).case,
            withdraw_at=wish,
            due_at=NOW - at * MOMENT,
            attempt=at % 3,
            reason="FACT-UNAVAILABLE" if at % 3 else None,
        )
        for at, (wish, _, _) in enumerate(crowd, 1)
    ]
    events = [Rechecked(versions, blockers) for _, blockers, versions in crowd]
    alone = [step(case, PLAN, event, NOW, TIMING) for case, event in zip(cases, events, strict=True)]
    versions = [versions_to_start(case, PLAN, event) for case, event in zip(cases, events, strict=True)]
    assert [one.case.state is State.TRYING for one in alone] == [each is not None for each in versions]
    starting = [at for at, each in enumerate(versions) if each is not None]
    if starting:
        of_these = [each for each in versions if each is not None]
        first = events[starting[0]]
        after, decision = start_together([cases[at] for at in starting], PLAN, of_these, first, NOW, TIMING)
        assert after == [alone[at].case for at in starting]
        assert decision == alone[starting[0]]


def test_cases_that_a_step_tells_apart_are_not_alike() -> None:
    """Else a person who withdrew, or whose deadline has come, would be taken along by those who did not."""
    case = trying()
    for change in (
        {"withdraw_at": NOW},
        {"deadline": NOW},
        {"marks": "gttt"},
        {"attempt": 3},
        {"revision": 9},
        {"due_at": NOW},
        {"reason": "X"},
        {"plan": "p/2"},
        {"kind": Kind.CLOSE_PAYMENT},
    ):
        assert condition_key(msgspec.structs.replace(case, **change)) != condition_key(case)


AWAITED = {Op.TRY: "t", Op.CONFIRM: "ce", Op.CANCEL: "xy"}


def _check(before: Case, decision: Decision, now: datetime) -> None:
    after = decision.case
    learnt = before.state is State.TRYING and msgspec.structs.replace(before, marks=after.marks) == after
    assert after is before or learnt or after.revision == before.revision + 1
    assert after.state is before.state or after.state in TRANSITIONS[before.state]
    assert set(after.marks) <= set(MARKS_OF[after.state])
    assert len(after.marks) == len(PLAN.participants)
    assert (after.key, after.plan, after.kind, after.withdraw_at) == (
        before.key,
        before.plan,
        before.kind,
        before.withdraw_at,
    )
    if decision.sends:
        assert after is not before
    for send in decision.sends:
        assert after.marks[PLAN.participants.index(send.participant)] in AWAITED[send.op]
    if after.state is State.CONFIRMING and before.state is State.TRYING:
        assert before.withdraw_at is None
        assert before.deadline is not None
        assert now < before.deadline
    if after.state is State.TRYING:
        assert after.due_at is not None
        assert after.deadline is not None
        assert after.due_at <= after.deadline
    if after.state in ENDED:
        assert after.due_at is None
    parked = after.state in {State.CONFIRMING, State.CANCELLING} and not set(after.marks) & set("cexy")
    assert (after.due_at is None) == (after.state in ENDED or parked)


def test_the_order_of_replies_within_a_round_does_not_matter() -> None:
    """Participants answer concurrently; the outcome may not hang on who is read first."""
    one = [Reply(7, 2, "identity", Op.TRY, Answer.GRANTED), Reply(7, 2, "unionpay", Op.TRY, Answer.REFUSED, "HELD")]
    assert play(trying(), Replied(tuple(one))) == play(trying(), Replied(tuple(reversed(one))))


def test_the_codes_the_person_reads_are_stable() -> None:
    """Packs and pages translate these codes; renaming one would show a bare code again."""
    assert (coordinator.TIMED_OUT, coordinator.FUNDS_MOVED, coordinator.WITHDRAWN) == (
        "TRY-TIMED-OUT",
        "FUNDS-MOVED",
        "WITHDRAWN",
    )
    assert (coordinator.EXPIRED, coordinator.FACT_UNAVAILABLE) == ("EXPIRED", "FACT-UNAVAILABLE")
