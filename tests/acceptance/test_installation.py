"""What an installation needs before anything starts: told at once, beforehand too, and never made up."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import asyncpg
import msgspec
import pytest
from typer.testing import CliRunner

from jiebang.app import check_up, migrate, open_app, rotate_seal_key
from jiebang.cli.commands import cli
from jiebang.keys import list_missing, read_keys
from jiebang.model.errors import (
    InstallationIncompleteError,
    KeysDifferError,
    KeysMissingError,
    KeysUnrecordedError,
    PoolerInTheWayError,
)
from jiebang.participants import PARTICIPANTS
from jiebang.settings import IssuerSettings, NetworkSettings, Settings
from jiebang.store.postgres.shares import ConnectionLimits
from jiebang.store.timelines.seal_signing_keys import read_seal_keys
from tests.acceptance.test_cli import Ran, jiebang
from tests.pooler import pooled

NOT_SET = {"issuer", "gateway_url", *(f"networks.{name}" for name in PARTICIPANTS.networks)}


@pytest.fixture
async def host(databases: Mapping[str, str], tmp_path: Path) -> AsyncIterator[Settings]:
    """The first host of an installation that nobody has started yet; its records are taken away afterwards."""
    yield Settings(home=tmp_path / "one", keys=tmp_path / "one" / "keys", databases=databases, sandbox=True)
    platform = await asyncpg.connect(databases["platform"])
    await platform.execute("TRUNCATE platform.key_fingerprint, platform.account")
    await platform.close()


def another(host: Settings, tmp_path: Path) -> Settings:
    return msgspec.structs.replace(host, home=tmp_path / "two", keys=tmp_path / "two" / "keys")


async def _told(ran: Ran) -> set[str]:
    return {problem["where"] for problem in ran.json()["error"]["fields"]["problems"]}


async def test_no_stand_in_is_trusted_that_nobody_asked_for(host: Settings, tmp_path: Path) -> None:
    """With outside databases and no issuer named, whoever held the sandbox's key was anybody: a start refuses."""
    more = {"JIEBANG_DATABASES": msgspec.json.encode(host.databases).decode(), "JIEBANG_SANDBOX": "false"}
    await migrate(host)
    shutil.copytree(host.keys, tmp_path / "home" / "keys")
    served, worked, checked, in_zh, beforehand = await asyncio.gather(
        *(
            jiebang(tmp_path / "home", *arguments, "--json", more=more)
            for arguments in (("check", "1"), ("verify",), ("policy", "list"))
        ),
        jiebang(tmp_path / "home", "serve", language="zh", more=more),
        jiebang(tmp_path / "home", "config", "check", "--json", more=more),
    )
    for ran in (served, worked, checked):
        assert (ran.code, await _told(ran)) == (2, NOT_SET)
    assert in_zh.code == 2
    assert all(where in in_zh.errors for where in NOT_SET)
    assert (beforehand.code, beforehand.json()["complete"]) == (1, False)
    assert {problem["where"] for problem in beforehand.json()["problems"]} == NOT_SET
    assert not (tmp_path / "home" / "issuer-jwks.json").exists()


async def test_everything_that_is_missing_is_one_list(tmp_path: Path) -> None:
    """A key file of a network, the issuer's keys, a limit too small: one start tells them all."""
    settings = Settings(
        home=tmp_path,
        keys=tmp_path / "keys",
        databases=dict.fromkeys(("platform", "wallet", "social"), "postgresql://u@h/x"),
        networks={"unionpay": NetworkSettings(base_url="https://up.example")},
        gateway_url="https://gateway.example",
        issuer=IssuerSettings(issuer="i", audience="a", jwks_file=tmp_path / "jwks.json"),
        connections=ConnectionLimits(per_server=2),
    )
    with pytest.raises(InstallationIncompleteError) as caught:
        async with open_app(settings):
            pass
    found = caught.value.fields["problems"]
    assert [problem.where for problem in found] == [
        "networks.netsunion",
        "keys",
        *["networks.unionpay"] * 2,
        *["gateway_url"] * 2,
        "issuer.jwks_file",
        "connections.per_server",
    ]
    assert all(problem.zh and problem.en and problem.zh != problem.en for problem in found)


