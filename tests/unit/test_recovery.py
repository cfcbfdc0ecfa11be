"""Recovery after a restore from backup: whatever is put back to whatever moment, nobody is left in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import ENDED, Case, Kind, State
from jiebang.model.plan import Plan, PlannedOperation
from jiebang.saga.audit import audit
from jiebang.saga.coordinator import FUNDS_MOVED, Replied, Reply, Timing, Woken, step
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op, fence
from jiebang.saga.recovery import (
    OUTCOME_LOST,
    AccountEvidence,
    Recovery,
    RefusalWait,
    RestoredInstallation,
    UndecidedCase,
    UndecidedReason,
    decide_recovery,
)
from tests.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiebang.saga.coordinator import Send

NOW = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
TIMING = Timing()
PARTIES = ("identity", "unionpay", "wallet")
PLAN = Plan(
    name="p/1", participants=PARTIES, waves=(0, 0, 1), operations={"unionpay": PlannedOperation("", {"release": True})}
)
_PATIENCE = 8
TRIED, CONFIRMED, CANCELLED = CaseOp.TRIED, CaseOp.CONFIRMED, CaseOp.CANCELLED


def plans(case: Case) -> Plan:
    return {PLAN.name: PLAN}[case.plan]


def after(
    *databases: str, gap: int = 0, known: Iterable[tuple[Kind, Plan]] = ((Kind.REVOKE, PLAN),)
) -> RestoredInstallation:
    return RestoredInstallation(plan_of=plans, plans=tuple(known), databases=databases, gap=gap)


def of(number: int, state: State, marks: str, **more: Any) -> Case:
    versions = () if state in (State.OPEN, State.READY, State.REJECTED, State.WITHDRAWN) else (1, 0, 3)
    case = Case(
        account_id=7,
        case_no=number,
        kind=Kind.REVOKE,
        state=state,
        plan=PLAN.name,
        marks=marks,
        revision=4,
        created_at=NOW,
        due_at=None if state in ENDED else NOW,
        versions=versions,
        wallet_version=3,
    )
    return msgspec.structs.replace(case, **more)


class Installation:
    """One account's truth in four databases: the platform's cases and each participant's row."""

    def __init__(self) -> None:
        self.last = 0
        self.cases: dict[int, Case] = {}
        self.rows: dict[str, FenceRow] = {}
        self.refusing: set[str] = set()
        self.ops: list[tuple[str, int, Op]] = []

    def seen(self) -> AccountEvidence:
        return AccountEvidence(
            account_id=7, last_case_no=self.last, cases=tuple(self.cases.values()), rows=dict(self.rows)
        )

    def apply(self, send: Send) -> Reply:
        refusal = "BUSINESS" if send.participant in self.refusing else None
        row = self.rows.get(send.participant, NO_ROW)
        verdict = fence(row, send.case_no, send.op, refusal)
        if verdict.write is not None:
            self.rows[send.participant] = verdict.write
            self.ops.append((send.participant, send.case_no, send.op))
        return Reply(7, send.case_no, send.participant, send.op, verdict.answer, verdict.code)

    def recover(self, restored: RestoredInstallation) -> Recovery:
        """Do what the use case does: send and look again until nothing is left to send, then save."""
        for _ in range(100):
            told = decide_recovery(self.seen(), restored, NOW)
            if not told.sends and not told.again:
                break
            assert not (told.sends and [*told.changed, *told.made])
            for case in (*told.changed, *told.made):
                self.cases[case.case_no] = case
            if told.again:
                self.last = max(self.last, told.last_case_no)
            assert len({send.participant for send in told.sends}) == len(told.sends)
            for send in told.sends:
                self.apply(send)
        assert not told.sends, "recovery never comes to an end"
        for case in told.changed:
            assert case.revision == self.cases[case.case_no].revision + 1
            self.cases[case.case_no] = case
        for case in told.made:
            assert case.case_no not in self.cases, "a number was used twice"
            self.cases[case.case_no] = case
        assert told.last_case_no >= max([self.last, *self.cases, *(row.case_no for row in self.rows.values())])
        self.last = told.last_case_no
        return told

    def drive(self) -> None:
        """Let a worker drive what is due, until nothing moves any more."""
        now = NOW
        for saved in [case for case in self.cases.values() if case.state in (State.CONFIRMING, State.CANCELLING)]:
            case = saved
            while case.state not in ENDED and case.due_at is not None:
                now = max(now, case.due_at) + timedelta(milliseconds=1)
                decision = step(case, PLAN, Woken(), now, TIMING)
                while decision.sends:
                    replies = tuple(self.apply(send) for send in decision.sends)
                    decision = step(decision.case, PLAN, Replied(replies), now, TIMING)
                case = decision.case
                if case.attempt > _PATIENCE:
                    break
            self.cases[case.case_no] = case


