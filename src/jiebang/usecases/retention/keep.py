"""What law keeps: read it for a stated purpose, see what ends when, end it, hold it beyond its day, report on it.

Every reading and every hold is on record before it is done: who, when, for which purpose.
"""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag

from jiebang.model.errors import NothingRetainedError
from jiebang.participants.base import UNANSWERED
from jiebang.store.encryption import SealedIdentity, unseal
from jiebang.store.retention import acts, data_keys
from jiebang.store.retention.acts import ActOnRetained, RetentionAct
from jiebang.usecases.operations.on_record import require_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.participants.identity.reclaimed import ReclaimedIdentities
    from jiebang.store.postgres.pool import Database
    from jiebang.store.retention.data_keys import EndingDay, KeptByBasis, RetentionBasis
    from jiebang.store.retention.key_wrapping import WrappingKey

_SHOWN: Final = 1_000


class RetainedIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """An identity that law keeps, opened: what it says, under which basis, and the last day on which it is kept."""

    epoch: int
    identity: SealedIdentity
    kept_under: str | None
    last_day: date | None
    held: bool

    def __repr__(self) -> str:
        """Show nobody's name."""
        return f"RetainedIdentity(epoch={self.epoch})"


class EndingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ends until a day, and what is late or not determined."""

    days: Sequence[EndingDay]
    undetermined: int
    overdue_keys: int
    overdue_retentions: int


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that law keeps, why, and what was done with it since a time."""

    kept: Sequence[KeptByBasis]
    bases: Sequence[RetentionBasis]
    undetermined: int
    acts: Sequence[RetentionAct]


class RetentionDesk:
    """Where operators ask for what law keeps."""

    def __init__(
        self,
        *,
        platform: Database,
        keys: Database,
        identities: Mapping[str, ReclaimedIdentities],
        retention: WrappingKey,
    ) -> None:
        """`retention`: the retention key. The master key is not needed, and opens nothing here."""
        self._platform, self._keys, self._identities, self._retention = platform, keys, identities, retention

    async def read(self, account: int, purpose: str, by: str, act_id: UUID, now: datetime) -> list[RetainedIdentity]:
        """Open what law keeps of an account, having put on record who reads it and for what.

        Raises InvalidInputError without a name or a purpose, NothingRetainedError (nothing is on record then), and what
        the databases raise.
        """
        await self._begin(ActOnRetained.READ, account, purpose, by, act_id, now)
        wraps = await data_keys.load_retained_wraps(self._keys, [account])
        opened = await asyncio.to_thread(self._retention.unwrap, wraps)
        states = {state.epoch: state for state in await data_keys.load_states(self._keys, [account])}
        sealed = await self._load_sealed(account)
        found = list[RetainedIdentity]()
        for wrap, key in zip(wraps, opened, strict=True):
            identity = None if key is None else _open(key, sealed, account, wrap.epoch)
            if identity is not None:
                state = states[wrap.epoch]
                found.append(
                    RetainedIdentity(
                        epoch=wrap.epoch,
                        identity=identity,
                        kept_under=state.kept_under,
                        last_day=state.last_day,
                        held=state.held_at is not None,
                    )
                )
        if not found:
            raise NothingRetainedError(account=str(account))
        return found

    async def hold(
        self, account: int, purpose: str, by: str, act_id: UUID, now: datetime, *, release: bool = False
    ) -> int:
        """Hold what law keeps of an account beyond its day, or let go of it again; return how many keys changed.

        Raises what `read` does.
        """
        await self._begin(ActOnRetained.RELEASE if release else ActOnRetained.HOLD, account, purpose, by, act_id, now)
        return len(await data_keys.hold(self._keys, [account], None if release else now))

    async def list_ending(self, until: datetime, now: datetime) -> EndingReport:
        """Return what ends until a time, and what is late by now."""
        late, kept = await data_keys.count_overdue(self._keys, now)
        return EndingReport(
            days=await data_keys.load_ending(self._keys, until),
            undetermined=await data_keys.count_undetermined(self._keys),
            overdue_keys=late.keys,
            overdue_retentions=kept.keys,
        )

    async def report(self, since: datetime) -> RetentionReport:
        """Return all that law keeps, why, and the acts since a time, the newest first."""
        return RetentionReport(
            kept=await data_keys.load_kept(self._keys),
            bases=await data_keys.load_bases(self._keys),
            undetermined=await data_keys.count_undetermined(self._keys),
            acts=await acts.load_acts(self._platform, since, _SHOWN),
        )

    async def _begin(
        self, act: ActOnRetained, account: int, purpose: str, by: str, act_id: UUID, now: datetime
    ) -> None:
        """Put an act on record, if there is anything to act on."""
        require_text("by", by)
        require_text("purpose", purpose)
        states = await data_keys.load_states(self._keys, [account])
        if not any(state.is_retained and state.destroyed_at is not None for state in states):
            raise NothingRetainedError(account=str(account))
        await acts.record(
            self._platform, RetentionAct(account_id=account, act=act, purpose=purpose, done_by=by, at=now), act_id
        )

    async def _load_sealed(self, account: int) -> list[bytes]:
        """Return the kept sealed bytes of an account, of whichever data centre answers."""
        failed: BaseException | None = None
        for one in self._identities.values():
            try:
                if found := (await one.load_retained([account])).get(account):
                    return found
            except UNANSWERED as error:
                failed = error
        if failed is not None:
            raise failed
        return []


def _open(key: bytes, sealed: Sequence[bytes], account: int, epoch: int) -> SealedIdentity | None:
    """Return the identity that a key opens. An identity's own epoch may have been raised after it was sealed."""
    for each in sealed:
        try:
            return unseal(key, each, account, epoch)
        except InvalidTag:
            continue
    return None


def find_horizon(now: datetime, days: int) -> datetime:
    """Return the time until which is looked ahead."""
    return now + timedelta(days=days)
