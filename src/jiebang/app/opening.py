"""Open an installation: build every object from the settings and pass it to those that need it.

There is no container and no global.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from jiebang.app.completeness import list_gaps, may_stand_in
from jiebang.app.installation import App
from jiebang.clock import utc_now
from jiebang.keys import (
    InstallationKeys,
    compute_fingerprints,
    list_missing,
    make_keys,
    read_keys,
    read_previous,
    replace_key,
)
from jiebang.model.errors import InstallationIncompleteError, ParticipantUnavailableError, SettingsError
from jiebang.model.facts import PLATFORM
from jiebang.model.ids import CaseIds
from jiebang.model.participants import ParticipantRegistry
from jiebang.participants.base import UNANSWERED, Participant
from jiebang.participants.http import HttpParticipant
from jiebang.participants.opening import open_participants
from jiebang.participants.wallet.money import WalletParticipant
from jiebang.policy import packs
from jiebang.remote import stand_ins
from jiebang.remote.gateway import GATEWAY
from jiebang.remote.link_keys import create_keys, read_our_end
from jiebang.remote.signing import Link
from jiebang.remote.verifier import VERIFIER, HttpVerifier
from jiebang.settings import NetworkSettings, Settings, SettingsProblem, read_environment
from jiebang.store.checks.records import CheckRecordStore
from jiebang.store.postgres.data_directory import find
from jiebang.store.postgres.database_clock import DatabaseClock
from jiebang.store.postgres.embedded import embedded, ensure_databases, placement
from jiebang.store.postgres.migrate import migrate_all
from jiebang.store.postgres.pool import open_pools
from jiebang.store.postgres.shares import ServerShares
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, FileWrappingKey, KeyLocks
from jiebang.store.sealing import IdentitySealer
from jiebang.store.timelines.seal_signing_keys import SealKeys, read_seal_keys
from jiebang.usecases.cases.context import Context
from jiebang.usecases.checks.check import Checker
from jiebang.usecases.checks.quota import Quotas
from jiebang.usecases.operations.key_fingerprints import (
    SEALS,
    HeldKeys,
    establish_keys,
    record_new_key,
    require_recorded,
)
from jiebang.usecases.operations.startup import Startup
from jiebang.usecases.policy.registry import PackRegistry
from jiebang.usecases.policy.shadow import Shadow

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

POLICY: Final = "wechat"
"""The pack in force from the first start on, until people activate another."""
_NOWHERE: Final = "http://127.0.0.1:9"
"""The address of a sandbox's network that does not run: nothing answers there, and silence rolls back."""

_log = structlog.get_logger(__name__)


def load_settings() -> Settings:
    """Return the settings of this process's environment. Raises SettingsError."""
    return read_environment()


def is_installed(settings: Settings) -> bool:
    """Whether there are databases: a command that only reads must not make them. Raises HomeUnusableError."""
    return settings.databases is not None or find(settings.home) is not None


async def migrate(settings: Settings, declared: ParticipantRegistry | None = None) -> Mapping[str, tuple[int, ...]]:
    """Bring every database to the newest schema; return the versions applied to each, by name.

    `declared`: the participants, where they are not those of the settings.

    The keys of an empty installation are made, and those of any are recorded. Raises the errors of `embedded`,
    MigrationRefusedError, ParticipantUnavailableError, KeysMissingError, KeysDifferError and HomeUnusableError.
    """
    declared = declared or settings.declared
    if settings.databases is not None:
        return await _migrate(settings, settings.databases, declared)
    async with embedded(settings.home) as servers:
        return await _migrate(settings, await ensure_databases(servers, placement(declared)), declared)


async def _migrate(
    settings: Settings, databases: Mapping[str, str], declared: ParticipantRegistry
) -> Mapping[str, tuple[int, ...]]:
    done = await migrate_all(databases, declared)
    async with (
        open_pools({PLATFORM: databases[PLATFORM]}, size=1) as pools,
        pools[PLATFORM].acquire() as connection,
        connection.transaction(),
    ):
        await establish_keys(
            connection,
            str(settings.keys),
            list_missing(settings.keys),
            lambda names: make_keys(settings.keys, names),
            lambda: hold_keys(settings.keys, read_keys(settings.keys)),
            utc_now(),
        )
    return done


