"""Builds and joins every object from the settings.

The only reader of `settings`; there is no container and no global.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
import structlog

from jiebang.clock import utc_now
from jiebang.model.errors import ParticipantUnavailableError
from jiebang.model.facts import PLATFORM
from jiebang.model.ids import CaseIds
from jiebang.model.participants import ParticipantRegistry
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import UNANSWERED, Participant
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.http import HttpParticipant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import Wallet
from jiebang.policy import packs
from jiebang.remote import stand_ins
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.link_keys import create_keys, our_end
from jiebang.remote.signing import Link
from jiebang.settings import Issuer, Secrets, Settings, from_environment, read_secrets
from jiebang.store.cases import idempotency
from jiebang.store.checks.records import Records
from jiebang.store.postgres.data_directory import find
from jiebang.store.postgres.embedded import dsns, embedded, placement
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import WHOLE_TABLE, open_pools
from jiebang.store.timelines.seal_signing_keys import SealKeys, read_seal_keys
from jiebang.usecases.cases.context import Context
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.operations.startup import Joining
from jiebang.usecases.policy.registry import Registry
from jiebang.usecases.policy.shadow import Shadow

if TYPE_CHECKING:
    from jiebang.api.gate.admission import Admission
    from jiebang.remote.tokens import Verifier
    from jiebang.saga.recovery_driver import Found
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.driving.recover import ToldWaiting
    from jiebang.usecases.operations.verify import Report
    from jiebang.usecases.seldom import Chore
    from jiebang.usecases.timelines.seal import Sealing
    from jiebang.worker import Worker

POLICY: Final = "wechat"
"""The pack in force from the first start on, until people activate another."""
_NOWHERE: Final = "http://127.0.0.1:9"
"""Where a network is sought that nobody has named: nothing answers there, and silence rolls back."""
_PURGE_BATCH: Final = 1_000
_PURGE_EVERY: Final = timedelta(minutes=1)
_TRANSFERS_EVERY: Final = timedelta(seconds=1)
_TRANSFER_GRACE: Final = timedelta(seconds=5)
"""A transfer whose second step has not come by then belonged to a process that died."""

_log = structlog.get_logger(__name__)


def configured() -> Settings:
    """Return the settings of this process's environment. Raises SettingsError."""
    return from_environment()


def is_installed(settings: Settings) -> bool:
    """Whether there are databases: a command that only reads must not make them. Raises HomeUnusableError."""
    return settings.databases is not None or find(settings.home) is not None


