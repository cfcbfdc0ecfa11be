"""A network's ledger: the fence kept on disk, bindings that move with it, and what a fault does to which request."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jiebang.remote.signing import RequestParameters
from jiebang.remote.wire import CaseOutcome
from jiebang.saga.fence import NO_ROW, CaseOp, FenceRow, Op, fence
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault, Phase, strike
from jiebang.sandbox.ledger import Binding, BindingState, Ledger

REQUEST = RequestParameters("0123456789abcdef", 2_000_000_000)
STATE_OF = {
    CaseOp.TRIED: BindingState.RELEASING,
    CaseOp.CONFIRMED: BindingState.RELEASED,
    CaseOp.CANCELLED: BindingState.BOUND,
}


def nothing() -> None:
    """Do nothing before the commit."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "unionpay.sqlite")
    yield opened
    opened.close()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(Op),
            st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=6),
            st.dictionaries(st.integers(1, 3), st.just("NETWORK-HOLD")),
        ),
        max_size=12,
    )
)
def test_the_file_holds_what_the_fence_and_the_rules_of_bindings_say(
    batches: list[tuple[Op, list[tuple[int, int]], dict[int, str]]],
) -> None:
    """Whatever comes, in whatever order: rows read back after reopening, and bindings, follow the fence alone."""
    rows = dict.fromkeys((1, 2, 3), NO_ROW)
    bound = dict.fromkeys(rows, BindingState.BOUND)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.sqlite"
        ledger = Ledger(path)
        ledger.bind([Binding(str(account), "card-1", "card") for account in rows], REQUEST)
        for op, cases, refusals in batches:
            results = ledger.apply(op, cases, refusals, REQUEST, nothing)
            for (account, case_no), result in zip(cases, results, strict=True):
                verdict = fence(rows[account], case_no, op, refusals.get(account))
                if verdict.write is not None:
                    was, rows[account] = rows[account], verdict.write
                    reserved = was.case_op is CaseOp.TRIED
                    if verdict.write.case_op is CaseOp.TRIED:
                        bound[account] = (
                            BindingState.RELEASING if bound[account] is BindingState.BOUND else bound[account]
                        )
                    elif reserved and bound[account] is BindingState.RELEASING:
                        bound[account] = STATE_OF[verdict.write.case_op]
                assert (result.row.case_no, result.row.case_op) == (rows[account].case_no, rows[account].case_op)
                assert (result.code, result.outcome is CaseOutcome.REFUSED) == (verdict.code, verdict.code is not None)
        ledger.close()
        again = Ledger(path)
        held = {int(row.account): FenceRow(row.case_no, row.case_op) for row in again.look([1, 2, 3])}
        assert held == {account: row for account, row in rows.items() if row is not NO_ROW}
        assert {int(one.account): one.bindings[0].state for one in again.state([1, 2, 3])} == bound
        again.close()


def test_a_batch_that_fails_before_its_commit_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Half a batch on disk would be a fence row without its binding, or the other way round."""
    ledger.bind([Binding("1", "card-1", "card")], REQUEST)

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ledger.apply(Op.TRY, [(1, 1), (2, 1)], {}, RequestParameters("another-nonce-1234", 1), fail)
    reader = Ledger(tmp_path / "unionpay.sqlite")
    assert reader.look([1, 2]) == []
    assert reader.state([1])[0].bindings[0].state is BindingState.BOUND
    assert set(reader.nonces()) == {REQUEST.nonce}
    reader.close()
    (result,) = ledger.apply(Op.TRY, [(1, 1)], {}, REQUEST, nothing)
    assert result.outcome is CaseOutcome.GRANTED


def test_nonces_outlive_the_process_and_go_when_they_can_no_longer_be_played(ledger: Ledger) -> None:
    """Forgotten too early a request could be played again; never forgotten the file would grow for ever."""
    ledger.apply(Op.CANCEL, [(1, 1)], {}, RequestParameters("first-nonce-000000", 10_000), nothing)
    ledger.apply(Op.CANCEL, [(1, 1)], {}, RequestParameters("second-nonce-00000", 10_030), nothing)
    assert ledger.nonces() == {"first-nonce-000000": 10_000, "second-nonce-00000": 10_030}
    ledger.apply(Op.CANCEL, [(1, 1)], {}, RequestParameters("much-later-nonce-0", 99_999), nothing)
    assert ledger.nonces() == {"much-later-nonce-0": 99_999}


def test_counted_faults_run_out_by_request_or_by_refused_case() -> None:
    """A story that wants one silence would otherwise get another, or none."""
    silent = NetworkFault(FaultKind.SILENT, count=2)
    suffered, left = strike([silent], FaultOp.CONFIRM, [1, 2, 3])
    assert (suffered.silent, left) == (Phase.BEFORE, (msgspec.structs.replace(silent, count=1),))
    assert strike(left, FaultOp.LOOK, [1])[1] == ()
    refuse = NetworkFault(FaultKind.REFUSE, code="NO", count=2)
    suffered, left = strike([refuse], FaultOp.TRY, [1, 2, 3])
    assert (suffered.refusals, left) == ({1: "NO", 2: "NO"}, ())
    assert strike([refuse], FaultOp.CONFIRM, [1]) == (strike([], FaultOp.CONFIRM, [1])[0], (refuse,))


def test_a_fault_passes_by_those_it_is_not_meant_for() -> None:
    """Trouble for one person of a demo must leave the others in peace."""
    fault = NetworkFault(FaultKind.DIE, ops=(FaultOp.TRY,), accounts=("5",))
    assert strike([fault], FaultOp.TRY, [5, 6])[0].die is Phase.BEFORE
    for op, accounts in ((FaultOp.TRY, [6]), (FaultOp.CONFIRM, [5]), (FaultOp.TRY, [])):
        assert strike([fault], op, accounts)[0].die is None
    nobody = NetworkFault(FaultKind.TWICE, share=0)
    assert not strike([nobody], FaultOp.TRY, list(range(1, 100)))[0].twice


@pytest.mark.parametrize(
    "fault",
    [{"kind": "slow"}, {"kind": "silent", "phase": "during"}, {"kind": "refuse", "ops": ["cancel"]}, {"kind": "flood"}],
)
def test_a_fault_that_would_do_nothing_is_refused(fault: dict[str, object]) -> None:
    """A test that switches on a fault that cannot strike would pass for nothing."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fault, NetworkFault)


def test_of_several_lies_one_is_told_at_a_time() -> None:
    """Lies on top of each other would hide which of them the platform was put to the test with."""
    lies = [NetworkFault(FaultKind.STRANGE, count=1), NetworkFault(FaultKind.DENY, count=1)]
    suffered, left = strike(lies, FaultOp.CONFIRM, [1])
    assert (suffered.lie, left) == (FaultKind.STRANGE, (lies[1],))
    assert strike(left, FaultOp.TRY, [1]) == (strike([], FaultOp.TRY, [1])[0], left), "a Try is not denied"
    assert strike(left, FaultOp.CONFIRM, [1])[0].lie is FaultKind.DENY