async def rotate_seal_key(settings: Settings, declared: ParticipantRegistry | None = None) -> None:
    """Make a new key for the seals and record it: processes and hosts with the old one refuse to start again.

    The file is written first: cut off in between, nothing starts with it, and this can be repeated. Raises
    HomeUnusableError, and the errors of `embedded` and `open_pools`.
    """
    async with AsyncExitStack() as stack:
        if settings.databases is None:
            servers = await stack.enter_async_context(embedded(settings.home))
            databases: Mapping[str, str] = await ensure_databases(servers, placement(declared or settings.declared))
        else:
            databases = settings.databases
        pools = await stack.enter_async_context(open_pools({PLATFORM: databases[PLATFORM]}, size=1))
        before = read_keys(settings.keys)
        read_seal_keys(settings.keys, before.seals)  # its public key stays beside
        connection = await stack.enter_async_context(pools[PLATFORM].acquire())
        await stack.enter_async_context(connection.transaction())
        await require_recorded(connection)
        replace_key(settings.keys, SEALS)
        fingerprints = compute_fingerprints(read_keys(settings.keys))
        await record_new_key(connection, SEALS, fingerprints[SEALS], utc_now())


def open_locks(settings: Settings, keys: InstallationKeys) -> KeyLocks:
    """Return both locks on data keys, from the files in the folder of keys. Raises HomeUnusableError.

    A key management service goes in here, in the place of either file.
    """
    files = {
        name: FileWrappingKey(name, key, secrets.token_bytes, read_previous(settings.keys, name))
        for name, key in ((MASTER, keys.master), (RETENTION, keys.retention))
    }
    return KeyLocks(master=files[MASTER], retention=files[RETENTION], cipher=settings.cipher)


def hold_keys(folder: Path, keys: InstallationKeys) -> HeldKeys:
    """Return what tells this host's keys from others."""
    return HeldKeys(folder=str(folder), fingerprints=compute_fingerprints(keys))


