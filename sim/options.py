"""One seed is one world: its sizes and its rates of faults, drawn at random so that rare mixtures come up too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from jiebang.model.plan import WALLET, Plan
from jiebang.saga.coordinator import Timing

if TYPE_CHECKING:
    from random import Random

PARTIES = ("identity", "unionpay", "social", "security")
WITHOUT_FACTS = frozenset({"unionpay"})


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What one world is made of. Rates are chances from 0 to 1, times are milliseconds."""

    accounts: int
    cases: int  # an account submits at most so many
    plans: tuple[Plan, ...]
    workers: int
    timing: Timing
    faults_end: int
    loss: float
    repeat: float
    slow: float  # a message that takes seconds, and so outlives its case
    whim: float  # a Try refused for business reasons
    broken: float  # a Confirm or Cancel answered with an error though it could be done
    pending: float  # a participant that says it is still working, and has done nothing
    unread: float  # facts that cannot be read
    stale: float  # a worker that goes on from what it remembers instead of what is stored
    tear: float  # a worker that dies between a save and its sends
    withdraw: float
    review: float
    never_proven: float
    crashes: int  # of each worker
    stalls: int  # of each worker: it stands still for seconds, then goes on as if nothing had happened
    outages: int  # of each participant
    fact_changes: int
    transfers: int


def draw(random: Random) -> Options:
    """Draw one world. About one in eight has no faults of a given sort at all, so that each is also seen alone."""

    def rate(most: float) -> float:
        return 0.0 if random.random() < 1 / 8 else random.random() * most

    def count(most: int) -> int:
        return int(random.random() * (most + 1))

    accounts = 1 + count(3)
    return Options(
        accounts=accounts,
        cases=1 + count(3),
        plans=tuple(_plan(random, number) for number in range(1 + count(1))),
        workers=1 + count(1),
        timing=Timing(
            try_limit=timedelta(milliseconds=400 + count(1600)),
            resend=timedelta(milliseconds=40 + count(200)),
            resend_limit=timedelta(milliseconds=800 + count(2000)),
        ),
        faults_end=3000 + count(5000),
        loss=rate(0.25),
        repeat=rate(0.25),
        slow=rate(0.2),
        whim=rate(0.1),
        broken=rate(0.15),
        pending=rate(0.15),
        unread=rate(0.15),
        stale=rate(0.5),
        tear=rate(0.06),
        withdraw=rate(0.4),
        review=rate(0.3),
        never_proven=rate(0.15),
        crashes=count(2),
        stalls=count(2),
        outages=count(1),
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