async def test_a_host_with_other_keys_is_refused(host: Settings, tmp_path: Path) -> None:
    """It would judge right passwords wrong until people are locked out, and know none of the case ids."""
    second = another(host, tmp_path)
    await migrate(host)
    with pytest.raises(InstallationIncompleteError) as incomplete:
        async with open_app(second):
            pass
    assert [problem.where for problem in incomplete.value.fields["problems"]] == ["keys"]
    with pytest.raises(KeysMissingError):  # an installation without people has keys all the same
        await migrate(second)
    assert len(list_missing(second.keys)) == len(list_missing(tmp_path / "nowhere"))
    shutil.copytree(host.keys, second.keys)
    await migrate(second)
    async with open_app(second) as app:
        assert app.startup.done.is_set()
    for name in ("passwords", "case_ids", "seals"):
        path = second.keys / f"{name}.key"
        kept, other = path.read_bytes(), bytes(len(path.read_bytes()))
        path.write_bytes(other)
        with pytest.raises(KeysDifferError) as caught:
            async with open_app(second, patient=True):
                pass
        assert caught.value.fields["keys"] == [f"{name}.key"]
        with pytest.raises(KeysDifferError):
            await migrate(second)
        assert "keys" in {problem.where for problem in (await check_up(second)).problems}
        path.write_bytes(kept)
    assert (await check_up(second)).complete


async def test_an_installation_of_before_keeps_its_keys(host: Settings) -> None:
    """It has people and keys and no record of them: the keys are recorded, never made anew."""
    await migrate(host)
    platform = await asyncpg.connect((host.databases or {})["platform"])
    await platform.execute("TRUNCATE platform.key_fingerprint")
    await platform.execute("INSERT INTO platform.account (account_id, created_at) VALUES (1, now())")
    with pytest.raises(KeysUnrecordedError):
        async with open_app(host):
            pass
    before = read_keys(host.keys)
    (host.keys / "master.key").rename(host.keys / "away")
    with pytest.raises(KeysMissingError) as caught:
        await migrate(host)
    assert caught.value.fields["keys"] == ["master.key"]
    (host.keys / "away").rename(host.keys / "master.key")
    await migrate(host)
    assert read_keys(host.keys) == before
    assert await platform.fetchval("SELECT count(*) FROM platform.key_fingerprint") == len(before.__struct_fields__)
    await platform.close()


async def test_two_hosts_migrating_at_once_end_with_one_set_of_keys(host: Settings, tmp_path: Path) -> None:
    """One of them makes the keys; the other is told to copy them, and makes none."""
    second = another(host, tmp_path)
    ended = await asyncio.gather(migrate(host), migrate(second), return_exceptions=True)
    assert [type(one) for one in ended if isinstance(one, BaseException)] == [KeysMissingError]
    assert sorted(bool(list_missing(one.keys)) for one in (host, second)) == [False, True]


async def test_the_key_of_the_seals_can_be_changed_and_no_other(host: Settings, tmp_path: Path) -> None:
    """What was signed before stays good; a host that still has the old key is refused until it has the new one."""
    await migrate(host)
    second = another(host, tmp_path)
    shutil.copytree(host.keys, second.keys)
    before = read_keys(host.keys)
    signed = read_seal_keys(host.keys, before.seals).sign(b"{}")
    await rotate_seal_key(host)
    after = read_keys(host.keys)
    assert after.seals != before.seals
    assert msgspec.structs.replace(after, seals=before.seals) == before
    async with open_app(host) as app:
        assert app.seal_keys.payload(signed) == b"{}"
    with pytest.raises(KeysDifferError):
        async with open_app(second):
            pass


async def test_a_pooler_in_transaction_mode_is_told_before_and_at_the_start(host: Settings) -> None:
    """It used to start there, and then to answer wrongly."""
    await migrate(host)
    async with pooled((host.databases or {})["platform"]) as dsn:
        settings = msgspec.structs.replace(host, databases={**(host.databases or {}), "platform": dsn})
        with pytest.raises(PoolerInTheWayError):
            async with open_app(settings, patient=True):
                pass
        found = await check_up(settings)
    assert [problem.where for problem in found.problems] == ["databases.platform"]