async def migrate(settings: Settings, declared: ParticipantRegistry = PARTICIPANTS) -> Mapping[str, tuple[int, ...]]:
    """Bring every database to the newest schema; return the versions applied to each, by name.

    Raises the errors of `store.embedded`, and MigrationRefusedError.
    """
    if settings.databases is not None:
        return await migrate_all(settings.databases, declared)
    async with embedded(settings.home) as servers:
        return await migrate_all(await dsns(servers, placement(declared)), declared)


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A joined installation: what the commands, the API process and the worker process work with."""

    settings: Settings
    declared: ParticipantRegistry
    secrets: Secrets
    databases: Mapping[str, str]
    pools: Mapping[str, Pool]
    participants: Mapping[str, Participant]
    wallet: Wallet
    case_ids: CaseIds
    seal_keys: SealKeys
    checker: Checker
    context: Context
    links: Mapping[str, Link]
    registry: Registry
    joining: Joining
    """Done when the installation is opened, unless that was patient."""
    shadow: Shadow
    resources: AsyncExitStack
    """What is closed together with the installation."""

    @property
    def issuer(self) -> Issuer:
        """Whose tokens are trusted: the configured issuer's, else those of one whose keys are in the home."""
        jwks = self.settings.home / stand_ins.JWKS
        stands_in = Issuer(issuer=stand_ins.ISSUER, audience=stand_ins.AUDIENCE, jwks_file=jwks)
        return self.settings.issuer or stands_in

    def api(self) -> Admission:
        """Return the HTTP application, behind its gate."""
        from jiebang.api.application import create_app
        from jiebang.api.deps import Deps
        from jiebang.usecases.cases.find import Follower

        return create_app(
            Deps(
                context=self.context,
                follower=Follower(self.context),
                verifier=self._verifier(),
                case_ids=self.case_ids,
                bodies_key=self.secrets.bodies,
                seal_keys=self.seal_keys.public(),
                capacity=self.settings.capacity,
                repeats=self.settings.repeats,
                joined=self.joining.done.is_set,
            )
        )

    @property
    def anchor(self) -> Path:
        """The file outside the databases that holds the end of the chain of seals."""
        return self.settings.anchor or self.settings.home / "timeline-anchor.jsonl"

    def sealing(self) -> Sealing:
        """Return the chore that seals timelines."""
        from jiebang.usecases.timelines.seal import Sealing

        return Sealing(
            pool=self.pools["platform"], keys=self.seal_keys, anchor_at=self.anchor, pace=self.settings.seals
        )

    def worker(self) -> Worker:
        """Return a worker with all its chores."""
        from jiebang.remote.gateway import HttpGateway
        from jiebang.usecases.cases.sweep_staged import StagedSweep
        from jiebang.usecases.checks.quota import Claiming, Quotas
        from jiebang.usecases.driving.advance import Driver, Limits
        from jiebang.usecases.operations.delivery import Delivery
        from jiebang.usecases.operations.gauges import Gauges
        from jiebang.usecases.operations.tasks import Watch
        from jiebang.usecases.seldom import Seldom
        from jiebang.worker import Worker

        pool = self.pools["platform"]
        driver = Driver(
            pool=pool,
            participants=self.participants,
            plan_of=self.context.plan_of,
            recheck=Claiming(
                self.checker.recheck,
                Quotas(self.declared, self.participants, pool, utc_now),
                pool=pool,
                pack=self.registry.in_force,
                clock=utc_now,
            ),
            records=self.context.records,
            know=self.registry.know,
            clock=utc_now,
            timing=self.settings.saga,
            limits=Limits(),
        )
        chores: dict[str, Chore] = {
            "purge": Seldom(self._purge, _PURGE_EVERY),
            "transfers": Seldom(self._finish_transfers, _TRANSFERS_EVERY),
            "seals": self.sealing(),
            "tasks": Watch(pool, self.registry.plan_of, limits=self.settings.tasks, timing=self.settings.saga),
            "gauges": Gauges(
                pool,
                lambda pack, kind: self.registry.pack(pack).plans[kind],
                lease=self.settings.worker.lease,
                resend_limit=self.settings.saga.resend_limit,
                pace=self.settings.gauges,
            ),
        }
        databases = [one for one in self.participants.values() if isinstance(one, DatabaseParticipant)]
        if areas := {one.name: one.staging for one in databases if one.staging is not None}:
            chores["staged"] = Seldom(StagedSweep(pool, areas), _PURGE_EVERY)
        if GATEWAY in self.links:
            gateway = HttpGateway(self.links[GATEWAY])
            self.resources.push_async_callback(gateway.aclose)
            chores["messages"] = Delivery(
                pool=pool,
                gateway=gateway,
                pack=self.registry.in_force,
                pack_named=self.registry.pack,
                know=self.registry.know,
                case_ids=self.case_ids,
                codes_key=self.secrets.codes,
            )
        name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(3)}"
        return Worker(worker_id=name, pool=pool, driver=driver, chores=chores, clock=utc_now, pace=self.settings.worker)

    async def verify(self, progress: Callable[[int], None] = lambda _done: None) -> Report:
        """Audit all databases and networks."""
        from jiebang.usecases.operations.verify import verify

        async with open_pools({"wallet": self.databases["wallet"]}, size=1, settings=WHOLE_TABLE) as whole:
            auditor = Wallet(whole["wallet"], utc_now, pepper=self.secrets.passwords)
            return await verify(
                pool=self.pools["platform"],
                participants=self.participants,
                wallet=auditor,
                plan_of=self.registry.plan_of,
                keys=self.seal_keys,
                anchor_at=self.anchor,
                progress=progress,
            )

    async def recover(
        self,
        restored: Sequence[str],
        by: str,
        *,
        gap: int,
        patience: timedelta,
        outcomes: Mapping[tuple[int, int], bool],
        papers: Mapping[tuple[int, int], str],
        dry_run: bool,
        progress: Callable[[int], None] = lambda _done: None,
        waiting: ToldWaiting = lambda _for, _left: None,
    ) -> Found:
        """Recover after a restore from backup of the databases `restored`; see `usecases.recover`.

        `patience`: how long open transfers are waited for, which it completes itself, since no worker runs meanwhile.
        `outcomes`, `papers`: see `saga.proof.Restored`; InvalidInputError for a plan that was never in force.
        """
        from jiebang.model.check import Text
        from jiebang.model.errors import InvalidInputError
        from jiebang.participants.wallet import FUNDS_MOVING
        from jiebang.saga.recovery import Restored
        from jiebang.usecases.driving.recover import Recovering, recover

        plans = await self.registry.plans_ever_in_force()
        known = [f"{kind}@{plan.name}" for kind, plan in plans]
        if unknown := set(papers.values()).difference(known):
            told = ", ".join(known)
            reason = Text(f"没有这种方案;应为 {told}", f"there never was such a plan; known: {told}")
            raise InvalidInputError(field=", ".join(sorted(unknown)), reason=reason)
        return await recover(
            Recovering(
                pool=self.pools["platform"],
                participants=self.participants,
                restored=Restored(
                    plan_of=self.registry.plan_of,
                    plans=plans,
                    databases=restored,
                    gap=gap,
                    passing=(FUNDS_MOVING,),
                    patience=patience,
                    outcomes=outcomes,
                    papers=papers,
                ),
                clock=utc_now,
                still_within=6 * self.settings.worker.lease,
                meanwhile=lambda: self.wallet.complete_pending(utc_now() - _TRANSFER_GRACE),
            ),
            by,
            dry_run=dry_run,
            progress=progress,
            waiting=waiting,
        )

    def _verifier(self) -> Verifier:
        import httpx

        from jiebang.remote.tokens import IssuerKeys, Verifier, keys_from_file, keys_from_url

        issuer = self.issuer
        if issuer.jwks_file is not None:
            read = keys_from_file(issuer.jwks_file)
        else:
            client = httpx.AsyncClient(timeout=5, follow_redirects=False)
            self.resources.push_async_callback(client.aclose)
            read = keys_from_url(str(issuer.jwks_url), client)
        return Verifier(issuer=issuer.issuer, audience=issuer.audience, keys=IssuerKeys(read, utc_now), clock=utc_now)

    async def _purge(self, _buckets: frozenset[int], now: datetime) -> int:
        return await idempotency.purge(self.pools["platform"], now, _PURGE_BATCH)

    async def _finish_transfers(self, _buckets: frozenset[int], now: datetime) -> int:
        return await self.wallet.complete_pending(now - _TRANSFER_GRACE)