@asynccontextmanager
async def open_app(
    settings: Settings, *, declared: ParticipantRegistry | None = None, pool_size: int = 8, patient: bool = False
) -> AsyncIterator[App]:
    """Open an installation: databases (embedded ones are started and migrated), keys, policy, participants.

    `declared`: the participants, where they are not those of the settings. `pool_size`: the most connections to one
    database, within the settings' limits. Raises InstallationIncompleteError with everything that is missing, the
    errors of `embedded` and of `migrate`, PackInvalidError, and for outside databases those of `Startup.attempt`;
    ParticipantUnavailableError if the platform's own does not answer. `patient`, for long-running processes: wait for
    it for ever; `App.startup` says when it has answered.
    """
    declared = declared or settings.declared
    if gaps := list_gaps(settings, declared):
        raise InstallationIncompleteError(problems=gaps)
    async with AsyncExitStack() as stack:
        if settings.databases is None:
            servers = await stack.enter_async_context(embedded(settings.home))
            databases: Mapping[str, str] = await ensure_databases(servers, placement(declared or settings.declared))
            await _migrate(settings, databases, declared)
        else:
            databases = settings.databases
        keys = read_keys(settings.keys)
        seal_keys = read_seal_keys(settings.keys, keys.seals)
        shares = ServerShares(settings.connections.per_server)
        size = min(pool_size, settings.connections.per_database)
        pools = await stack.enter_async_context(open_pools(databases, size=size, patient=patient, shares=shares))
        links = find_links(settings, declared)
        networks = {name: HttpParticipant(links[name], limit=find_limit(settings, name)) for name in declared.networks}
        for network in networks.values():
            stack.push_async_callback(network.aclose)
        clock = DatabaseClock()
        owned = open_participants(declared, pools, clock, pepper=keys.passwords)
        registry = PackRegistry(pools["platform"], declared, clock)
        shipped = {name: packs.text(name) for name in packs.NAMES}
        startup = Startup(pools, registry, shipped, POLICY, clock, hold_keys(settings.keys, keys))
        try:
            await startup.attempt()
        except UNANSWERED as error:
            if not patient:
                raise (startup.held_up or ParticipantUnavailableError(participant=PLATFORM)) from error
        shadow = Shadow(pools["platform"], registry.shadow)
        for loop in (startup.run(), shadow.run(), clock.run(pools[PLATFORM])):
            stack.push_async_callback(_cancel, asyncio.create_task(loop))
        try:
            parties: dict[str, Participant] = {**owned, **networks}
            yield _build_app(
                settings,
                keys,
                seal_keys,
                databases,
                pools,
                shares,
                parties,
                links,
                registry,
                clock,
                startup,
                shadow,
                stack,
            )
        finally:
            with suppress(*UNANSWERED):
                await shadow.flush()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def find_links(settings: Settings, declared: ParticipantRegistry) -> dict[str, Link]:
    """Return our ends of the links to the networks and the gateway: the configured ones, else the sandbox's.

    A network for which the sandbox may stand in, but does not run, gets an address where nothing answers. Raises
    SettingsError where a key file of a configured network is missing.
    """
    links = dict[str, Link]()
    if may_stand_in(settings):
        with suppress(OSError):
            links = stand_ins.read_links(settings.home, (*declared.networks, GATEWAY, VERIFIER))
    problems = list[SettingsProblem]()
    for name, network in (settings.networks or {}).items():
        try:
            links[name] = read_our_end(network.keys or settings.keys, name, network.base_url)
        except OSError as error:
            zh = f"无法读取密钥文件 {error.filename};见 docs/zh/remote-participants.md"
            en = f"cannot read the key file {error.filename}; see docs/remote-participants.md"
            problems.append(SettingsProblem(f"networks.{name}.keys", zh, en))
    if problems:
        raise SettingsError(problems=tuple(problems))
    if settings.gateway_url is not None:
        links[GATEWAY] = read_our_end(settings.keys, GATEWAY, settings.gateway_url)
    if settings.verifier_url is not None:
        links[VERIFIER] = read_our_end(settings.keys, VERIFIER, settings.verifier_url)
    for name in declared.networks:
        if name not in links:
            _log.warning("sandbox_not_running", network=name)
            create_keys(settings.home / stand_ins.KEYS, name)
            links[name] = read_our_end(settings.home / stand_ins.KEYS, name, _NOWHERE)
    return links


def find_limit(settings: Settings, network: str) -> float:
    """Return the seconds within which a network must answer."""
    configured = (settings.networks or {}).get(network)
    limit = NetworkSettings(base_url=_NOWHERE).limit if configured is None else configured.limit
    return limit.total_seconds()


def _build_app(
    settings: Settings,
    keys: InstallationKeys,
    seal_keys: SealKeys,
    databases: Mapping[str, str],
    pools: Mapping[str, Pool],
    shares: ServerShares,
    participants: Mapping[str, Participant],
    links: Mapping[str, Link],
    registry: PackRegistry,
    clock: DatabaseClock,
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
        clock=clock,
        shadow=shadow,
    )
    locks, verifier = open_locks(settings, keys), None
    if VERIFIER in links:
        verifier = HttpVerifier(links[VERIFIER])
        resources.push_async_callback(verifier.aclose)
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
        clock=clock,
        new_id=uuid4,
        new_nonce=lambda: secrets.token_bytes(16),
        codes_key=keys.codes,
        timing=settings.saga,
        verifier=verifier,
        identities=IdentitySealer(pools["keys"], locks, keys.documents, secrets.token_bytes),
        quotas=Quotas(registry.declared, participants, pools["platform"], clock),
    )
    return App(
        settings=settings,
        declared=registry.declared,
        secrets=keys,
        locks=locks,
        databases=databases,
        pools=pools,
        shares=shares,
        participants=participants,
        wallet=wallet,
        case_ids=case_ids,
        seal_keys=seal_keys,
        checker=checker,
        context=context,
        links=links,
        registry=registry,
        clock=clock,
        startup=startup,
        shadow=shadow,
        resources=resources,
    )
