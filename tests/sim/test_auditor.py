"""The judge itself: it stays silent over an honest history and speaks up at each broken promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.auditor import FREE, Auditor, Row, ViolationError

NAMES, WAVES = ("identity", "wallet"), (0, 1)
A, OTHER = 7, 8


def write(judge: Auditor, no: int, name: str, op: str, before: Row, after: Row, statuses: tuple[str, str]) -> None:
    answer = "granted" if after[1] == "tried" else "done"
    judge.answered(A, no, name, op, answer, (before, after), statuses, (1, False))


def opened() -> Auditor:
    judge = Auditor()
    judge.opened(A, 100)
    judge.opened(OTHER, 50)
    judge.submitted(A, 1, NAMES, WAVES)
    return judge


def nothing() -> Auditor:
    judge = Auditor()
    judge.opened(A, 0)
    return judge


def overpaid() -> Auditor:
    judge = nothing()
    judge.moved(A, 4, 10, 10, (1, 2))
    return judge


def ready() -> Auditor:
    judge = opened()
    judge.proof_read(A, 1, 1)
    judge.saved(A, 1, "ready", "..", (), 1, False)
    return judge


def trying() -> Auditor:
    judge = ready()
    judge.saved(A, 1, "trying", "tt", (1, 1), 1, False)
    judge.sent(A, 1, "identity", "try")
    return judge


def half_granted() -> Auditor:
    judge = trying()
    write(judge, 1, "identity", "try", FREE, (1, "tried"), ("bound", "pending"))
    judge.saved(A, 1, "trying", "gt", (1, 1), 1, False)
    judge.sent(A, 1, "wallet", "try")
    return judge


def granted() -> Auditor:
    judge = half_granted()
    write(judge, 1, "wallet", "try", FREE, (1, "tried"), ("bound", "pending"))
    return judge


def committed() -> Auditor:
    judge = granted()
    judge.saved(A, 1, "confirming", "cc", (1, 1), 1, False)
    return judge


def test_an_honest_history_passes_to_its_end() -> None:
    """A judge that cries at everything proves nothing."""
    judge = committed()
    for name in NAMES:
        judge.sent(A, 1, name, "confirm")
        write(judge, 1, name, "confirm", (1, "tried"), (1, "confirmed"), ("pending", "reclaimed"))
    judge.saved(A, 1, "done", "dd", (1, 1), 1, False)
    judge.withdrawal_answered(A, 1, 409)
    judge.moved(OTHER, 1, -10, 40, (1, 2))
    judge.moved(A, 1, 10, 110, (1, 2))
    judge.finished([(A, name, (1, "confirmed"), "reclaimed") for name in NAMES], [(A, 110), (OTHER, 40)])


BROKEN: list[tuple[str, Callable[[], Auditor], Callable[[Auditor], None]]] = [
    ("is still open", opened, lambda judge: judge.submitted(A, 2, NAMES, WAVES)),
    ("its number is not above 1", opened, lambda judge: judge.submitted(A, 1, NAMES, WAVES)),
    ("open became trying", opened, lambda judge: judge.saved(A, 1, "trying", "tt", (1, 1), 1, False)),
    ("was never read for its proof", opened, lambda judge: judge.saved(A, 1, "ready", "..", (), 1, False)),
    ("trying with marks t.", ready, lambda judge: judge.saved(A, 1, "trying", "t.", (1, 1), 1, False)),
    ("tried before identity", trying, lambda judge: judge.sent(A, 1, "wallet", "try")),
    ("has not granted", trying, lambda judge: judge.saved(A, 1, "trying", "gt", (1, 1), 1, False)),
    ("confirm sent to identity before", trying, lambda judge: judge.sent(A, 1, "identity", "confirm")),
    ("cancel sent to identity before", trying, lambda judge: judge.sent(A, 1, "identity", "cancel")),
    ("try sent to identity before", ready, lambda judge: judge.sent(A, 1, "identity", "try")),
    ("without the grant", half_granted, lambda judge: judge.saved(A, 1, "confirming", "cc", (1, 1), 1, False)),
    ("after its deadline", granted, lambda judge: judge.saved(A, 1, "confirming", "cc", (1, 1), 1, True)),
    ("confirming became cancelling", committed, lambda judge: judge.saved(A, 1, "cancelling", "xx", (1, 1), 1, False)),
    ("has not confirmed", committed, lambda judge: judge.saved(A, 1, "done", "dd", (1, 1), 1, False)),
    ("was answered 202", committed, lambda judge: judge.withdrawal_answered(A, 1, 202)),
    ("was answered 409", trying, lambda judge: judge.withdrawal_answered(A, 1, 409)),
    ("never ended", trying, lambda judge: judge.finished([], [])),
    ("money moved between", granted, lambda judge: judge.moved(A, 1, 0, 100, (1, 2))),
    ("version did not rise", opened, lambda judge: judge.moved(A, 1, 0, 100, (1, 1))),
    ("its balance is 90", opened, lambda judge: judge.moved(A, 1, -9, 90, (1, 2))),
    ("its balance is -1", opened, lambda judge: judge.moved(A, 1, -101, -1, (1, 2))),
    (
        "explained by no op",
        nothing,
        lambda judge: judge.finished([(A, "identity", (3, "cancelled"), "bound")], []),
    ),
    ("made or lost 10 fen", overpaid, lambda judge: judge.finished([], [])),
    (
        "before the commit point",
        granted,
        lambda judge: write(judge, 1, "identity", "confirm", (1, "tried"), (1, "confirmed"), ("pending", "reclaimed")),
    ),
    (
        "cancelled after the commit point",
        committed,
        lambda judge: write(judge, 1, "identity", "cancel", (1, "tried"), (1, "cancelled"), ("pending", "bound")),
    ),
    (
        "changed with no op",
        trying,
        lambda judge: write(judge, 1, "identity", "try", (0, "confirmed"), (1, "tried"), ("bound", "pending")),
    ),
    (
        "granted at version 2",
        trying,
        lambda judge: judge.answered(
            A, 1, "identity", "try", "granted", (FREE, (1, "tried")), ("bound", "pending"), (2, False)
        ),
    ),
    (
        "stood in the way",
        trying,
        lambda judge: judge.answered(
            A, 1, "identity", "try", "granted", (FREE, (1, "tried")), ("bound", "pending"), (1, True)
        ),
    ),
    (
        "left no mark",
        trying,
        lambda judge: judge.answered(A, 1, "identity", "try", "refused", (FREE, FREE), ("bound", "bound"), (1, False)),
    ),
    (
        "without a mark",
        trying,
        lambda judge: judge.answered(
            A, 1, "identity", "try", "pending", (FREE, FREE), ("bound", "pending"), (1, False)
        ),
    ),
    (
        "a case that does not exist",
        trying,
        lambda judge: judge.answered(A, 9, "identity", "try", "pending", (FREE, FREE), ("bound", "bound"), (1, False)),
    ),
]


@pytest.mark.parametrize(("complaint", "history", "breaks"), BROKEN, ids=[one[0] for one in BROKEN])
def test_it_speaks_up(complaint: str, history: Callable[[], Auditor], breaks: Callable[[Auditor], None]) -> None:
    """Each of the judge's rules is one that can fail."""
    judge = history()
    with pytest.raises(ViolationError, match=complaint):
        breaks(judge)