def installation(*cases: Case, last: int = 0, **rows: tuple[int, CaseOp]) -> Installation:
    one = Installation()
    one.cases = {case.case_no: case for case in cases}
    one.rows = {name: FenceRow(*row) for name, row in rows.items()}
    one.last = max([last, *one.cases])
    return one


def test_one_confirmed_row_proves_the_commit_to_a_platform_that_had_not_heard_of_it() -> None:
    """Else a person's identity is gone in one database and comes back in the others."""
    one = installation(
        of(1, State.TRYING, "ttt", deadline=NOW, withdraw_at=NOW),
        identity=(1, CONFIRMED), unionpay=(1, TRIED), wallet=(1, TRIED),
    )  # fmt: skip
    told = one.recover(after("platform"))
    assert [(case.state, case.marks, case.withdraw_at) for case in told.changed] == [(State.CONFIRMING, "ccc", None)]
    one.drive()
    assert one.cases[1].state is State.DONE
    assert set(one.rows.values()) == {FenceRow(1, CONFIRMED)}


def test_a_lost_case_is_made_again_with_its_number() -> None:
    one = installation(last=3, identity=(4, CONFIRMED), unionpay=(4, TRIED), wallet=(4, CONFIRMED))
    told = one.recover(after("platform", gap=10))
    [case] = told.made
    assert (case.case_no, case.state, case.plan, case.revision) == (4, State.CONFIRMING, "p/1", 1)
    assert told.last_case_no == 14, "numbers that the lost time gave are stepped over"


def test_tried_rows_of_a_lost_case_are_let_go() -> None:
    one = installation(last=3, identity=(4, TRIED), unionpay=(4, TRIED))
    told = one.recover(after("platform"))
    assert [(case.state, case.reason) for case in told.made] == [(State.CANCELLING, "RECOVERED")]
    one.drive()
    assert one.cases[4].state is State.ABORTED
    assert {row.case_op for row in one.rows.values()} == {CANCELLED}, "the wallet, too, knows that nothing is to come"


def test_a_participant_put_back_before_two_done_cases_takes_both_again_in_order() -> None:
    """A plain Confirm would be answered by an error, and the newer case first would shut out the older."""
    one = installation(
        of(1, State.DONE, "ddd"), of(2, State.ABORTED, "zzz", reason="X"), of(3, State.DONE, "ddd"),
        identity=(3, CONFIRMED), unionpay=(3, CONFIRMED),
    )  # fmt: skip
    told = one.recover(after("wallet"))
    assert one.ops == [
        ("wallet", 1, Op.TRY), ("wallet", 1, Op.CONFIRM), ("wallet", 2, Op.CANCEL),
        ("wallet", 3, Op.TRY), ("wallet", 3, Op.CONFIRM),
    ]  # fmt: skip
    assert not [*told.changed, *told.made, *told.undecided]


def test_a_try_that_is_refused_again_is_parked_and_the_others_go_on() -> None:
    one = installation(of(1, State.CONFIRMING, "cdd"), identity=(1, TRIED), unionpay=(1, CONFIRMED))
    one.refusing = {"wallet"}
    told = one.recover(after("wallet"))
    assert told.undecided == (UndecidedCase(7, 1, UndecidedReason.CANNOT_CONFIRM, ("identity", "wallet")),)
    assert one.cases[1].marks == "cdC"
    one.drive()
    assert (one.cases[1].state, one.cases[1].marks) == (State.CONFIRMING, "ddC")


def test_a_decision_and_a_row_that_exclude_each_other_are_an_operators() -> None:
    one = installation(of(1, State.CANCELLING, "xxx"), identity=(1, CONFIRMED), unionpay=(1, TRIED))
    told = one.recover(after("platform"))
    assert [each.why for each in told.undecided] == [UndecidedReason.CONTRADICTED]
    assert not one.ops
    assert one.cases[1].due_at is None, "no worker may go on cancelling"


