"""Open an installation: build every object from the settings and pass it to those that need it.

There is no container and no global.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from jiebang.app.installation import App
from jiebang.clock import utc_now
from jiebang.keys import InstallationKeys, read_keys
from jiebang.model.errors import ParticipantUnavailableError
from jiebang.model.facts import PLATFORM
from jiebang.model.ids import CaseIds
from jiebang.model.participants import ParticipantRegistry
from jiebang.participants import PARTICIPANTS
from jiebang.participants.base import UNANSWERED, Participant
from jiebang.participants.http import HttpParticipant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy import packs
from jiebang.remote import stand_ins
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.link_keys import create_keys, read_our_end
from jiebang.remote.signing import Link
from jiebang.settings import Settings, read_environment
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.postgres.data_directory import find
from jiebang.store.postgres.embedded import embedded, ensure_databases, placement
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools
from jiebang.store.timelines.seal_signing_keys import SealKeys, read_seal_keys
from jiebang.usecases.cases.context import Context
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.operations.startup import Startup
from jiebang.usecases.policy.registry import PackRegistry
from jiebang.usecases.policy.shadow import Shadow

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

POLICY: Final = "wechat"
"""The pack in force from the first start on, until people activate another."""
_NOWHERE: Final = "http://127.0.0.1:9"
"""The address of a network that is not configured: nothing answers there, and silence rolls back."""

_log = structlog.get_logger(__name__)


def load_settings() -> Settings:
    """Return the settings of this process's environment. Raises SettingsError."""
    return read_environment()


def is_installed(settings: Settings) -> bool:
    """Whether there are databases: a command that only reads must not make them. Raises HomeUnusableError."""
    return settings.databases is not None or find(settings.home) is not None


async def migrate(settings: Settings, declared: ParticipantRegistry = PARTICIPANTS) -> Mapping[str, tuple[int, ...]]:
    """Bring every database to the newest schema; return the versions applied to each, by name.

    Raises the errors of `embedded`, and MigrationRefusedError.
    """
    if settings.databases is not None:
        return await migrate_all(settings.databases, declared)
    async with embedded(settings.home) as servers:
        return await migrate_all(await ensure_databases(servers, placement(declared)), declared)


@asynccontextmanager
async def open_app(
    settings: Settings, *, declared: ParticipantRegistry = PARTICIPANTS, pool_size: int = 8, patient: bool = False
) -> AsyncIterator[App]:
    """Open an installation: databases (embedded ones are started and migrated), keys, policy, participants.

    Raises the errors of `embedded`, HomeUnusableError, PackInvalidError, MigrationRefusedError, NotMigratedError
    for outside databases with an older schema, and ParticipantUnavailableError if the platform's own does not answer.
    `patient`, for long-running processes: wait for it for ever; `App.startup` says when it has answered.
    """
    async with AsyncExitStack() as stack:
        keys = read_keys(settings.keys)
        seal_keys = read_seal_keys(settings.keys, keys.seals)
        if settings.databases is None:
            servers = await stack.enter_async_context(embedded(settings.home))
            databases: Mapping[str, str] = await ensure_databases(servers, placement(declared))
            await migrate_all(databases, declared)
        else:
            databases = settings.databases
        pools = await stack.enter_async_context(open_pools(databases, size=pool_size, patient=patient))
        links = find_links(settings, declared)
        networks = {name: HttpParticipant(links[name]) for name in declared.networks}
        for network in networks.values():
            stack.push_async_callback(network.aclose)
        owned = open_participants(declared, pools, utc_now, pepper=keys.passwords)
        registry = PackRegistry(pools["platform"], declared, utc_now)
        startup = Startup(pools, registry, {name: packs.text(name) for name in packs.NAMES}, POLICY, utc_now)
        try:
            await startup.attempt()
        except UNANSWERED as error:
            if not patient:
                raise ParticipantUnavailableError(participant=PLATFORM, error=type(error).__name__) from error
        shadow = Shadow(pools["platform"], registry.shadow)
        for loop in (startup.run(), shadow.run()):
            stack.push_async_callback(_cancel, asyncio.create_task(loop))
        try:
            parties: dict[str, Participant] = {**owned, **networks}
            yield _build_app(
                settings, keys, seal_keys, databases, pools, parties, links, registry, startup, shadow, stack
            )
        finally:
            with suppress(*UNANSWERED):
                await shadow.flush()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def find_links(settings: Settings, declared: ParticipantRegistry) -> dict[str, Link]:
    """Return our ends of the links to the networks and the gateway: the configured ones, else those of a sandbox."""
    try:
        links = stand_ins.read_links(settings.home, (*declared.networks, GATEWAY))
    except OSError:
        links = {}
    for name, network in (settings.networks or {}).items():
        links[name] = read_our_end(network.keys or settings.keys, name, network.base_url)
    if settings.gateway_url is not None:
        links[GATEWAY] = read_our_end(settings.keys, GATEWAY, settings.gateway_url)
    for name in declared.networks:
        if name not in links:
            _log.warning("network_not_configured", network=name)
            create_keys(settings.keys, name)
            links[name] = read_our_end(settings.keys, name, _NOWHERE)
    return links


def _build_app(
    settings: Settings,
    keys: InstallationKeys,
    seal_keys: SealKeys,
    databases: Mapping[str, str],
    pools: Mapping[str, Pool],
    participants: Mapping[str, Participant],
    links: Mapping[str, Link],
    registry: PackRegistry,
    startup: Startup,
    shadow: Shadow,
    resources: AsyncExitStack,
) -> App:
    case_ids = CaseIds(keys.case_ids)
    wallet = participants["wallet"]
    if not isinstance(wallet, WalletParticipant):
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
        records=CheckRecordStore(keys.records, lambda: secrets.token_bytes(16)),
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
        startup=startup,
        shadow=shadow,
        resources=resources,
    )
