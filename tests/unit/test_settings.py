"""Settings: every source, and everything that is wrong told at once, in both languages, without a password."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jiebang.keys import make_keys, read_keys
from jiebang.model.errors import HomeUnusableError, SettingsError
from jiebang.participants import PARTICIPANTS
from jiebang.settings import Settings, SettingsProblem, read_settings
from jiebang.store.postgres.embedded import placement

DSNS = {name: f"postgresql://app:hush@db.example:5432/{name}" for name in placement(PARTICIPANTS)}


def problems(environ: dict[str, str], folder: Path) -> dict[str, SettingsProblem]:
    with pytest.raises(SettingsError) as caught:
        read_settings(environ, folder)
    found = caught.value.fields["problems"]
    assert all(problem.zh and problem.en for problem in found)
    assert "hush" not in repr(caught.value) + repr(found)
    return {problem.where: problem for problem in found}


def test_nothing_set_means_embedded_and_sandbox(tmp_path: Path) -> None:
    """Breaks `make demo` on a fresh machine."""
    found = read_settings({"PATH": "/bin"}, tmp_path)
    assert found == Settings(home=tmp_path / ".jiebang", keys=tmp_path / ".jiebang/keys")
    assert found.saga.try_limit == timedelta(seconds=3)


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    """Breaks an operator who overrides one value for one process."""
    folder = tmp_path / "配置 dir"
    folder.mkdir()
    (folder / "own.toml").write_text(
        """
        home = "data"
        [http]
        port = 9000
        host = "::1"
        [saga]
        try_limit = 4.5
        [issuer]
        issuer = "https://id.example"
        audience = "jiebang"
        jwks_file = "jwks.json"
        [networks.unionpay]
        base_url = "https://up.example"
        keys = "up"
        [networks.netsunion]
        base_url = "http://127.0.0.1:9"
        limit = 0.5
        """
    )
    environ = {
        "JIEBANG_SETTINGS": str(folder / "own.toml"),
        "JIEBANG_HTTP_PORT": "0",
        "JIEBANG_WORKER_LEASE": "1.5",
        "JIEBANG_GAUGES_STUCK_AFTER": "60",
        "JIEBANG_REPEATS_HELD": "12.5",
        "JIEBANG_KEYS": "elsewhere",
        "JIEBANG_DATABASES": json.dumps(DSNS),
    }
    found = read_settings(environ, tmp_path)
    assert (found.http.host, found.http.port) == ("::1", 0)
    assert found.home == folder / "data"
    assert found.keys == tmp_path / "elsewhere"
    assert found.saga.try_limit == timedelta(seconds=4.5)
    assert found.worker.lease == timedelta(seconds=1.5)
    assert (found.gauges.stuck_after, found.gauges.every) == (timedelta(minutes=1), timedelta(seconds=10))
    assert (found.repeats.held, found.repeats.kept) == (timedelta(seconds=12.5), timedelta(hours=24))
    assert found.issuer is not None
    assert found.issuer.jwks_file == folder / "jwks.json"
    assert found.networks is not None
    assert found.networks["unionpay"].keys == folder / "up"
    assert found.networks["netsunion"].limit == timedelta(seconds=0.5)
    assert found.databases == DSNS
    assert "hush" not in repr(found)


def test_databases_come_as_json_as_toml_or_from_a_file_of_either(tmp_path: Path) -> None:
    """Breaks whoever runs jiebang on outside servers, in the one form they have."""
    toml = "\n".join(f'{name} = "{dsn}"' for name, dsn in DSNS.items())
    (tmp_path / "dbs.json").write_text(json.dumps(DSNS))
    (tmp_path / "dbs.toml").write_text(toml)
    (tmp_path / "whole.toml").write_text(f'home = "x"\n[databases]\n{toml}')
    for value in (json.dumps(DSNS), toml, "dbs.json", "dbs.toml", str(tmp_path / "whole.toml")):
        assert read_settings({"JIEBANG_DATABASES": value}, tmp_path).databases == DSNS


def test_missing_and_unknown_databases_are_named(tmp_path: Path) -> None:
    """Breaks the operator who has ten databases and no idea which one is meant."""
    given = {**DSNS, "walet": DSNS["wallet"], "social": "mysql://u:hush@h/social", "gaming": 5}
    del given["wallet"]
    given["identity_guiyang"] = given["identity_shenzhen"]
    found = problems({"JIEBANG_DATABASES": json.dumps(given)}, tmp_path)
    assert set(found) == {
        "databases.wallet",
        "databases.walet",
        "databases.social",
        "databases.gaming",
        "databases.identity_shenzhen",
    }
    assert "identity_guiyang" in found["databases.identity_shenzhen"].en


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Breaks the operator's evening: one error fixed, the next one shown."""
    (tmp_path / "jiebang.toml").write_text(
        """
        colour = "red"
        phone_url = "ftp://x"
        saga = 3
        [http]
        port = 70000
        [worker]
        batch = 0
        lease = -1
        speed = 9
        [issuer]
        issuer = ""
        jwks_url = "https://id.example/jwks"
        jwks_file = "jwks.json"
        [networks.unionpay]
        base_url = "up.example"
        """
    )
    environ = {"JIEBANG_HTTP_PROT": "1", "JIEBANG_SAGA_RESEND": "soon", "JIEBANG_HOME": ""}
    assert set(problems(environ, tmp_path)) == {
        "home",
        "colour",
        "phone_url",
        "saga",
        "http.port",
        "worker.batch",
        "worker.lease",
        "worker.speed",
        "issuer",
        "issuer.issuer",
        "issuer.audience",
        "networks.unionpay.base_url",
        "networks.netsunion",
        "JIEBANG_HTTP_PROT",
    }


