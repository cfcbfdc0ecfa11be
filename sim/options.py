"""One seed is one world: its sizes and its rates of faults, drawn at random so that rare mixtures come up too.

Every sort of fault is a field of `Options`; 0 switches it off. `World` takes other options than the seed's, so that one
sort can be looked at alone.
"""

from __future__ import annotations

from datetime import timedelta
from random import Random

import msgspec

from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import Timing

PARTIES = ("identity", "unionpay", "social", "security")
WITHOUT_FACTS = frozenset({"unionpay"})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What one world is made of. Rates are chances from 0 to 1, times are milliseconds."""

    # Sizes.
    accounts: int
    cases: int  # an account submits at most so many
    crowd: float  # a person who comes when others do, and proves themselves when they do
    plans: tuple[Plan, ...]
    pack_changes: int  # so often another plan becomes the one that new cases follow; old cases follow their own
    workers: int
    lease: int  # of a worker on its buckets
    skew: int  # how far a worker's clock is off, at most
    round_limit: int
    timing: Timing
    faults_end: int
    # Messages.
    loss: float
    repeat: float
    slow: float  # a message that takes seconds, and so outlives its case
    part: float  # one case's reply missing from an answer
    # Participants.
    whim: float  # a Try refused for business reasons
    broken: float  # a Confirm or Cancel answered with an error though it could be done
    pending: float  # a participant that says it is still working; half of those have done nothing and never will
    unread: float  # facts that cannot be read
    disk: float  # an op or a save that takes long
    outages: int  # of each participant: silent for a while
    restarts: int  # of each participant: what it had in memory is gone
    restores: int  # of some database, to a backup taken earlier
    # The store and its workers.
    torn: float  # a save whose answer is lost: it happened, happens later, or never does
    die: float  # a worker that dies between a save and its sends
    poison: float  # a case that makes its whole batch fail at some place
    crashes: int  # of each worker
    leaves: int  # of each worker: it stops in good order
    stalls: int  # of each worker: it stands still for seconds, then goes on as if nothing had happened
    unrenewed: float  # a lease that could not be renewed
    # People.
    withdraw: float
    review: float
    never_proven: float
    retries: int  # an operator has cases tried again that nothing is wrong with
    fact_changes: int
    transfers: int


def drawn(seed: int) -> Options:
    """The world of a seed."""
    return draw(Random(seed))


def draw(random: Random) -> Options:
    """Draw one world. About one in eight has no faults of a given sort at all, so that each is also seen alone."""

    def rate(most: float) -> float:
        return 0.0 if random.random() < 1 / 8 else random.random() * most

    def count(most: int) -> int:
        return int(random.random() * (most + 1))

    def rarely(chance: float, most: int) -> int:
        return count(most) if random.random() < chance else 0

    restores = rarely(1 / 3, 2)
    # A recovery has somebody to take along only where several have lost the same.
    accounts = 1 + count(3) + rarely(1 / 10, 12) + rarely(1 / 50, 24) + rarely(1 / 2 if restores else 0, 10)
    return Options(
        accounts=accounts,
        cases=1 + count(3),
        crowd=rate(1.0),
        plans=tuple(_plan(random, number) for number in range(1 + count(2))),
        pack_changes=count(2),
        workers=1 + count(2),
        lease=1500 + count(4500),
        skew=rarely(1 / 2, 5000),
        round_limit=30 + count(300),
        timing=Timing(
            try_limit=timedelta(milliseconds=400 + count(1600)),
            resend=timedelta(milliseconds=40 + count(200)),
            resend_limit=timedelta(milliseconds=800 + count(2000)),
        ),
        faults_end=3000 + count(5000) + 8000 * restores,
        loss=rate(0.25),
        repeat=rate(0.25),
        slow=rate(0.2),
        part=rate(0.1),
        whim=rate(0.1),
        broken=rate(0.15),
        pending=rate(0.15),
        unread=rate(0.15),
        disk=rate(0.15),
        outages=count(1),
        restarts=count(2),
        restores=restores,
        torn=rate(0.1),
        die=rate(0.06),
        poison=rate(0.15),
        crashes=count(2),
        leaves=count(1),
        stalls=count(2),
        unrenewed=rate(0.3),
        withdraw=rate(0.4),
        review=rate(0.3),
        never_proven=rate(0.15),
        retries=count(2),
        fact_changes=count(2),
        transfers=count(2) * accounts,
    )


def _plan(random: Random, number: int) -> Plan:
    """Between one and four participants besides the wallet, in waves; one plan in six does without the wallet."""
    names = random.sample(PARTIES, 1 + int(random.random() * len(PARTIES)))
    waves, wave = [], 0
    for at in range(len(names)):
        wave += at > 0 and random.random() < 1 / 3
        waves.append(wave)
    if random.random() > 1 / 6:
        names.append(WALLET)
        waves.append(wave + 1)
    return Plan(name=f"plan/{number}", participants=tuple(names), waves=tuple(waves))
