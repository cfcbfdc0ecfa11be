"""An open installation, and what runs on it: the API, a worker, an audit, a recovery."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.app.completeness import list_stand_ins
from jiebang.keys import InstallationKeys
from jiebang.model.ids import CaseIds
from jiebang.model.participants import ParticipantRegistry
from jiebang.participants.base import Participant
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.identity.documents import IdentityParticipant
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.remote import stand_ins
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.signing import Link
from jiebang.settings import IssuerSettings, Settings
from jiebang.store.cases import idempotency
from jiebang.store.postgres.database_clock import DatabaseClock
from jiebang.store.postgres.pool import WHOLE_TABLE, open_pools
from jiebang.store.postgres.shares import ServerShares
from jiebang.store.retention.key_wrapping import KeyLocks
from jiebang.store.timelines.seal_signing_keys import FOLDER, LAST_SEAL, SealKeys
from jiebang.store.timelines.witness import ChainMemory
from jiebang.usecases.cases.context import Context
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.operations.startup import Startup
from jiebang.usecases.policy.registry import PackRegistry
from jiebang.usecases.policy.shadow import Shadow

if TYPE_CHECKING:
    from jiebang.api.gate.admission import Admission
    from jiebang.participants.identity.reclaimed import ReclaimedIdentities
    from jiebang.remote.tokens import TokenVerifier
    from jiebang.saga.recovery_driver import RecoveryTally
    from jiebang.store.postgres.pool import Pool
    from jiebang.usecases.driving.recover import ReportWaiting
    from jiebang.usecases.operations.verify import VerificationReport
    from jiebang.usecases.periodic import Chore
    from jiebang.usecases.retention.destroy import KeyDestruction
    from jiebang.usecases.retention.keep import RetentionDesk
    from jiebang.usecases.timelines.seal import Sealer
    from jiebang.worker import Worker

_PURGE_BATCH: Final = 1_000
_PURGE_EVERY: Final = timedelta(minutes=1)
_TRANSFERS_EVERY: Final = timedelta(seconds=1)
_TRANSFER_GRACE: Final = timedelta(seconds=5)
"""A transfer without its second step after this time belonged to a process that died."""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """An open installation: what the commands, the API process and the worker process work with."""

    settings: Settings
    declared: ParticipantRegistry
    secrets: InstallationKeys
    locks: KeyLocks
    databases: Mapping[str, str]
    pools: Mapping[str, Pool]
    shares: ServerShares
    participants: Mapping[str, Participant]
    wallet: WalletParticipant
    case_ids: CaseIds
    seal_keys: SealKeys
    checker: Checker
    context: Context
    links: Mapping[str, Link]
    registry: PackRegistry
    clock: DatabaseClock
    """The time by which this process stamps and judges: the platform's database's."""
    startup: Startup
    """Done when the installation is opened, unless it was opened with `patient`."""
    shadow: Shadow
    resources: AsyncExitStack
    """What is closed together with the installation."""

    @property
    def issuer(self) -> IssuerSettings:
        """The trusted issuer of tokens: the configured one, else (where the sandbox may stand in) the sandbox's."""
        jwks = self.settings.home / stand_ins.JWKS
        stands_in = IssuerSettings(issuer=stand_ins.ISSUER, audience=stand_ins.AUDIENCE, jwks_file=jwks)
        return self.settings.issuer or stands_in

    def api(self) -> Admission:
        """Return the HTTP application, behind its gate."""
        from jiebang.api.application import create_app
        from jiebang.api.deps import Deps
        from jiebang.usecases.cases.follow import Follower

        return create_app(
            Deps(
                context=self.context,
                follower=Follower(self.context),
                verifier=self._verifier(),
                case_ids=self.case_ids,
                bodies_key=self.secrets.bodies,
                answers_key=self.secrets.answers,
                seal_keys=self.seal_keys.public(),
                capacity=self.settings.capacity,
                repeats=self.settings.repeats,
                joined=self.startup.done.is_set,
                clock_off=self.clock.find_off,
                held_up=lambda: self.startup.held_up,
                stand_ins=list_stand_ins(self.settings, self.declared),
            )
        )

    @property
    def anchor(self) -> Path:
        """The file outside the databases that holds the end of the chain of seals."""
        return self.settings.anchor or self.settings.home / "timeline-anchor.jsonl"

    @property
    def anchor_in_home(self) -> bool:
        """Whether the anchor lies where whoever has the home has it too: then it proves little."""
        return self.anchor.absolute().is_relative_to(self.settings.home.absolute())

    @property
    def last_seal(self) -> Path:
        """The file in which this host remembers the last seal it made."""
        return self.settings.keys / FOLDER / LAST_SEAL

    @property
    def chain_memory(self) -> ChainMemory:
        """Where the end of the chain of seals is remembered beside the anchor."""
        return ChainMemory(self.last_seal, self.pools["keys"])

    def sealing(self) -> Sealer:
        """Return the chore that seals timelines."""
        from jiebang.usecases.timelines.seal import Sealer

        return Sealer(
            pool=self.pools["platform"],
            keys=self.seal_keys,
            anchor_at=self.anchor,
            pace=self.settings.seals,
            memory=self.chain_memory,
            anchor_in_home=self.anchor_in_home,
        )

    def key_destruction(self) -> KeyDestruction:
        """Return the chore that destroys keys."""
        from jiebang.usecases.retention.destroy import KeyDestruction

        return KeyDestruction(
            platform=self.pools["platform"],
            keys=self.pools["keys"],
            identities=self.identities,
            registry=self.registry,
        )

    def retention_desk(self) -> RetentionDesk:
        """Return where operators ask for what law keeps."""
        from jiebang.usecases.retention.keep import RetentionDesk

        return RetentionDesk(
            platform=self.pools["platform"],
            keys=self.pools["keys"],
            identities=self.identities,
            retention=self.locks.retention,
        )

    @property
    def identities(self) -> Mapping[str, ReclaimedIdentities]:
        """The identities that were taken back, as each data centre knows them, by its database."""
        return {name: one.reclaimed for name, one in self.participants.items() if isinstance(one, IdentityParticipant)}

    def worker(self) -> Worker:
        """Return a worker with all its chores."""
        from jiebang.remote.gateway import HttpGateway
        from jiebang.usecases.cases.sweep_staged import StagedSweep
        from jiebang.usecases.checks.quota import Quotas, RecheckWithClaim
        from jiebang.usecases.driving.advance import Driver, Limits
        from jiebang.usecases.operations.delivery import Delivery
        from jiebang.usecases.operations.gauges import Gauges
        from jiebang.usecases.operations.tasks import TaskWatch
        from jiebang.usecases.periodic import PeriodicChore
        from jiebang.usecases.retention.second_lock import SecondLock
        from jiebang.worker import Worker

        pool = self.pools["platform"]
        driver = Driver(
            pool=pool,
            participants=self.participants,
            plan_of=self.context.plan_of,
            recheck=RecheckWithClaim(
                self.checker.recheck,
                Quotas(self.declared, self.participants, pool, self.clock),
                pool=pool,
                pack=self.registry.in_force,
                clock=self.clock,
            ),
            records=self.context.records,
            know=self.registry.know,
            clock=self.clock,
            timing=self.settings.saga,
            limits=Limits(),
        )
        chores: dict[str, Chore] = {
            "purge": PeriodicChore(self._purge, _PURGE_EVERY),
            "transfers": PeriodicChore(self._finish_transfers, _TRANSFERS_EVERY),
            "second_lock": PeriodicChore(SecondLock(self.pools["keys"], self.locks), _PURGE_EVERY),
            "keys": self.key_destruction(),
            "seals": self.sealing(),
            "tasks": TaskWatch(
                pool,
                self.registry.plan_of,
                limits=self.settings.tasks,
                timing=self.settings.saga,
                last_silence=driver.last_silence,
            ),
            "gauges": Gauges(
                pool,
                self.registry.plan_named,
                lease=self.settings.worker.lease,
                resend_limit=self.settings.saga.resend_limit,
                pace=self.settings.gauges,
            ),
        }
        databases = [one for one in self.participants.values() if isinstance(one, DatabaseParticipant)]
        if areas := {one.name: one.staging for one in databases if one.staging is not None}:
            chores["staged"] = PeriodicChore(StagedSweep(pool, areas), _PURGE_EVERY)
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
        return Worker(
            worker_id=name,
            pool=pool,
            driver=driver,
            chores=chores,
            clock=self.clock,
            pace=self.settings.worker,
            clock_off=self.clock.find_off,
        )

    async def verify(self, progress: Callable[[int], None] = lambda _done: None) -> VerificationReport:
        """Audit all databases and networks."""
        from jiebang.usecases.operations.verify import verify
        from jiebang.usecases.retention.audit import KeyAudit

        async with open_pools(
            {"wallet": self.databases["wallet"]}, size=1, settings=WHOLE_TABLE, shares=self.shares
        ) as whole:
            auditor = WalletParticipant(whole["wallet"], self.clock, pepper=self.secrets.passwords)
            return await verify(
                pool=self.pools["platform"],
                participants=self.participants,
                wallet=auditor,
                plan_of=self.registry.plan_of,
                keys=self.seal_keys,
                anchor_at=self.anchor,
                anchor_in_home=self.anchor_in_home,
                memory=self.chain_memory,
                data_keys=KeyAudit(self.pools["keys"], self.identities, self.clock),
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
        waiting: ReportWaiting = lambda _for, _left: None,
    ) -> RecoveryTally:
        """Recover after a restore from backup of the databases `restored`; see `usecases.driving.recover`.

        `patience`: how long to wait for open transfers, which it completes itself, since no worker runs meanwhile.
        `outcomes`, `papers`: see `saga.recovery`; InvalidInputError for a plan that was never in force.
        """
        from jiebang.model.check import Text
        from jiebang.model.errors import InvalidInputError
        from jiebang.participants.wallet import FUNDS_MOVING
        from jiebang.saga.recovery import RestoredInstallation
        from jiebang.usecases.driving.recover import RecoverySetup, recover

        plans = await self.registry.plans_ever_in_force()
        known = [f"{kind}@{plan.name}" for kind, plan in plans]
        if unknown := set(papers.values()).difference(known):
            names = ", ".join(known)
            reason = Text(f"没有这种方案;应为 {names}", f"there never was such a plan; known: {names}")
            raise InvalidInputError(field=", ".join(sorted(unknown)), reason=reason)
        return await recover(
            RecoverySetup(
                pool=self.pools["platform"],
                participants=self.participants,
                restored=RestoredInstallation(
                    plan_of=self.registry.plan_of,
                    plans=plans,
                    databases=restored,
                    gap=gap,
                    passing=(FUNDS_MOVING,),
                    patience=patience,
                    outcomes=outcomes,
                    papers=papers,
                ),
                clock=self.clock,
                still_within=6 * self.settings.worker.lease,
                each_turn=lambda: self.wallet.complete_pending(self.clock() - _TRANSFER_GRACE),
            ),
            by,
            dry_run=dry_run,
            progress=progress,
            waiting=waiting,
        )

    def _verifier(self) -> TokenVerifier:
        import httpx

        from jiebang.remote.tokens import IssuerKeys, TokenVerifier, keys_from_file, keys_from_url

        issuer = self.issuer
        if issuer.jwks_file is not None:
            read = keys_from_file(issuer.jwks_file)
        else:
            client = httpx.AsyncClient(timeout=5, follow_redirects=False)
            self.resources.push_async_callback(client.aclose)
            read = keys_from_url(str(issuer.jwks_url), client)
        return TokenVerifier(
            issuer=issuer.issuer, audience=issuer.audience, keys=IssuerKeys(read, self.clock), clock=self.clock
        )

    async def _purge(self, _buckets: frozenset[int], now: datetime) -> int:
        return await idempotency.purge(self.pools["platform"], now, _PURGE_BATCH)

    async def _finish_transfers(self, _buckets: frozenset[int], now: datetime) -> int:
        return await self.wallet.complete_pending(now - _TRANSFER_GRACE)