@pytest.mark.parametrize("name", ["gateway_url", "phone_url"])
def test_the_gateway_is_found_by_its_old_name_too(name: str, tmp_path: Path) -> None:
    """Breaks an installation of an earlier version: its people would hear of nothing any more."""
    (tmp_path / "jiebang.toml").write_text(f'{name} = "https://gateway.example"')
    assert read_settings({}, tmp_path).gateway_url == "https://gateway.example"
    environ = {f"JIEBANG_{name.upper()}": "https://other.example"}
    assert read_settings(environ, tmp_path).gateway_url == "https://other.example"


def test_two_names_for_one_gateway_are_told(tmp_path: Path) -> None:
    """Breaks the operator who changes one of the two and wonders why nothing happens."""
    (tmp_path / "jiebang.toml").write_text('gateway_url = "https://gateway.example"')
    assert set(problems({"JIEBANG_PHONE_URL": "https://other.example"}, tmp_path)) == {"phone_url"}


@pytest.mark.parametrize("value", ["{", "[1]", "none.toml", "platform = [hush", "\0", "x" * 5000])
def test_databases_that_cannot_be_read_are_told_without_what_they_hold(value: str, tmp_path: Path) -> None:
    """Breaks secrecy: a parser's message quotes the line, and the line holds a password."""
    assert "JIEBANG_DATABASES" in " ".join(problems({"JIEBANG_DATABASES": value}, tmp_path))


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Breaks an installation that runs on defaults because of a typing mistake."""
    assert "JIEBANG_SETTINGS" in problems({"JIEBANG_SETTINGS": "none.toml"}, tmp_path)


def test_secrets_are_made_once_private_and_told_to_nobody(tmp_path: Path) -> None:
    """Breaks every sealed identity if keys changed, and everybody's privacy if they were readable."""
    folder = tmp_path / "keys"
    with pytest.raises(HomeUnusableError):
        read_keys(folder)
    assert not folder.exists(), "reading makes none: a second host would seal under keys of its own"
    make_keys(folder)
    made = read_keys(folder)
    make_keys(folder)
    assert read_keys(folder) == made
    assert len(made.case_ids) == 16
    assert len({made.codes, made.documents, made.master, made.passwords}) == 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    assert repr(made) == "Secrets(…)"


def test_a_damaged_or_open_key_is_refused(tmp_path: Path) -> None:
    """Breaks data for ever: sealing under half a key, or under one that everybody has read."""
    make_keys(tmp_path)
    (tmp_path / "master.key").chmod(0o644)
    with pytest.raises(HomeUnusableError):
        read_keys(tmp_path)
    (tmp_path / "master.key").chmod(0o600)
    (tmp_path / "master.key").write_bytes(b"short")
    with pytest.raises(HomeUnusableError, match=r"master\.key"):
        read_keys(tmp_path)


ACME = {
    "base_url": "https://acme.example",
    "operations": {"close": {"effects": {"points": {"type": "int", "most": 9}}}},
}


def test_a_table_of_networks_declares_a_participant(tmp_path: Path) -> None:
    """A team's service that passed the suite must be nameable in a plan without a change of our code."""
    (tmp_path / "jiebang.toml").write_text(
        """
        [networks.acme]
        base_url = "https://acme.example"
        [networks.acme.operations.close]
        effects.points = { type = "int", most = 9 }
        [networks.acme.operations.anything]
        effects = "any"
        """
    )
    for found in (
        read_settings({}, tmp_path),
        read_settings({"JIEBANG_NETWORKS": json.dumps({"acme": ACME})}, tmp_path),
    ):
        assert found.networks is not None
        assert found.networks["acme"].base_url == "https://acme.example"
        assert found.declared.networks == (*PARTICIPANTS.networks, "acme")
        assert found.declared.databases == PARTICIPANTS.databases
        effects = found.declared["acme"].operations["close"].effects
        assert effects is not None
        assert effects["points"].fault(10) is not None
        assert effects["points"].fault(9) is None
    assert read_settings({}, tmp_path / "nowhere").declared is PARTICIPANTS