def test_an_outcome_that_nobody_holds_is_not_guessed() -> None:
    """The wallet was put back into case 1; the others have gone on and no longer say how it ended."""
    one = installation(identity=(2, CANCELLED), unionpay=(2, CANCELLED), wallet=(1, TRIED))
    told = one.recover(after("platform", "wallet"))
    assert UndecidedCase(7, 1, UndecidedReason.OUTCOME_LOST, ("wallet",)) in told.undecided
    assert one.rows["wallet"] == FenceRow(1, TRIED)
    assert not one.ops


def test_a_record_whose_end_was_lost_no_longer_shuts_its_person_out() -> None:
    """The platform was put back to when case 1 was open; case 2 came after it, so case 1 ended, one way or another."""
    one = installation(of(1, State.OPEN, "..."), identity=(2, TRIED), unionpay=(2, CONFIRMED), wallet=(2, CONFIRMED))
    told = one.recover(after("platform"))
    assert [each.why for each in told.undecided] == [UndecidedReason.OUTCOME_LOST]
    assert (one.cases[1].state, one.cases[1].reason) == (State.REJECTED, OUTCOME_LOST)
    assert one.cases[2].state is State.CONFIRMING


def test_nothing_is_sent_past_a_case_that_is_not_decided() -> None:
    """Else the wallet goes on to case 2, and when it is found out that case 1 was done, the wallet can never do it."""
    one = installation(identity=(1, TRIED), unionpay=(2, CONFIRMED))
    told = one.recover(after("platform", "identity", "wallet"))
    assert not one.ops
    assert [(case.case_no, case.marks) for case in told.made] == [(2, "CcC")]
    assert {(each.case_no, each.why) for each in told.undecided} == {
        (1, UndecidedReason.OUTCOME_LOST),
        (2, UndecidedReason.WAITS_BELOW),
    }


def test_a_case_that_is_not_decided_stays_the_accounts_only_live_one() -> None:
    one = installation(of(1, State.TRYING, "ttt", deadline=NOW), identity=(1, TRIED), unionpay=(2, TRIED))
    told = one.recover(after("platform", "identity", "wallet"))
    assert not told.made
    assert one.cases[1].due_at is None
    assert {(each.case_no, each.why) for each in told.undecided} == {
        (1, UndecidedReason.OUTCOME_LOST),
        (2, UndecidedReason.WAITS_BELOW),
    }


def test_what_was_answered_and_forgotten_is_asked_again() -> None:
    """A participant put back to its Try would keep a person's identity pending for ever."""
    one = installation(of(1, State.CONFIRMING, "ddC"), identity=(1, TRIED), unionpay=(1, CONFIRMED), wallet=(1, TRIED))
    one.recover(after("identity"))
    assert one.cases[1].marks == "cdC", "what an operator has to look at stays parked"


def test_one_confirmed_row_proves_the_end_of_a_case_gone_by() -> None:
    one = installation(
        of(1, State.TRYING, "ttt", deadline=NOW),
        identity=(2, CANCELLED),
        unionpay=(1, CONFIRMED),
        wallet=(2, CANCELLED),
    )
    told = one.recover(after("platform", "unionpay"))
    assert [(case.case_no, case.state) for case in told.changed] == [(1, State.DONE)]
    assert not told.undecided


def test_one_cancelled_row_proves_that_a_case_gone_by_was_broken_off() -> None:
    one = installation(identity=(2, CANCELLED), unionpay=(1, CANCELLED), wallet=(2, CANCELLED))
    told = one.recover(after("platform", "unionpay"))
    assert [(case.case_no, case.state) for case in told.made] == [(1, State.ABORTED), (2, State.CANCELLING)]
    assert not told.undecided


@pytest.mark.parametrize("restored", [("platform",), ("wallet",)])
def test_a_version_from_before_the_wallets_restore_is_worth_nothing(restored: tuple[str, ...]) -> None:
    one = installation(of(1, State.READY, "..."))
    one.recover(after(*restored))
    expected = (State.REJECTED, FUNDS_MOVED) if restored == ("wallet",) else (State.READY, None)
    assert (one.cases[1].state, one.cases[1].reason) == expected


CLOSE = Plan(
    name="p/1",
    participants=("unionpay", "wallet"),
    waves=(0, 1),
    operations={"unionpay": PlannedOperation("", {"release": False})},
)