def test_a_promised_withdrawal_forbids_the_commit() -> None:
    """202 was answered before the commit point: `done` is no longer an option."""
    judge = granted()
    judge.withdrawal_answered(A, 1, 202)
    with pytest.raises(ViolationError, match="withdrawal was promised"):
        judge.saved(A, 1, "confirming", "cc", (1, 1), 1, False)


def test_money_moved_since_the_last_proof_forbids_the_wallets_grant() -> None:
    """Money first, whatever version the wallet claims to be at."""
    judge = half_granted()
    judge.moved(A, 1, 0, 100, (1, 2))
    with pytest.raises(ViolationError, match="since the last proof"):
        write(judge, 1, "wallet", "try", FREE, (1, "tried"), ("bound", "pending"))


def test_a_case_may_not_end_while_a_try_is_still_held_or_could_still_be_granted() -> None:
    """A person whose case "ended" must not stay locked at one participant, now or when a late message arrives."""
    held = granted()
    held.saved(A, 1, "cancelling", "xx", (1, 1), 1, False)
    for name in NAMES:
        held.sent(A, 1, name, "cancel")
    write(held, 1, "identity", "cancel", (1, "tried"), (1, "cancelled"), ("pending", "bound"))
    with pytest.raises(ViolationError, match="wallet is marked cancelled and is not"):
        held.saved(A, 1, "aborted", "zz", (1, 1), 1, False)
    late = trying()
    late.saved(A, 1, "cancelling", "xx", (1, 1), 1, False)
    with pytest.raises(ViolationError, match="identity is marked cancelled and is not"):
        late.saved(A, 1, "aborted", "zz", (1, 1), 1, False)


@pytest.mark.parametrize("history", [opened, trying, granted, committed])
def test_its_memory_can_be_put_away_and_taken_up(history: Callable[[], Auditor]) -> None:
    """The walk compares memories: two histories the judge cannot tell apart must be one state, no more and no less."""
    judge, other = history(), Auditor()
    memory = judge.memory(A)
    other.recall(A, memory)
    assert other.memory(A) == memory
    assert len({one().memory(A) for one in (opened, trying, granted, committed)}) == 4


def confirmed(judge: Auditor, *names: str) -> Auditor:
    for name in names:
        judge.sent(A, 1, name, "confirm")
        write(judge, 1, name, "confirm", (1, "tried"), (1, "confirmed"), ("pending", "reclaimed"))
    return judge


def platform_restored(*names: str) -> Auditor:
    """The commit was saved, and by some confirmed, after the backup that the platform goes back to."""
    judge = granted()
    backup = judge.backed_up("platform")
    judge.saved(A, 1, "confirming", "cc", (1, 1), 1, False)
    confirmed(judge, *names)
    judge.restored("platform", backup)
    return judge