async def test_the_need_of_connections_is_told_against_what_the_server_gives(host: Settings) -> None:
    """One API and one worker once held 95 of 100 connections, and nobody had been told."""
    await migrate(host)
    found = await check_up(host)
    assert found.complete
    assert all(need.per_process == ConnectionLimits().per_server for need in found.servers)
    assert all(need.most is not None and need.most > 100 and need.open is not None for need in found.servers)
    greedy = msgspec.structs.replace(host, connections=ConnectionLimits(per_server=150, per_database=150))
    assert {problem.where for problem in (await check_up(greedy)).problems} == {"connections.per_server"}


async def test_a_password_typed_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    """Settings hold passwords of databases: what cannot be read is told without what it says."""
    values = ("postgresql://u:hush-hush@db/x", '["postgresql://u:hush-hush@db/x"]', "hush-hush", "x = 'hush-hush")
    ran = await asyncio.gather(
        *(jiebang(tmp_path, "config", "check", more={"JIEBANG_DATABASES": value}) for value in values),
        *(jiebang(tmp_path, "config", "show", "--json", more={"JIEBANG_DATABASES": value}) for value in values),
    )
    for each in ran:
        assert each.code == 2
        assert "JIEBANG_DATABASES" in each.out + each.errors
        assert "hush-hush" not in each.out + each.errors


async def test_settings_are_shown_without_passwords(host: Settings, tmp_path: Path) -> None:
    """Somebody pastes them into a ticket."""
    dsns = {name: f"postgresql://app:hush-hush@db/{name}?password=hush-hush" for name in host.databases or {}}
    more = {"JIEBANG_DATABASES": msgspec.json.encode(dsns).decode(), "JIEBANG_GATEWAY_URL": "https://u:hush-hush@g/x"}
    shown, machine = await asyncio.gather(
        jiebang(tmp_path, "config", "show", more=more), jiebang(tmp_path, "config", "show", "--json", more=more)
    )
    assert shown.code == machine.code == 0
    assert machine.json()["databases"]["wallet"] == "postgresql://app@db/wallet"
    assert machine.json()["saga"]["try_limit"] == 3
    assert "hush-hush" not in shown.out + machine.out


@pytest.mark.parametrize("arguments", [("demo", "--once"), ("migrate",), ("worker",)])
async def test_a_folder_that_cannot_be_written_is_told(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """`make demo` in a read-only checkout said "PermissionError" and where in our code."""
    (tmp_path / "file").touch()
    ran = await jiebang(tmp_path / "file" / "home", *arguments, more={"JIEBANG_SANDBOX": "true"})
    assert ran.code == 2, ran.errors
    assert "HOME-UNUSABLE" in ran.errors
    assert str(tmp_path / "file") in ran.errors


def test_a_home_is_made_by_those_alone_who_are_told_to(
    new_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`jiebang check 1` in any folder made 240 MB of databases, and then knew no account."""
    home = new_folder("nobody") / "home"
    commands = (
        ("check", "1"),
        ("submit", "1"),
        ("verify",),
        ("cases", "stuck"),
        ("tasks", "list"),
        ("workers", "list"),
        ("policy", "list"),
        ("seals", "status"),
        ("seals", "rotate"),
        ("participants", "list"),
        ("accounts", "load", __file__),
        ("remedy", "1", "PAY-BALANCE"),
        ("recover", "--restored", "platform", "--by", "Ann"),
    )
    monkeypatch.setenv("JIEBANG_HOME", str(home))
    for one in commands:
        ran = CliRunner().invoke(cli, [*one, "--json"])
        assert ran.exit_code == 2, (one, ran.output)
        error = msgspec.json.decode(ran.stdout)["error"]
        assert error["code"] == "NOT-INSTALLED", one
        assert "jiebang demo" in error["action"]["en"]
    assert not home.exists()