@asynccontextmanager
async def open_app(
    settings: Settings, *, declared: ParticipantRegistry = PARTICIPANTS, pool_size: int = 8, patient: bool = False
) -> AsyncIterator[App]:
    """Open an installation: databases (embedded ones are started and migrated), keys, policy, participants.

    Raises the errors of `store.embedded`, HomeUnusableError, PackInvalidError, MigrationRefusedError, NotMigratedError
    for outside databases that are behind, and ParticipantUnavailableError when the platform's own does not answer.
    `patient`, for processes that stay: it is waited for, for ever; `App.joining` says when it has come.
    """
    async with AsyncExitStack() as stack:
        keys = read_secrets(settings.keys)
        seal_keys = read_seal_keys(settings.keys, keys.seals)
        if settings.databases is None:
            servers = await stack.enter_async_context(embedded(settings.home))
            databases: Mapping[str, str] = await dsns(servers, placement(declared))
            await migrate_all(databases, declared)
        else:
            databases = settings.databases
        pools = await stack.enter_async_context(open_pools(databases, size=pool_size, patient=patient))
        found = find_links(settings, declared)
        networks = {name: HttpParticipant(found[name]) for name in declared.networks}
        for network in networks.values():
            stack.push_async_callback(network.aclose)
        owned = open_participants(declared, pools, utc_now, pepper=keys.passwords)
        registry = Registry(pools["platform"], declared, utc_now)
        joining = Joining(pools, registry, {name: packs.text(name) for name in packs.NAMES}, POLICY, utc_now)
        try:
            await joining.join()
        except UNANSWERED as error:
            if not patient:
                raise ParticipantUnavailableError(participant=PLATFORM, error=type(error).__name__) from error
        shadow = Shadow(pools["platform"], registry.shadow)
        for loop in (joining.run(), shadow.run()):
            stack.push_async_callback(_ended, asyncio.create_task(loop))
        try:
            parties: dict[str, Participant] = {**owned, **networks}
            yield _joined(settings, keys, seal_keys, databases, pools, parties, found, registry, joining, shadow, stack)
        finally:
            with suppress(*UNANSWERED):
                await shadow.flush()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def find_links(settings: Settings, declared: ParticipantRegistry) -> dict[str, Link]:
    """Return our ends of the links to the networks and the gateway: the configured ones, else those that stand in."""
    try:
        found = stand_ins.links(settings.home, (*declared.networks, GATEWAY))
    except OSError:
        found = {}
    for name, network in (settings.networks or {}).items():
        found[name] = our_end(network.keys or settings.keys, name, network.base_url)
    if settings.gateway_url is not None:
        found[GATEWAY] = our_end(settings.keys, GATEWAY, settings.gateway_url)
    for name in declared.networks:
        if name not in found:
            _log.warning("network_not_configured", network=name)
            create_keys(settings.keys, name)
            found[name] = our_end(settings.keys, name, _NOWHERE)
    return found


