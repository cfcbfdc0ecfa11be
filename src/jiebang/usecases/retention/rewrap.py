"""Rotate a wrapping key: every data key is wrapped anew under the new one. No data is sealed again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.store.retention import data_keys
from jiebang.store.retention.key_wrapping import OwnedKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiebang.store.postgres.pool import Database
    from jiebang.store.retention.key_wrapping import WrappingKey

_FIRST: Final = (0, 0)


class Rewrapped(msgspec.Struct, frozen=True):
    """How many wraps were made anew, and how many no key of this host opens."""

    wraps: int
    unopened: int


async def rewrap(
    keys: Database,
    name: str,
    wrapping: WrappingKey,
    *,
    page: int = data_keys.PAGE,
    progress: Callable[[int], None] = lambda _done: None,
) -> Rewrapped:
    """Wrap every data key anew that another key of that name wrapped, a page a statement; it may be broken off.

    `name`: MASTER or RETENTION. `progress` is called with the number of wraps made.
    """
    after, done, unopened = _FIRST, 0, 0
    while wraps := await data_keys.load_other_wraps(keys, name, wrapping.mark, after, page):
        after = (wraps[-1].account_id, wraps[-1].epoch)
        opened = await asyncio.to_thread(wrapping.unwrap, wraps)
        found = [
            OwnedKey(each.account_id, each.epoch, key)
            for each, key in zip(wraps, opened, strict=True)
            if key is not None
        ]
        if found:
            made = await asyncio.to_thread(wrapping.wrap, found)
            anew = [OwnedKey(each.account_id, each.epoch, wrap) for each, wrap in zip(found, made, strict=True)]
            await data_keys.replace_wraps(keys, name, wrapping.mark, anew)
        done, unopened = done + len(found), unopened + len(wraps) - len(found)
        progress(done)
    return Rewrapped(done, unopened)


async def has_other_wraps(keys: Database, name: str, wrapping: WrappingKey) -> bool:
    """Whether a wrap is left that another key made."""
    return bool(await data_keys.load_other_wraps(keys, name, wrapping.mark, _FIRST, 1))
