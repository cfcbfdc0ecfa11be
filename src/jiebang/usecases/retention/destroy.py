"""Destroy the keys of names that were taken back within the minutes of their pack, and what law kept on its day.

Three steps a turn, each of which a process may die in: what ended is read in the order of its end and queued beside the
keys, with what law keeps of it, in one transaction with how far it was read; what is queued is destroyed at once, so
that the minutes of the pack are room for trouble; what law kept until now is destroyed. All of it page by page, a
statement a thousand keys.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from jiebang.model.case import Kind, State
from jiebang.model.errors import UnknownPackError
from jiebang.participants.base import UNANSWERED
from jiebang.participants.identity import DESTROYED_AFTER
from jiebang.participants.identity.reclaimed import IdentityStanding
from jiebang.policy.calendar import local_date
from jiebang.policy.retention import find_end
from jiebang.store.retention import data_keys, ended_cases
from jiebang.store.retention.data_keys import EndedIdentity, RetentionBasis
from jiebang.store.retention.ended_cases import EndedCase
from jiebang.usecases.periodic import Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jiebang.participants.identity.reclaimed import ReclaimedIdentities
    from jiebang.policy.pack import Pack
    from jiebang.store.postgres.pool import Database, Pool
    from jiebang.usecases.policy.registry import PackRegistry

KEYS_DESTROYED_TOTAL: Final = Counter("jiebang_keys_destroyed_total", "Data keys whose wraps were destroyed", ["which"])
KEYS_OVERDUE: Final = Gauge(
    "jiebang_keys_overdue", "Data keys that were to be destroyed more than a minute ago", ["which"]
)
GRACE: Final = timedelta(minutes=1)
"""A key this much later than its pack said is overdue: a pack may say no minutes at all, and a turn takes some."""
_EVERY: Final = timedelta(seconds=2)
_DETERMINED_EVERY: Final = timedelta(minutes=1)
_BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)
_log = structlog.get_logger(__name__)


class KeyDestruction:
    """The chore that destroys keys. What it remembers can be lost: the next turn goes on from what is stored."""

    def __init__(
        self,
        *,
        platform: Database,
        keys: Pool,
        identities: Mapping[str, ReclaimedIdentities],
        registry: PackRegistry,
        page: int = data_keys.PAGE,
    ) -> None:
        """`identities`: of each data centre by name; all hold the same, and one that answers is enough."""
        self._platform, self._keys, self._identities = platform, keys, identities
        self._registry, self._page = registry, page
        self._after = 0
        self._schedule, self._determining = Schedule(_EVERY), Schedule(_DETERMINED_EVERY)

    async def __call__(self, buckets: frozenset[int], now: datetime) -> int:
        """Take a turn if this worker holds bucket 0 and one is due; return how much there was to do.

        Raises what the databases raise, and SilentIdentitiesError.
        """
        if 0 not in buckets:
            self._schedule.reset()
            for which in ("master", "retention"):
                KEYS_OVERDUE.labels(which).set(0)
            return 0
        if not self._schedule.is_due(now):
            return 0
        done = await self.turn(now)
        self._schedule.postpone(now, timedelta() if done else None)
        return done

    async def turn(self, now: datetime) -> int:
        """Queue, destroy and end one page each; return how much there was to do."""
        read = await self.queue_ended(now)
        if self._determining.is_due(now):
            await self.determine(now)
            self._determining.postpone(now)
        destroyed = await data_keys.destroy_queued(self._keys, now, self._page)
        ended = await self.end_retentions(now)
        if destroyed:
            KEYS_DESTROYED_TOTAL.labels("master").inc(len(destroyed))
            _log.info("keys_destroyed", keys=len(destroyed), late=sum(now > due for *_, due in destroyed))
        late, kept = await data_keys.count_overdue(self._keys, now - GRACE)
        KEYS_OVERDUE.labels("master").set(late.keys)
        KEYS_OVERDUE.labels("retention").set(kept.keys)
        return read + len(destroyed) + ended

    async def queue_ended(self, now: datetime) -> int:
        """Read the next page of cases that ended, and queue the keys that they destroy; return how many were read."""
        after = await data_keys.read_progress(self._keys) or _BEGINNING
        until = await ended_cases.find_settled(self._platform, now)
        page = await ended_cases.load_ended(self._platform, after, until, self._page)
        if not page:
            return 0
        await self._queue(page, now, page[-1].ended_at)
        return len(page)

    async def determine(self, now: datetime) -> int:
        """Determine what law keeps of keys whose pack did not say it; return how many accounts were looked at."""
        accounts = await data_keys.load_undetermined(self._keys, self._after, self._page)
        self._after = accounts[-1] if len(accounts) == self._page else 0
        if accounts:
            await self._queue(await ended_cases.load_done_of(self._platform, accounts), now, None)
        return len(accounts)

    async def _queue(self, cases: Sequence[EndedCase], now: datetime, read_until: datetime | None) -> None:
        ended, bases = await self._judge(cases, now)
        async with self._keys.acquire() as connection, connection.transaction():
            if bases:
                await data_keys.add_bases(connection, bases)
            if ended:
                await data_keys.queue(connection, ended)
            if read_until is not None:
                await data_keys.note_progress(connection, read_until)

    async def end_retentions(self, now: datetime) -> int:
        """Destroy a page of what law kept until now; return how much."""
        ended = await data_keys.end_retentions(self._keys, now, self._page)
        if not ended:
            return 0
        KEYS_DESTROYED_TOTAL.labels("retention").inc(len(ended))
        _log.info("retentions_ended", keys=len(ended))
        await self._drop(ended)
        return len(ended)

    async def _judge(
        self, cases: Sequence[EndedCase], now: datetime
    ) -> tuple[list[EndedIdentity], list[RetentionBasis]]:
        """Return the identities that ended with these cases, and why law keeps them."""
        await self._registry.know(cases)
        ending = dict[int, tuple[EndedCase, int]]()
        for case in cases:
            minutes = self._find_minutes(case) if case.state is State.DONE else None
            if minutes is not None:
                ending.setdefault(case.account_id, (case, minutes))
        if not ending:
            return [], []
        standings = await self._load_standings(ending, now)
        ended, bases = list[EndedIdentity](), dict[str, RetentionBasis]()
        for account, (case, minutes) in ending.items():
            if (standing := standings.get(account)) is None:
                continue
            one, basis = self._end(case, standing, minutes)
            ended.append(one)
            if basis is not None:
                bases[basis.basis] = basis
        return ended, list(bases.values())

    def _end(
        self, case: EndedCase, standing: IdentityStanding, minutes: int
    ) -> tuple[EndedIdentity, RetentionBasis | None]:
        """Return what ended with a case, and why law keeps it."""
        destroy_at = max(case.ended_at + timedelta(minutes=minutes), standing.destroy_at or case.ended_at)
        one = EndedIdentity(
            account_id=case.account_id, epoch=standing.epoch, reclaimed=standing.reclaimed, destroy_at=destroy_at
        )
        pack = self._find_pack(case.plan)
        if pack is None or pack.retentions is None:
            return one, None
        kept = pack.retentions.get(case.kind)
        if kept is None:  # law keeps nothing: it goes with the other lock
            return replace(one, last_day=local_date(case.ended_at, pack.zone), ends_at=case.ended_at), None
        last, ends_at = find_end(case.ended_at, kept.years, pack.zone)
        basis = RetentionBasis(
            basis=f"{pack.id} {kept.code}", law=kept.law, purpose=kept.purpose, time_zone=pack.zone.key
        )
        return replace(one, kept_under=basis.basis, last_day=last, ends_at=ends_at), basis

    def _find_minutes(self, case: EndedCase) -> int | None:
        """Return in how many minutes the plan of a case destroys a key; None: it destroys none."""
        try:
            plan = self._registry.plan_named(case.plan, case.kind)
        except (UnknownPackError, KeyError):
            return 0 if case.kind is Kind.REVOKE else None  # a plan that does not load: the time Confirm wrote counts
        planned = (plan.operations[name].effects for name in self._identities if name in plan.operations)
        found = [effects[DESTROYED_AFTER] for effects in planned if DESTROYED_AFTER in effects]
        return max(found, default=None)

    def _find_pack(self, name: str) -> Pack | None:
        """Return the version that says what law keeps for cases of a version: its own, else the newest that does."""
        versions = self._registry.list_versions(name.partition("/")[0])
        own = [pack for pack in versions if pack.id == name and pack.retentions is not None]
        return next(iter(own), None) or next((pack for pack in versions if pack.retentions is not None), None)

    async def _load_standings(self, accounts: Collection[int], now: datetime) -> Mapping[int, IdentityStanding]:
        """Return how the identities of accounts stand, and have law's part of them kept apart.

        The case is done, so what one data centre confirmed is true of all: where they differ, because one is silent or
        was restored from a backup, the one further on counts. Raises SilentIdentitiesError where none answers.
        """

        async def ask(name: str, one: ReclaimedIdentities) -> Mapping[int, IdentityStanding] | None:
            try:
                await one.retain_sealed(accounts, now)
                return await one.load_standings(accounts)
            except UNANSWERED as error:
                _log.warning("identities_unread", participant=name, error=type(error).__name__)
                return None

        answers = await asyncio.gather(*(ask(name, one) for name, one in self._identities.items()))
        heard = [answer for answer in answers if answer is not None]
        if not heard:
            raise SilentIdentitiesError
        found = dict[int, IdentityStanding]()
        for each in (standing for answer in heard for standing in answer.values()):
            known = found.get(each.account_id)
            if known is None or (known.epoch, known.reclaimed) < (each.epoch, each.reclaimed):
                found[each.account_id] = each
        return found

    async def _drop(self, ended: Sequence[tuple[int, int]]) -> None:
        """Delete the sealed bytes whose last key is gone; where a database is silent they stay, to no use."""

        async def ask(name: str, one: ReclaimedIdentities) -> None:
            try:
                await one.drop_retained(ended)
            except UNANSWERED as error:
                _log.warning("retained_bytes_stay", participant=name, error=type(error).__name__)

        await asyncio.gather(*(ask(name, one) for name, one in self._identities.items()))


class SilentIdentitiesError(Exception):
    """No data centre says how identities stand: the next turn asks again, and nothing is lost."""