def _joined(
    settings: Settings,
    keys: Secrets,
    seal_keys: SealKeys,
    databases: Mapping[str, str],
    pools: Mapping[str, Pool],
    participants: Mapping[str, Participant],
    links: Mapping[str, Link],
    registry: Registry,
    joining: Joining,
    shadow: Shadow,
    resources: AsyncExitStack,
) -> App:
    case_ids = CaseIds(keys.case_ids)
    wallet = participants["wallet"]
    if not isinstance(wallet, Wallet):
        raise TypeError("the wallet must keep money")
    checker = Checker(
        registry=registry.declared,
        pack=registry.in_force,
        participants=participants,
        platform=pools["platform"],
        case_ids=case_ids,
        clock=utc_now,
        shadow=shadow,
    )
    context = Context(
        platform=pools["platform"],
        participants=participants,
        wallet=wallet,
        check=checker,
        examine=checker.examine,
        pack=registry.in_force,
        plan_of=registry.plan_of,
        pack_named=registry.pack,
        know=registry.know,
        records=Records(keys.records, lambda: secrets.token_bytes(16)),
        clock=utc_now,
        new_id=uuid4,
        new_nonce=lambda: secrets.token_bytes(16),
        codes_key=keys.codes,
        timing=settings.saga,
    )
    return App(
        settings=settings,
        declared=registry.declared,
        secrets=keys,
        databases=databases,
        pools=pools,
        participants=participants,
        wallet=wallet,
        case_ids=case_ids,
        seal_keys=seal_keys,
        checker=checker,
        context=context,
        links=links,
        registry=registry,
        joining=joining,
        shadow=shadow,
        resources=resources,
    )
