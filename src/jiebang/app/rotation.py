"""Rotate the keys that wrap data keys: a new file, every data key wrapped anew, and the old file gone at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from jiebang.app.opening import open_locks
from jiebang.clock import utc_now
from jiebang.keys import begin_rotation, compute_fingerprints, end_rotation, read_keys
from jiebang.model.errors import RotationUnfinishedError
from jiebang.model.facts import PLATFORM
from jiebang.store.postgres.embedded import embedded, ensure_databases, placement
from jiebang.store.postgres.pool import open_pools
from jiebang.store.retention.key_wrapping import MASTER
from jiebang.usecases.operations.key_fingerprints import record_new_key, require_recorded
from jiebang.usecases.retention.rewrap import Rewrapped, has_other_wraps, rewrap

if TYPE_CHECKING:
    from jiebang.settings import Settings


async def rotate_wrapping_key(
    settings: Settings, name: str, *, finish: bool = False, progress: Callable[[int], None] = lambda _done: None
) -> Rewrapped:
    """Put a new MASTER or RETENTION key in the place of one, and wrap every data key anew under it.

    The old key stays beside it as `<name>.previous.key`, so that a rotation that was broken off goes on when it is
    called again. With `finish` no key is made, and that file is deleted; RotationUnfinishedError while a wrap is left
    that the old key made. Raises HomeUnusableError, KeysUnrecordedError, and the errors of `embedded` and `open_pools`.
    """
    async with AsyncExitStack() as stack:
        if settings.databases is None:
            servers = await stack.enter_async_context(embedded(settings.home))
            databases: Mapping[str, str] = await ensure_databases(servers, placement(settings.declared))
        else:
            databases = settings.databases
        wanted = {place: databases[place] for place in (PLATFORM, "keys")}
        pools = await stack.enter_async_context(open_pools(wanted, size=1))
        async with pools[PLATFORM].acquire() as connection, connection.transaction():
            await require_recorded(connection)
            if not finish:
                begin_rotation(settings.keys, name)
                fingerprint = compute_fingerprints(read_keys(settings.keys))[name]
                await record_new_key(connection, name, fingerprint, utc_now())
        locks = open_locks(settings, read_keys(settings.keys))
        wrapping = locks.master if name == MASTER else locks.retention
        if not finish:
            return await rewrap(pools["keys"], name, wrapping, progress=progress)
        if await has_other_wraps(pools["keys"], name, wrapping):
            raise RotationUnfinishedError(key=f"{name}.key")
        end_rotation(settings.keys, name)
        return Rewrapped(0, 0)