def test_which_of_two_kinds_a_lost_case_was_is_deduced_or_asked_never_guessed() -> None:
    both = ((Kind.REVOKE, PLAN), (Kind.CLOSE_PAYMENT, CLOSE))
    told = installation(unionpay=(1, CONFIRMED), wallet=(1, CONFIRMED)).recover(after("platform", known=both))
    assert [case.kind for case in told.made] == [Kind.CLOSE_PAYMENT], "identity was not restored and never took it"
    told = installation(unionpay=(1, CONFIRMED), wallet=(1, CONFIRMED)).recover(
        after("platform", "identity", known=both)
    )
    assert not told.made
    assert [each.why for each in told.undecided] == [UndecidedReason.PLAN_LOST]
    one = installation(unionpay=(1, TRIED))
    told = one.recover(after("platform", known=both))
    assert one.rows["unionpay"] == FenceRow(1, CANCELLED), "what it reserved is let go whatever it was"
    assert [each.why for each in told.undecided] == [UndecidedReason.PLAN_LOST]


def test_no_later_case_passes_one_whose_plan_is_still_to_be_found_in_its_papers() -> None:
    both = ((Kind.REVOKE, PLAN), (Kind.CLOSE_PAYMENT, CLOSE))
    one = installation(unionpay=(2, CONFIRMED), wallet=(3, CONFIRMED))
    known = after("platform", "identity", "unionpay", known=both)
    third = msgspec.structs.replace(known, papers={(7, 3): "revoke@p/1"})
    told = one.recover(third)
    assert (UndecidedReason.PLAN_LOST, 2) in [(each.why, each.case_no) for each in told.undecided]
    assert "identity" not in one.rows, "its 2, if it had one, could never be confirmed any more"
    told = one.recover(msgspec.structs.replace(third, papers={(7, 2): "revoke@p/1", **third.papers}))
    assert ("identity", 2, Op.CONFIRM) in one.ops
    assert not told.undecided


