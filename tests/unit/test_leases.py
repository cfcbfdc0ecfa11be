"""Bucket shares: however workers come and go, every bucket is tended by one of them, and none by two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jiebang.model.case import BUCKETS
from jiebang.saga.leases import choose_buckets

NOW = datetime(2026, 4, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
Leases = Mapping[int, tuple[str, datetime]]

names = st.text("abcdef", min_size=1, max_size=3)
leases = st.dictionaries(
    st.integers(0, BUCKETS - 1),
    st.tuples(names, st.integers(-20, 20).map(lambda seconds: NOW + timedelta(seconds=seconds))),
)


def renewed(me: str, workers: list[str], held: Leases, now: datetime) -> Leases:
    """Do to the leases what the store does: drop what `me` lets go, take or renew what it wants."""
    wanted = choose_buckets(me, workers, held, now)
    others = {bucket: lease for bucket, lease in held.items() if lease[0] != me and bucket not in wanted}
    return others | dict.fromkeys(wanted, (me, now + LEASE))


@given(names, st.lists(names), leases)
def test_a_running_lease_of_another_is_never_taken(me: str, workers: list[str], held: Leases) -> None:
    """Else two workers would drive the same people at once and undo each other's saves."""
    for bucket in choose_buckets(me, workers, held, NOW):
        owner, until = held.get(bucket, (me, NOW))
        assert owner == me or until <= NOW


@given(names, st.lists(names), leases)
def test_nobody_takes_more_than_a_fair_share(me: str, workers: list[str], held: Leases) -> None:
    """Else the first worker would do all the work, and the others none."""
    everyone = {me, *workers}
    assert len(choose_buckets(me, workers, held, NOW)) <= -(-BUCKETS // len(everyone))


@given(st.lists(names, unique=True, min_size=1, max_size=80), leases)
def test_every_bucket_is_held_once_everybody_has_renewed(workers: list[str], held: Leases) -> None:
    """Else the people of a bucket nobody holds would wait for ever; and shares that differ leave workers idle."""
    state, now = held, NOW + timedelta(seconds=21)  # the leases of workers that are gone have run out
    for _ in range(2):  # the first time they let go, the second time they take
        for worker in workers:
            state = renewed(worker, workers, state, now)
    held_by = Counter(owner for owner, until in state.values() if until > now)
    assert sum(held_by.values()) == BUCKETS
    assert held_by.keys() <= set(workers)
    shares = [held_by[worker] for worker in workers]
    assert max(shares) - min(shares) <= 1


def test_a_newcomer_gets_its_half_only_when_the_other_lets_go() -> None:
    """The hand-over never has two holders in between."""
    alone = renewed("a", ["a"], {}, NOW)
    assert choose_buckets("b", ["a", "b"], alone, NOW) == frozenset()
    shared = renewed("a", ["a", "b"], alone, NOW)
    taken = choose_buckets("b", ["a", "b"], shared, NOW)
    assert len(taken) == BUCKETS // 2
    assert not taken & {bucket for bucket, lease in shared.items() if lease[0] == "a"}


def test_more_workers_than_buckets_do_no_harm() -> None:
    """The spare ones wait; nobody divides by nothing."""
    workers = [f"w{number:03}" for number in range(BUCKETS + 44)]
    state: Leases = {}
    for worker in workers:
        state = renewed(worker, workers, state, NOW)
    assert len(state) == BUCKETS
    assert set(Counter(owner for owner, _ in state.values()).values()) == {1}
