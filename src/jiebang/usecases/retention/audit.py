"""The audit of keys: is any still there that was to be destroyed, and is anything kept beyond its day?"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from jiebang.saga.audit import Breach, Violation
from jiebang.store.retention import data_keys
from jiebang.usecases.retention.destroy import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from jiebang.participants.identity.reclaimed import ReclaimedIdentities
    from jiebang.store.postgres.pool import Database


class KeyAudit:
    """Finds keys that outlived their time. It trusts neither the queue nor the chore: it asks the identities."""

    def __init__(
        self, keys: Database, identities: Mapping[str, ReclaimedIdentities], clock: Callable[[], datetime]
    ) -> None:
        """`keys`: the database of the keys. `identities`: of each data centre by name."""
        self._keys, self._identities, self._clock = keys, identities, clock

    async def find_late(self, accounts: Collection[int], live: Collection[int]) -> list[Violation]:
        """Return what is late of the keys of accounts. `live`: those with a case that has not ended.

        Of those only what is queued already counts. Raises what the databases raise.
        """
        if not accounts:
            return []
        before, running = self._clock() - GRACE, frozenset(live)
        states = await data_keys.load_states(self._keys, accounts)
        answers = await asyncio.gather(*(one.load_standings(accounts) for one in self._identities.values()))
        upto = dict[int, int]()
        for standing in (each for answer in answers for each in answer.values()):
            over = standing.destroy_at is not None and standing.destroy_at < before
            if standing.reclaimed and over and standing.account_id not in running:
                upto[standing.account_id] = max(standing.epoch, upto.get(standing.account_id, 0))
        found = list[Violation]()
        for state in states:
            queued = state.destroy_at is not None and state.destroy_at < before
            if state.destroyed_at is None and (queued or state.epoch <= upto.get(state.account_id, 0)):
                found.append(Violation(Breach.KEY_NOT_DESTROYED, state.account_id, 0, "keys"))
            over = state.retention_ends_at is not None and state.retention_ends_at < before
            if over and state.is_retained and state.held_at is None:
                found.append(Violation(Breach.KEPT_TOO_LONG, state.account_id, 0, "keys"))
        return found