def test_the_products_networks_are_configured_together_or_stand_in_together(tmp_path: Path) -> None:
    """Half a sandbox beside a real network would confirm with one what the other never heard of."""
    with_one = {"JIEBANG_NETWORKS": json.dumps({"acme": ACME, "unionpay": {"base_url": "https://up.example"}})}
    assert set(problems(with_one, tmp_path)) == {"networks.netsunion"}


@pytest.mark.parametrize(
    ("name", "table", "where"),
    [
        ("acme", {"base_url": "https://acme.example"}, "networks.acme"),
        ("acme", {"operations": {"close": {}}}, "networks.acme.base_url"),
        ("acme", {**ACME, "operations": {}}, "networks.acme.operations"),
        ("acme", {**ACME, "operations": {"Close!": {}}}, "networks.acme.operations.Close!"),
        ("acme", {**ACME, "operations": {"close": {"effects": {"points": {"type": "float"}}}}}, None),
        ("acme", {**ACME, "operations": {"close": {"effects": "hush"}}}, None),
        ("acme", {**ACME, "operations": {"close": {"refusals": {}}}}, None),
        (
            "acme",
            {**ACME, "operations": {"close": {"effects": {"points": {"type": "int", "least": 2, "most": 1}}}}},
            "networks.acme.operations.close.effects.points",
        ),
        ("Acme", ACME, "networks.Acme"),
        ("phone", ACME, "networks.phone"),
        ("platform", ACME, "networks.platform"),
        ("identity", ACME, "networks.identity"),
        ("wallet", ACME, "networks.wallet"),
        ("identity_guiyang", ACME, "networks.identity_guiyang"),
    ],
)
def test_a_declaration_that_cannot_be_is_told(
    name: str, table: dict[str, Any], where: str | None, tmp_path: Path
) -> None:
    """A name that means something else already would send a network what a database is to do."""
    found = problems({"JIEBANG_NETWORKS": json.dumps({name: table})}, tmp_path)
    assert found
    assert all(place.startswith(f"networks.{name}") for place in found)
    assert where is None or where in found


def test_the_products_networks_are_declared_by_the_product(tmp_path: Path) -> None:
    """Operations written there would be read and never used."""
    networks = dict.fromkeys(PARTICIPANTS.networks, ACME)
    assert set(problems({"JIEBANG_NETWORKS": json.dumps(networks)}, tmp_path)) == {
        f"networks.{name}.operations" for name in PARTICIPANTS.networks
    }


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"JIEBANG_GATEWAY_URL": "http://gateway.example"}, "gateway_url"),
        (
            {
                "JIEBANG_ISSUER_ISSUER": "i",
                "JIEBANG_ISSUER_AUDIENCE": "a",
                "JIEBANG_ISSUER_JWKS_URL": "http://id.example/jwks",
            },
            "issuer.jwks_url",
        ),
        (
            {
                "JIEBANG_NETWORKS": '{"unionpay": {"base_url": "http://up.example"}, '
                '"netsunion": {"base_url": "https://n.example"}}'
            },
            "networks.unionpay.base_url",
        ),
    ],
)
def test_addresses_elsewhere_are_https(environ: dict[str, str], where: str, tmp_path: Path) -> None:
    """Over plain http anybody on the way gives out keys of an issuer, and with them is everybody."""
    assert set(problems(environ, tmp_path)) == {where}
    here = {name: value.replace("http://", "http://127.0.0.1:9/?") for name, value in environ.items()}
    read_settings(here, tmp_path)


@pytest.mark.parametrize("value", ["yes", "1", "", "TRUE "])
def test_the_sandbox_is_asked_for_in_so_many_words(value: str, tmp_path: Path) -> None:
    """What may trust a made-up issuer must not be switched on by a slip."""
    assert set(problems({"JIEBANG_SANDBOX": value}, tmp_path)) == {"sandbox"}
    assert read_settings({"JIEBANG_SANDBOX": "true"}, tmp_path).sandbox is True
    assert read_settings({"JIEBANG_SANDBOX": "false"}, tmp_path).sandbox is False
    (tmp_path / "jiebang.toml").write_text("sandbox = true")
    assert read_settings({}, tmp_path).sandbox is True