class History(Installation):
    """A true history, every moment of it kept as a backup could have kept it."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[tuple[int, dict[int, Case], dict[str, FenceRow]]] = []
        self.keep()

    def keep(self) -> None:
        self.moments.append((self.last, dict(self.cases), dict(self.rows)))

    def save(self, case: Case) -> None:
        self.last = max(self.last, case.case_no)
        self.cases[case.case_no] = case
        self.keep()

    def live_through(self, outcome: str, order: Iterable[str]) -> None:
        number, order = self.last + 1, list(order)
        self.save(of(number, State.OPEN, "..."))
        if outcome == "withdrawn":
            return self.save(of(number, State.WITHDRAWN, "...", withdraw_at=NOW))
        self.save(of(number, State.READY, "..."))
        self.save(of(number, State.TRYING, "ttt", deadline=NOW))
        for name in order[: None if outcome == "done" else 2]:
            self.refusing = {name} if outcome == "refused" and name == order[1] else set()
            self.op(name, number, Op.TRY)
        self.refusing = set()
        done = outcome == "done"
        self.save(of(number, State.CONFIRMING if done else State.CANCELLING, "ccc" if done else "xxx", reason="R"))
        for name in reversed(order):
            self.op(name, number, Op.CONFIRM if done else Op.CANCEL)
        return self.save(of(number, State.DONE if done else State.ABORTED, "ddd" if done else "zzz", reason="R"))

    def op(self, name: str, number: int, op: Op) -> None:
        row = self.rows.get(name, NO_ROW)
        refusal = "NO" if name in self.refusing else None
        self.rows[name] = fence(row, number, op, refusal).write or row
        self.keep()

    def restored(self, now: float, back: dict[str, float]) -> tuple[Installation, dict[int, str]]:
        """The installation with each database of `back` put back to its moment; and how each case truly stood."""
        moment = round(now * (len(self.moments) - 1))
        at = {name: round(part * moment) for name, part in back.items()}
        one = Installation()
        one.last, one.cases = (
            self.moments[at.get("platform", moment)][0],
            dict(self.moments[at.get("platform", moment)][1]),
        )
        for name in PARTIES:
            row = self.moments[at.get(name, moment)][2].get(name)
            if row is not None:
                one.rows[name] = row
        truth = {number: case.state for number, case in self.moments[moment][1].items()}
        return one, {number: state.value for number, state in truth.items()}


histories = st.lists(
    st.tuples(st.sampled_from(["done", "aborted", "refused", "withdrawn"]), st.permutations(PARTIES)), max_size=4
)


@examples(400)
@given(
    histories,
    st.floats(0, 1),
    st.dictionaries(st.sampled_from(["platform", *PARTIES]), st.floats(0, 1)),
    st.sets(st.sampled_from(PARTIES)),
)
def test_whatever_is_put_back_nobody_is_left_in_between(
    lived: list[tuple[str, list[str]]], now: float, back: dict[str, float], refusing: set[str]
) -> None:
    """All or nothing, for every case that is not handed to an operator; and nothing that was proven is turned round."""
    history = History()
    for outcome, order in lived:
        history.live_through(outcome, order)
    one, truth = history.restored(now, back)
    proven = {row.case_no for row in one.rows.values() if row.case_op is CONFIRMED} | {
        case.case_no for case in one.cases.values() if case.state in (State.CONFIRMING, State.DONE)
    }
    one.refusing = refusing
    told = one.recover(after(*back))
    for name, number, op in one.ops:
        assert (op is Op.CANCEL) != (number in proven), f"{name} was told {op} of case {number}"
        assert op is Op.CANCEL or truth[number] in ("confirming", "done"), f"case {number} never reached its commit"
    assert sum(case.state not in ENDED for case in one.cases.values()) <= 1
    lost = {each.case_no for each in told.undecided if each.why is UndecidedReason.OUTCOME_LOST}
    assert not lost & proven, "an outcome that somebody could prove was handed to people"
    again = decide_recovery(one.seen(), after(*back), NOW)
    assert not [*again.sends, *again.changed, *again.made], "recovery never has enough"
    one.drive()
    theirs = {each.case_no for each in told.undecided}
    for violation in audit(one.cases.values(), _whole(one.rows), plans):
        assert violation.case_no in theirs, f"{violation} is left to nobody"
    for number, case in one.cases.items():
        if number not in theirs:
            assert case.state in ENDED or case.state in (State.OPEN, State.READY), f"case {number} never ends"
            assert (case.state is State.DONE) == (number in proven)
    assert not (theirs and not back), "nothing was restored, and nothing is an operator's"


def _whole(rows: dict[str, FenceRow]) -> dict[str, dict[int, FenceRow]]:
    return {name: {7: row} for name, row in rows.items()} | {name: {} for name in PARTIES if name not in rows}


@examples(200)
@given(
    histories, st.floats(0, 1), st.dictionaries(st.sampled_from(["platform", *PARTIES]), st.floats(0, 1), max_size=1)
)
def test_one_database_put_back_leaves_no_outcome_open(
    lived: list[tuple[str, list[str]]], now: float, back: dict[str, float]
) -> None:
    """The common mishap, one backup, is decided without people: all that is lost is the record of a case gone by."""
    history = History()
    for outcome, order in lived:
        history.live_through(outcome, order)
    one, _ = history.restored(now, back)
    told = one.recover(after(*back))
    assert {each.why for each in told.undecided} <= {UndecidedReason.OUTCOME_LOST}
    one.drive()
    assert all(case.state in ENDED or case.state in (State.OPEN, State.READY) for case in one.cases.values())
    assert not audit(one.cases.values(), _whole(one.rows), plans)


MOVING = "MOVING"


def waiting(seconds: float, **refusals: str) -> Recovery:
    """Case 1 was done; the wallet forgot it, and it has been waited for."""
    one = installation(of(1, State.CONFIRMING, "ddd"), identity=(1, CONFIRMED), unionpay=(1, CONFIRMED))
    seen = msgspec.structs.replace(one.seen(), refusals=refusals, waited=timedelta(seconds=seconds))
    restored = msgspec.structs.replace(after("wallet"), passing=(MOVING,), patience=timedelta(seconds=60))
    return decide_recovery(seen, restored, NOW)


def test_what_clears_by_itself_is_waited_for_and_nothing_is_sent_or_saved_meanwhile() -> None:
    """A Try sent to a wallet whose money moves would be refused for ever."""
    told = waiting(59, wallet=MOVING)
    assert told.waits == (RefusalWait(7, 1, "wallet", MOVING),)
    assert not [*told.sends, *told.changed, *told.undecided]
    assert [send.op for send in waiting(59).sends] == [Op.TRY], "and when it has cleared it is tried"


@pytest.mark.parametrize(("seconds", "code"), [(60, MOVING), (0, "NO-IDENTITY")])
def test_what_does_not_clear_is_an_operators_and_the_row_stays_free(seconds: float, code: str) -> None:
    """Nobody would ever look at it else; and a mark in the row would shut the case out of this wallet for good."""
    told = waiting(seconds, wallet=code)
    assert told.undecided == (UndecidedCase(7, 1, UndecidedReason.CANNOT_TRY, ("wallet",), (code,)),)
    assert [case.marks for case in told.changed] == ["ddC"]
    assert not [*told.sends, *told.waits]


def test_what_recovery_parked_goes_on_when_it_could_be_tried_after_all() -> None:
    """Else an operator who cleared the reason would have to know that a retry is needed as well."""
    one = installation(of(1, State.CONFIRMING, "ddC", due_at=None), identity=(1, CONFIRMED), unionpay=(1, CONFIRMED))
    one.recover(after("wallet"))
    assert (one.cases[1].marks, one.cases[1].due_at) == ("ddc", NOW)


def test_who_forgot_nothing_and_never_came_to_a_case_proves_that_it_was_not_committed() -> None:
    """Else a person is asked about a case that was withdrawn before anybody heard of it."""
    one = installation(of(2, State.OPEN, "..."), identity=(3, CANCELLED), unionpay=(3, TRIED))
    told = one.recover(after("platform"))
    assert (one.cases[2].state, told.undecided) == (State.ABORTED, ())


def test_a_case_that_the_platform_and_one_participant_forgot_is_not_passed_by() -> None:
    """Identity and cards were done with case 1 and have gone on; nobody else would tell that the wallet lacks it."""
    one = installation(identity=(2, TRIED), unionpay=(2, TRIED))
    told = one.recover(after("platform", "wallet", gap=5))
    assert UndecidedCase(7, 1, UndecidedReason.OUTCOME_LOST, ("wallet",)) in told.undecided
    assert one.cases[2].marks == "xxX", "and nothing is sent past it"
    later = msgspec.structs.replace(one.seen(), theirs=(1,))
    assert 1 in {each.case_no for each in decide_recovery(later, after("platform", "wallet"), NOW).undecided}
    one.last = 1
    assert one.recover(after("platform", "wallet", gap=5)).undecided == (), "what the platform knows of was no case"


def test_a_forgotten_case_is_still_looked_for_when_the_end_of_one_below_has_been_saved() -> None:
    """Saving case 1 first must not raise the number over case 2: nobody would be told that the wallet lacks it."""
    one = installation(of(1, State.TRYING, "ttt"), identity=(3, TRIED), unionpay=(3, TRIED), wallet=(1, CANCELLED))
    either = ((Kind.REVOKE, PLAN), (Kind.CLOSE_PAYMENT, PLAN))
    told = one.recover(after("platform", "wallet", gap=5, known=either))
    assert one.cases[1].state is State.ABORTED
    assert UndecidedCase(7, 2, UndecidedReason.OUTCOME_LOST, ("wallet",)) in told.undecided
    assert one.rows["wallet"] == FenceRow(1, CANCELLED), "and nothing is sent past it"


@pytest.mark.parametrize(("committed", "ops"), [(True, [Op.TRY, Op.CONFIRM]), (False, [])])
def test_what_people_found_out_about_a_forgotten_case_is_carried_out(committed: bool, ops: list[Op]) -> None:
    """A finding that nobody can act on leaves the wallet as it is for ever."""
    one = installation(identity=(2, TRIED), unionpay=(2, TRIED))
    found = msgspec.structs.replace(after("platform", "wallet", gap=5), outcomes={(7, 1): committed})
    told = one.recover(found)
    assert [op for name, number, op in one.ops if (name, number) == ("wallet", 1)] == ops
    assert told.undecided == ()
    one.drive()
    assert one.cases[2].state is State.ABORTED


def test_what_people_found_out_does_not_outweigh_what_is_proven() -> None:
    one = installation(of(1, State.TRYING, "ttt", deadline=NOW), identity=(1, CONFIRMED), unionpay=(2, CANCELLED))
    found = msgspec.structs.replace(after("platform", "wallet"), outcomes={(7, 1): False})
    one.recover(found)
    assert ("wallet", 1, Op.CONFIRM) in one.ops


def test_papers_say_what_a_lost_case_was() -> None:
    both = ((Kind.REVOKE, PLAN), (Kind.CLOSE_PAYMENT, msgspec.structs.replace(CLOSE, name="p/2")))
    one = installation(unionpay=(1, CONFIRMED), wallet=(1, CONFIRMED))
    known = after("platform", "identity", known=both)
    told = decide_recovery(one.seen(), msgspec.structs.replace(known, papers={(7, 1): "close_payment@p/2"}), NOW)
    assert [case.kind for case in told.made] == [Kind.CLOSE_PAYMENT]
