"""A remote participant that only the settings declare goes the whole way, like a clearing network."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from jiebang.app import App, migrate, open_app
from jiebang.cli.cases.as_person import prove_case, submit_case
from jiebang.model.case import Kind, State
from jiebang.model.errors import InstallationIncompleteError, PackInvalidError
from jiebang.participants import PARTICIPANTS
from jiebang.participants.http import HttpParticipant
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.saga.fence import CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.settings import Settings, read_settings
from jiebang.store.encryption import password_hash
from jiebang.store.operations import tasks
from jiebang.store.postgres.data_directory import remove
from jiebang.usecases.operations import outages
from jiebang.usecases.operations.readiness import check_readiness
from jiebang.usecases.policy import lifecycle
from tests.newcomer.test_newcomer_installed import ended, working
from tests.newcomer.world import PASSWORD, SALT
from tests.patience import PATIENCE_S
from tests.rows import insert_accounts

EFFECTS: Final = {"points_kept": {"type": "int", "most": 100}, "notify": {"type": "bool"}}
ids: Iterator[int] = itertools.count(7_500_001)


def pack_text(operation: str = "close", effects: str = '{notify: true, points_kept: ":tries"}') -> tuple[str, str]:
    """The e-money pack with acme in its plan."""
    text, _ = packs.text("emoney")
    for old, new in (
        ("name: emoney", "name: with_acme"),
        ("owners:\n", 'owners:\n  acme: {zh: "某某商城", en: "the Acme shop"}\n'),
        ("identity_guiyang, security]", "identity_guiyang, security, acme]"),
        ("methods: [payment_password, sms_code]", "methods: [payment_password]"),
        ("      security: {op", f"      acme: {{operation: {operation}, effects: {effects}}}\n      security: {{op"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    return text, "with_acme.yaml"


def settings_of(home: Path, base_url: str, databases: Mapping[str, str]) -> Settings:
    """What an operator writes."""
    acme = {"base_url": base_url, "operations": {"close": {"effects": EFFECTS}}}
    environ = {
        "JIEBANG_HOME": str(home),
        "JIEBANG_DATABASES": json.dumps(databases),
        "JIEBANG_NETWORKS": json.dumps({"acme": acme}),
        "JIEBANG_SANDBOX": "true",
        "JIEBANG_SAGA_RESEND_LIMIT": "0.2",
        "JIEBANG_TASKS_SILENT": "0.5",
        "JIEBANG_TASKS_EVERY": "0.2",
    }
    return read_settings(environ, home)


@pytest.fixture(scope="module")
async def outside(new_folder: Callable[[str], Path]) -> AsyncIterator[Sandbox]:
    """The product's networks, and acme, which is another team's."""
    home = new_folder("acme") / "home"
    home.mkdir()
    async with sandbox(home, names=PARTICIPANTS.networks, others={"acme": ["close"]}) as running:
        yield running
    remove(home)


@pytest.fixture(scope="module")
async def app(outside: Sandbox, databases: Mapping[str, str]) -> AsyncIterator[App]:
    settings = settings_of(outside.home, outside.link("acme").base_url, databases)
    await migrate(settings)
    async with open_app(settings) as opened:
        platform, declared = opened.pools["platform"], opened.declared
        await lifecycle.add(platform, declared, *pack_text(), "Ann", datetime.now(UTC))
        for name in ("Ann", "Ben"):
            await lifecycle.activate(platform, declared, "with_acme/2", name, datetime.now(UTC))
        async with asyncio.timeout(PATIENCE_S):
            while opened.registry.in_force().id != "with_acme/2":  # noqa: ASYNC110 - the process looks by itself
                await asyncio.sleep(0.05)
        yield opened


@pytest.fixture
async def acme(outside: Sandbox) -> AsyncIterator[Control]:
    handle = Control(outside.link("acme"))
    yield handle
    await handle.set_faults([])
    await handle.aclose()


async def proven(app: App, count: int) -> list[int]:
    """People whose case is ready."""
    made = list(itertools.islice(ids, count))
    mark = password_hash(app.secrets.passwords, SALT, PASSWORD)
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", made
    )
    for name in PARTICIPANTS.databases:
        own = {"password_salt": SALT, "password_hash": mark} if name == "wallet" else {}
        await insert_accounts(app.pools[name], PARTICIPANTS.owner_of(name), made, **own)
    for account in made:
        case = await submit_case(app, account, Kind.REVOKE, None)
        assert (await prove_case(app, case["id"], PASSWORD, None, quiet=True))["state"] == State.READY.value
    return made


async def test_it_is_a_participant_like_the_clearing_networks(app: App) -> None:
    """Known to plans and not to `/ready`, it would fail every case while all looks well."""
    assert isinstance(app.participants["acme"], HttpParticipant)
    assert app.declared.networks == (*PARTICIPANTS.networks, "acme")
    ready = await check_readiness(app.context, timedelta(seconds=5))
    assert ready == dict.fromkeys(("platform", *app.declared.names), True)
    history = await outages.take_out(app.pools["platform"], ["acme"], "moves", "Ann", datetime.now(UTC), app.declared)
    assert history[0].participant == "acme"
    await outages.take_back(app.pools["platform"], ["acme"], "Ann", datetime.now(UTC), app.declared)


async def test_a_case_goes_through_with_it_or_not_at_all(app: App, acme: Control) -> None:
    """All or nothing holds of whoever takes part."""
    leaving, held = await proven(app, 2)
    await acme.set_faults([NetworkFault(FaultKind.REFUSE, accounts=(str(held),), code="ACME-ORDER-OPEN")])
    async with working(app):
        assert await ended(app, leaving, held) == {leaving: State.DONE, held: State.ABORTED}
    rows = await app.participants["acme"].look([leaving, held])
    assert rows == {leaving: FenceRow(1, CaseOp.CONFIRMED), held: FenceRow(1, CaseOp.CANCELLED)}
    assert (await app.verify()).clean


@pytest.mark.parametrize("op", [FaultOp.TRY, FaultOp.CONFIRM])
async def test_one_case_that_breaks_its_batch_there_holds_up_nobody_else(app: App, acme: Control, op: FaultOp) -> None:
    """One odd row at the other team would roll back, or keep half unbound, whoever happens to go with it."""
    bad, *others = await proven(app, 5)
    await acme.set_faults([NetworkFault(FaultKind.BREAK, ops=(op,), accounts=(str(bad),))])
    async with working(app):
        assert await ended(app, *others) == dict.fromkeys(others, State.DONE)
        if op is FaultOp.CONFIRM:
            rows = await app.participants["acme"].look([bad])
            assert rows == {bad: FenceRow(1, CaseOp.TRIED)}, "it is still asked for"
            await acme.set_faults([])
        assert await ended(app, bad) == {bad: State.ABORTED if op is FaultOp.TRY else State.DONE}


async def test_it_is_audited_and_recovered(app: App) -> None:
    """A restore at the other team must not leave a person half unbound."""
    (leaving,) = await proven(app, 1)
    async with working(app):
        await ended(app, leaving)
    planned = app.registry.in_force().plans[Kind.REVOKE].operations["acme"]
    party = app.participants["acme"]
    await party.apply(Op.TRY, [Order(leaving, 4)], planned)
    assert not (await app.verify()).clean, "a mark of no case, at acme alone"
    await asyncio.sleep(0.1)
    found = await app.recover(
        ["platform"], "Ann", gap=0, patience=timedelta(seconds=10), outcomes={}, papers={}, dry_run=False
    )
    assert not found.undecided
    async with working(app):
        await ended(app, leaving)
    assert await party.look([leaving]) == {leaving: FenceRow(4, CaseOp.CANCELLED)}
    assert (await app.verify()).clean


async def test_why_it_does_not_answer_reaches_the_log_and_the_task(app: App) -> None:
    """Its team wrote the reason into the problem detail; the operator's log said RemoteError and nothing else."""
    (stuck,) = await proven(app, 1)
    party = app.participants["acme"]
    assert isinstance(party, HttpParticipant)
    sent = party._client.send

    async def unknown_to_confirm(method: str, path: str, body: bytes = b"") -> bytes:
        # Another operation than acme has: its own answer, signed, is a 422 with what is wrong.
        return await sent(method, path, body.replace(b'"close"', b'"shut"') if path == "/confirm" else body)

    party._client.send = unknown_to_confirm  # type: ignore[method-assign]
    with capture_logs() as logs:
        async with working(app), asyncio.timeout(PATIENCE_S):
            while not (found := await tasks.load_open(app.pools["platform"], 9)):  # noqa: ASYNC110 - the worker raises it
                await asyncio.sleep(0.05)
            party._client.send = sent  # type: ignore[method-assign]
            assert await ended(app, stuck) == {stuck: State.DONE}
    said = "$.operation: there is no such operation; known are close"
    line = next(log for log in logs if log["event"] == "participant_silent" and log["participant"] == "acme")
    assert (line["status"], line["code"], line["detail"]) == (422, "INVALID-INPUT", said)
    assert [(task.kind, task.participant, task.note) for task in found] == [
        ("silent", "acme", f"answered 422 INVALID-INPUT {said}")
    ]