def undone() -> Auditor:
    """The case is done, and then the wallet goes back to before it."""
    judge = opened()
    backup = judge.backed_up("wallet")
    judge.proof_read(A, 1, 1)
    judge.saved(A, 1, "ready", "..", (), 1, False)
    judge.saved(A, 1, "trying", "tt", (1, 1), 1, False)
    for name in NAMES:
        judge.sent(A, 1, name, "try")
        write(judge, 1, name, "try", FREE, (1, "tried"), ("bound", "pending"))
    judge.saved(A, 1, "confirming", "cc", (1, 1), 1, False)
    confirmed(judge, *NAMES)
    judge.saved(A, 1, "done", "dd", (1, 1), 1, False)
    judge.restored("wallet", backup)
    return judge


def test_a_commit_that_the_platform_lost_stands_where_anybody_confirmed_it() -> None:
    """All or nothing, whatever the platform has forgotten; and where nobody confirmed, nothing has happened yet."""
    platform_restored().recovered(A, 1, NAMES, "cancelling", "xx", outcome_lost=False)
    platform_restored("identity").recovered(A, 1, NAMES, "confirming", "cc", outcome_lost=False)
    with pytest.raises(ViolationError, match="recovery made it cancelling"):
        platform_restored("identity").recovered(A, 1, NAMES, "cancelling", "xx", outcome_lost=False)
    with pytest.raises(ViolationError, match="recovery made it confirming"):
        platform_restored().recovered(A, 1, NAMES, "confirming", "cc", outcome_lost=False)
    with pytest.raises(ViolationError, match="recovery cancels at wallet"):
        platform_restored("identity").resent(A, 1, "wallet", "cancel")
    with pytest.raises(ViolationError, match="nothing proves the commit"):
        platform_restored().resent(A, 1, "wallet", "confirm")
    with pytest.raises(ViolationError, match="recovery made up a case"):
        platform_restored().recovered(A, 2, NAMES, "cancelling", "xx", outcome_lost=False)
    with pytest.raises(ViolationError, match="recovery marks wallet confirmed"):
        platform_restored("identity").recovered(A, 1, NAMES, "confirming", "dd", outcome_lost=False)


def test_a_number_that_a_participant_holds_is_not_given_again() -> None:
    """A case created after the platform's backup is forgotten by it; its number is not free."""
    judge = Auditor()
    judge.opened(A, 100)
    backup = judge.backed_up("platform")
    judge.submitted(A, 1, NAMES, WAVES)
    judge.proof_read(A, 1, 1)
    judge.saved(A, 1, "ready", "..", (), 1, False)
    judge.saved(A, 1, "trying", "tt", (1, 1), 1, False)
    judge.sent(A, 1, "identity", "try")
    write(judge, 1, "identity", "try", FREE, (1, "tried"), ("bound", "pending"))
    judge.restored("platform", backup)
    with pytest.raises(ViolationError, match="its number is not above 1"):
        judge.submitted(A, 1, NAMES, WAVES)
    judge.submitted(A, 2, NAMES, WAVES)


def test_what_a_participant_lost_must_be_done_again() -> None:
    """A person whose identity the wallet holds again after its restore has not had it unbound."""
    rows = [(A, "identity", (1, "confirmed"), "reclaimed"), (A, "wallet", FREE, "bound")]
    with pytest.raises(ViolationError, match=r"not confirmed by \['wallet'\]"):
        undone().finished(rows, [])
    judge = undone()
    judge.resent(A, 1, "wallet", "try")
    write(judge, 1, "wallet", "try", FREE, (1, "tried"), ("bound", "pending"))
    judge.resent(A, 1, "wallet", "confirm")
    write(judge, 1, "wallet", "confirm", (1, "tried"), (1, "confirmed"), ("pending", "reclaimed"))
    judge.finished([rows[0], (A, "wallet", (1, "confirmed"), "reclaimed")], [])


def test_money_that_a_restore_took_back_is_not_missed_and_a_version_that_comes_again_is_not_believed() -> None:
    """After a restore the wallet's version 2 may mean other money than it did when the person proved themselves."""
    judge = opened()
    backup = judge.backed_up("wallet")
    judge.moved(A, 1, -10, 90, (1, 2))
    judge.moved(OTHER, 1, 10, 60, (1, 2))
    judge.proof_read(A, 1, 2)
    judge.saved(A, 1, "ready", "..", (), 2, False)
    judge.restored("wallet", backup)
    judge.moved(A, 2, -60, 40, (1, 2))
    judge.moved(OTHER, 2, 60, 110, (1, 2))
    judge.saved(A, 1, "trying", "tt", (1, 2), 2, False)
    judge.sent(A, 1, "identity", "try")
    write(judge, 1, "identity", "try", FREE, (1, "tried"), ("bound", "pending"))
    judge.sent(A, 1, "wallet", "try")
    with pytest.raises(ViolationError, match="since the last proof"):
        judge.answered(A, 1, "wallet", "try", "granted", (FREE, (1, "tried")), ("bound", "pending"), (2, False))
