"""Planted mistakes by name: each is one plausible slip, and each must be caught, or the simulator is blind.

`tests/sim/test_mistakes.py` fails if one is not. `python -m sim --mistake NAME` shows what being caught looks like.
None of this is reachable from the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sim import slips_driver as driver
from sim import slips_protocol as protocol
from sim.options import Options, drawn
from sim.world import Parts

RESTORED: Final = {"restores": 2, "faults_end": 16_000}
LOST_TOGETHER: Final = {**RESTORED, "accounts": 6, "cases": 4, "poison": 0, "withdraw": 0, "review": 0}
MONEY_MOVES: Final = {**LOST_TOGETHER, "transfers": 120}
UNDER_WAY: Final = {**RESTORED, "accounts": 6, "slow": 0.5, "repeat": 0.3, "loss": 0.3, "crashes": 0, "poison": 0}


CROWDS: Final = {"accounts": 12, "crowd": 1.0, "restores": 0, "poison": 0}
"""Worlds in which people come at the same moments, so that their cases step in groups."""


class Mistake(msgspec.Struct, frozen=True):
    """What the programmer did, the parts that do it, and whether the walk over every interleaving sees it too.

    The walk steps one case at a time, so slips in batches, leases and recovery are the simulator's alone to see.
    `witness`: whether batches have their witness; without one, the auditor alone must see it, from outside.
    """

    what: str
    parts: Parts
    walked: bool = False
    witness: bool = False
    worlds: Mapping[str, Any] = {}
    """Options of the worlds in which it shows soonest, in place of what their seeds draw."""

    def options(self, seed: int) -> Options:
        """What the world of `seed` is made of, for this mistake."""
        return msgspec.structs.replace(drawn(seed), **self.worlds)


MISTAKES: Final[Mapping[str, Mistake]] = {
    "send-before-save": Mistake("sends leave before the decision is saved", Parts(batch=driver.SendsFirst)),
    "send-after-lost-save": Mistake("sends leave though the guarded save failed", Parts(batch=driver.SendsAnyway)),
    "mixes-cases": Mistake("a late reply is taken for the account's current case", Parts(worker=driver.MixesCases)),
    "save-forgets-wish": Mistake("a save overwrites a wish to withdraw", Parts(store=protocol.ForgetsWish)),
    "commit-over-wish": Mistake(
        "the guard lets a commit through over a recorded wish", Parts(store=protocol.CommitsOverWish), walked=True
    ),
    "no-revision": Mistake("the guard does not compare revisions", Parts(store=protocol.NoRevision)),
    "rollback-is-over": Mistake(
        "the next case starts while the last is rolled back", Parts(store=protocol.RollbackIsOver)
    ),
    "number-reused": Mistake(
        "the number of a case that came to nothing is used again", Parts(store=protocol.ReusesNumber)
    ),
    "withdraws-too-late": Mistake(
        "202 is answered after the commit point", Parts(store=protocol.WithdrawsTooLate), walked=True
    ),
    "stale-version": Mistake(
        "participants grant at whatever version they have",
        Parts(party=protocol.AnyVersion, wallet=protocol.AnyVersionWallet),
        walked=True,
    ),
    "never-busy": Mistake(
        "the wallet lets money move while it is tried", Parts(wallet=protocol.NeverBusy), walked=True
    ),
    "quiet-movement": Mistake("money moves and the version stays", Parts(wallet=protocol.QuietMovement), walked=True),
    "late-try": Mistake("the fence admits a Try after its Cancel", Parts(fence=protocol.admits_late_try), walked=True),
    "older-try": Mistake(
        "the fence grants a Try of an older case", Parts(fence=protocol.grants_older_try), walked=True
    ),
    "no-mark": Mistake("a refused Try leaves no mark", Parts(fence=protocol.no_mark), walked=True),
    "cancel-overwrites-newer": Mistake(
        "an old Cancel overwrites a newer case", Parts(fence=protocol.overwrites_newer), walked=True
    ),
    "empty-cancel": Mistake(
        "a Cancel that finds no Try leaves no mark", Parts(fence=protocol.empty_cancel), walked=True
    ),
    "confirm-twice": Mistake(
        "a repeated Confirm undoes the first", Parts(fence=protocol.confirms_untried), walked=True
    ),
    "refused-wave": Mistake("confirms after a refused wave", Parts(step=protocol.refusal_is_grant), walked=True),
    "silence-is-grant": Mistake(
        "a Try that timed out counts as granted", Parts(step=protocol.silence_is_grant), walked=True
    ),
    "patient": Mistake("grants after the deadline still commit", Parts(step=protocol.patient), walked=True),
    "deaf-to-wish": Mistake(
        "the coordinator overlooks the wish to withdraw", Parts(step=protocol.deaf_to_wish), walked=True
    ),
    "forgives-movement": Mistake(
        "money moved since the last proof is forgiven",
        Parts(step=protocol.forgives_movement, batch=driver.ForgivesMovement),
        walked=True,
    ),
    "asks-no-version": Mistake(
        "Trys ask for no version", Parts(step=protocol.asks_no_version, batch=driver.AsksNoVersion), walked=True
    ),
    "all-at-once": Mistake("all waves go out together", Parts(step=protocol.all_at_once), walked=True),
    "first-grant-is-enough": Mistake(
        "a later wave leaves when its predecessor has only begun to grant", Parts(step=protocol.first_grant_is_enough)
    ),
    "spares-the-silent": Mistake(
        "no Cancel for a Try that was saved as sent but never answered",
        Parts(step=protocol.spares_the_silent),
        walked=True,
    ),
    "cancel-after-commit": Mistake(
        "a time-out after the commit point rolls back", Parts(step=protocol.cancels_after_commit), walked=True
    ),
    "gives-up": Mistake("a Confirm is not repeated for ever", Parts(step=protocol.gives_up)),
    "parked-is-done": Mistake(
        "a parked Confirm counts as done", Parts(step=protocol.parked_is_done), worlds={"broken": 0.5}, walked=True
    ),
    "operator-decides": Mistake(
        "unparking turns a Confirm into a Cancel", Parts(step=protocol.operator_decides), walked=True
    ),
    "believes-torn": Mistake("a save that got no answer is believed", Parts(driver=driver.BelievesTorn)),
    "trusts-lease": Mistake(
        "a worker saves over whatever is there: it holds the lease", Parts(driver=driver.TrustsLease)
    ),
    "group-leaves-one-out": Mistake(
        "a case is left out of its group's save and goes on as saved", Parts(batch=driver.LeavesOneOut), worlds=CROWDS
    ),
    "group-hears-for-one": Mistake(
        "a group's reply is given to one member only", Parts(batch=driver.HearsForOne), worlds=CROWDS, witness=True
    ),
    "group-refuses-all": Mistake(
        "one member's refusal is given to all of its group",
        Parts(batch=driver.RefusesAll),
        worlds=CROWDS,
        witness=True,
    ),
    "group-late-for-all": Mistake(
        "a late reply to one moves all of its group", Parts(batch=driver.LateForAll), worlds=CROWDS
    ),
    "group-sends-lost": Mistake(
        "a member whose save was lost still sends with its group", Parts(batch=driver.SendsLost), worlds=CROWDS
    ),
    "group-version-of-another": Mistake(
        "an order is built from another member's version",
        Parts(batch=driver.VersionOfAnother),
        worlds=CROWDS,
        witness=True,
    ),
    "remembers-grants": Mistake(
        "what a case learnt in memory is taken for the account's next case", Parts(batch=driver.RemembersGrants)
    ),
    "sent-is-granted": Mistake(
        "a driver that lost what it learnt commits as if all it sent were granted",
        Parts(batch=driver.SavesLearntAsSent),
    ),
    "newest-plan": Mistake(
        "a new pack's plan is applied to an old case", Parts(batch=driver.NewestPlan), worlds={"pack_changes": 8}
    ),
    "save-not-halved": Mistake(
        "one poisoned save holds up its whole batch", Parts(batch=driver.SaveNotHalved), worlds={"poison": 0.5}
    ),
    "wish-for-ever": Mistake(
        "a wish whose save is refused is taken in for ever",
        Parts(batch=driver.WishForEver),
        worlds={"poison": 0.2, "withdraw": 0.9, "accounts": 12, "workers": 1, "restores": 0, "faults_end": 4000},
    ),
    "forgets-in-restart": Mistake(
        "a participant answers before what it did is durable", Parts(party=driver.ForgetsInRestart)
    ),
    "recover-reuses-numbers": Mistake(
        "recovery gives numbers again", Parts(recovered=driver.reuses_numbers), worlds=RESTORED
    ),
    "recover-ignores-confirmed": Mistake(
        "recovery overlooks a confirmed row, which proves the commit",
        Parts(recovered=driver.ignores_confirmed),
        worlds=RESTORED,
    ),
    "recover-believes-platform": Mistake(
        "recovery takes up only what the platform has open",
        Parts(recovered=driver.believes_the_platform),
        worlds=RESTORED,
    ),
    "recover-confirms-untried": Mistake(
        "recovery confirms where the Try is gone", Parts(recovered=driver.confirms_without_try), worlds=RESTORED
    ),
    "recover-commits-tried": Mistake(
        "recovery commits a case that was only tried", Parts(recovered=driver.commits_what_was_tried), worlds=RESTORED
    ),
    "recover-overlooks-forgotten": Mistake(
        "recovery passes by a case that the platform and one participant forgot together",
        Parts(recovered=driver.overlooks_forgotten),
        worlds=LOST_TOGETHER,
    ),
    "recover-leaves-marks": Mistake(
        "a wallet with money moving refuses recovery's Try for ever",
        Parts(wallet=driver.Unforgiving),
        worlds=MONEY_MOVES,
    ),
    "no-recovery": Mistake(
        "a database is brought back and nobody recovers", Parts(restores=driver.NoRecovery), worlds=RESTORED
    ),
    "restore-opens-at-once": Mistake(
        "a restored database is open while old messages are under way",
        Parts(restores=driver.OpensAtOnce),
        worlds=UNDER_WAY,
    ),
    "warm-workers": Mistake(
        "workers go on with what they heard before a restore",
        Parts(restores=driver.WarmWorkers),
        worlds=UNDER_WAY,
    ),
}
"""Every planted mistake by name."""