def test_a_plan_is_held_against_what_it_declares(tmp_path: Path) -> None:
    """An operation or an effect that the other team never heard of must not reach a case."""
    environ = {
        "JIEBANG_NETWORKS": json.dumps(
            {"acme": {"base_url": "https://a.example", "operations": {"close": {"effects": EFFECTS}}}}
        )
    }
    registry = read_settings(environ, tmp_path).declared
    assert load_pack(*pack_text(), registry).plans[Kind.REVOKE].operations["acme"].effects == {
        "notify": True,
        "points_kept": 5,
    }
    for text in (pack_text("shut"), pack_text(effects="{unheard_of: true}"), pack_text(effects="{points_kept: true}")):
        with pytest.raises(PackInvalidError):
            load_pack(*text, registry)
    with pytest.raises(PackInvalidError):
        load_pack(*pack_text(), PARTICIPANTS)


async def test_a_missing_key_file_is_named(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> None:
    """Whoever configures a participant for the first time has not exchanged keys yet."""
    home = new_folder("keyless") / "home"
    with pytest.raises(InstallationIncompleteError) as caught:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_app(settings_of(home, "https://acme.example", databases)))
    problems = caught.value.fields["problems"]
    assert {problem.where for problem in problems} == {"keys", "networks.acme"}
    for file in ("acme-request.pem", "acme-reply.pub.pem"):
        [problem] = [problem for problem in problems if file in problem.en]
        assert file in problem.zh
