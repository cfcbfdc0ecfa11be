"""The OpenAPI document: complete, in both languages, and true of the running application, as schemathesis finds."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.acceptance.api_world import PASSWORD, Person, World, made, on_deck

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

CONFIG = """
[checks.positive_data_acceptance]
# 422: a kind that exists but is not offered yet, and a key that came before with another body.
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "503"]

[phases.stateful]
generation.max-examples = 6
"""


@pytest.fixture(scope="module")
async def world(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made(pools, tmp_path_factory.mktemp("issuer"))
    await world.people(5001, 12)
    await world.people(5101, 4, balance_fen=100_000)
    return world


@pytest.fixture(scope="module")
async def document(world: World) -> dict[str, Any]:
    async with on_deck(world) as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).raise_for_status().json()
    return found


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


async def test_every_operation_says_all(document: dict[str, Any]) -> None:
    """A client's author finds the scope, the answers and every refusal of each operation, in both languages."""
    assert document["openapi"].startswith("3.1")
    for name, operation in operations(document):
        assert operation["operationId"], name
        assert any("\u4e00" <= letter <= "\u9fff" for letter in operation["summary"]), name
        if not name.split()[1].startswith("/v1"):
            continue
        assert operation["security"][0]["bearer"], name
        assert {"401", "403", "429", "431", "500", "503"} <= set(operation["responses"]), name
        for status, answer in operation["responses"].items():
            if status in ("429", "503"):
                assert answer["headers"]["Retry-After"], name
            if status >= "400":
                content = answer["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (name, status)
                for code, example in content["examples"].items():
                    assert example["value"]["code"] == code
                    assert example["value"]["status"] == int(status)
        if name.startswith(("POST", "DELETE")) and name not in ("POST /v1/checks", "POST /v1/limits"):
            key = next(each for each in operation["parameters"] if each["name"] == "Idempotency-Key")
            assert key["required"], name


async def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    """Generated clients break on a dangling reference."""
    text = msgspec.json.encode(document).decode()
    for part in text.split('"$ref":"')[1:]:
        reference = part.split('"', 1)[0]
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


async def test_schemathesis_passes_whole(world: World, tmp_path: Path) -> None:
    """Whatever schemathesis makes up, with every check it has, the running application is what the document says."""
    async with world.served() as client:
        ended, live = [], []
        for account_id in range(5001, 5009):
            one = Person(client, world.token(account_id), account_id)
            case = (await one.submit()).json()["id"]
            if account_id < 5004:
                await one.ask("DELETE", f"/v1/cases/{case}")
                ended.append(case)
            elif account_id < 5006:
                await one.prove(case, "payment_password", PASSWORD)
            live.append(case)
        known = {
            "cases": live,
            "ended": ended,
            "accounts": [*map(str, range(5001, 5013)), *map(str, range(5101, 5103))],
            "others": [str(account) for account in range(5103, 5105)],
        }
        config = tmp_path / "schemathesis.toml"
        config.write_text(CONFIG, encoding="utf-8")
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            *(f"{client.base_url}/openapi.json", "--checks", "all", "--max-examples", "12", "--seed", "7"),
            # DELETE withdraws a case; it stays readable, as a record of what happened.
            *("--exclude-checks", "use_after_free"),
            *("--header", f"Authorization: Bearer {world.service()}", "--no-color"),
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                "PYTHONPATH": str(Path(__file__).parent),
                "JIEBANG_TEST_KNOWN": msgspec.json.encode(known).decode(),
            },
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told = (await run.communicate())[0].decode()
        assert run.returncode == 0, told
