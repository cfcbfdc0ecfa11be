"""Put the second lock on data keys made before there was one, by a worker, which has both keys."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final

import structlog

from jiebang.store.retention import data_keys
from jiebang.store.retention.key_wrapping import OwnedKey

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Database
    from jiebang.store.retention.key_wrapping import KeyLocks

_FIRST: Final = (0, 0)
_log = structlog.get_logger(__name__)


class SecondLock:
    """A chore. Each turn takes one page of keys without a second lock: one read, one statement.

    Cut off anywhere, the next turn finds the same keys. A key that the master key does not open stays as it is: it is
    logged, and passed over until the walk begins again.
    """

    def __init__(self, keys: Database, locks: KeyLocks, *, page: int = data_keys.PAGE) -> None:
        """`keys`: the database of the keys."""
        self._keys, self._locks, self._page = keys, locks, page
        self._after = _FIRST

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn; return how many keys were read. Raises what the database raises."""
        del buckets, now  # done once for the whole installation, whenever
        wraps = await data_keys.load_unretained(self._keys, self._after, self._page)
        self._after = (wraps[-1].account_id, wraps[-1].epoch) if len(wraps) == self._page else _FIRST
        if not wraps:
            return 0
        opened = await asyncio.to_thread(self._locks.master.unwrap, wraps)
        found = [
            OwnedKey(each.account_id, each.epoch, key)
            for each, key in zip(wraps, opened, strict=True)
            if key is not None
        ]
        if len(found) < len(wraps):
            _log.error("data_keys_do_not_open", keys=len(wraps) - len(found))
        if found:
            locked = await asyncio.to_thread(self._locks.retention.wrap, found)
            retained = [OwnedKey(each.account_id, each.epoch, wrap) for each, wrap in zip(found, locked, strict=True)]
            await data_keys.retain(self._keys, retained, self._locks.retention.mark)
        return len(found)
