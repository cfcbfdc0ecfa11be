"""Changing the identity, as its person lives it: a verifier confirms the new one, and it takes the old one's place."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from jiebang.policy.documents import make_resident_id
from jiebang.remote.client import SignedClient
from jiebang.remote.verifier import VERIFIER
from jiebang.sandbox.verifier import VerifierFault, VerifierFaultKind, VerifierFaults
from jiebang.store.encryption import SealedIdentity, document_index, unseal, unwrap
from jiebang.store.postgres.data_directory import remove
from tests.acceptance.api_world import Person
from tests.acceptance.kinds_world import KindsWorld, kinds_world
from tests.patience import PATIENCE_S

CENTRES = ("identity_shenzhen", "identity_guiyang")
NAME = "韩梅梅"
FENCE = {"case_no", "case_op", "epoch", "facts_version"}
_orders = itertools.count(1)


@pytest.fixture(scope="module")
async def world(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> AsyncIterator[KindsWorld]:
    folder = new_folder("change")
    async with kinds_world(databases, folder / "home 家") as opened:
        yield opened
    remove(folder)


def number_of_somebody(born: date = date(1988, 3, 4)) -> str:
    """A resident's number that nobody here has."""
    return make_resident_id("110101", born, next(_orders))


async def opened(world: KindsWorld, **columns: Any) -> tuple[Person, str]:
    one = await world.somebody(identity={"changed_at": datetime(2024, 1, 1, tzinfo=UTC), **columns})
    return one, str((await world.ask_for(one, "change_identity"))["id"])


async def bring(
    one: Person, case: str, number: str, name: str = NAME, more: Mapping[str, str] | None = None
) -> httpx.Response:
    body = {"name": name, "document_type": "resident_id", "number": number}
    return await one.ask("POST", f"/v1/cases/{case}/identity", body | dict(more or {}))


async def faulty(world: KindsWorld, *faults: VerifierFault) -> None:
    client = SignedClient(world.outside.link(VERIFIER), limit=10)
    await client.send("PUT", "/sandbox/faults", msgspec.json.encode(VerifierFaults(faults)))
    await client.aclose()


async def wrapped(world: KindsWorld, account: int, epoch: int) -> Any:
    """The master's wrap of a data key; None: it was destroyed."""
    return await world.pool("keys").fetchval(
        "SELECT wrapped FROM keys.data_key WHERE account_id = $1 AND epoch = $2", account, epoch
    )


async def opens(world: KindsWorld, account: int, epoch: int, sealed: bytes) -> SealedIdentity:
    """Open what is sealed with the data key of its epoch."""
    data_key = unwrap(world.app.secrets.master, await wrapped(world, account, epoch), account, epoch)
    return unseal(data_key, sealed, account, epoch)


async def everything(pools: Mapping[str, Any]) -> str:
    """All rows of all tables of the databases, as text."""
    found = []
    for pool in pools.values():
        tables = await pool.fetch(
            "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg_%' AND n.nspname <> 'information_schema'"
        )
        for table in tables:
            found += [row["line"] for row in await pool.fetch(f"SELECT t::text AS line FROM {table['name']} t")]  # noqa: S608 - the catalogue's
    return "\n".join(found)


async def test_the_new_identity_takes_the_old_ones_place_everywhere_at_once(world: KindsWorld) -> None:
    """A person whose name changed goes on with everything; the old name stays only as law keeps it, sealed."""
    one = await world.somebody(identity={"changed_at": datetime(2024, 1, 1, tzinfo=UTC)})
    account, number = one.account_id, number_of_somebody()
    [check] = (await one.ask("POST", "/v1/checks", {"accounts": [str(account)], "kind": "change_identity"})).json()[
        "checks"
    ]
    assert (check["passes"], check["offered"]) == (True, True)
    assert {"IDENTITY-SWAPPED", "IDENTITY-KEPT-BY-LAW", "QUOTA-USED"} <= {
        each["code"] for each in check["consequences"]
    }
    before = await world.rows(account)
    case = await world.ask_for(one, "change_identity")
    assert {each["method"]: each["state"] for each in case["proofs"]}["document"] == "wanted"

    brought = await bring(one, case["id"], number)
    assert (brought.status_code, brought.json()["state"]) == (200, "open")
    assert NAME not in brought.text
    assert number not in brought.text
    await world.prove(one, case["id"])
    done = await world.ended(one, case["id"])

    assert (done["state"], set(done["participants"])) == ("done", set(CENTRES))
    after = await world.rows(account)
    assert {name for name, row in after.items() if row != before[name]} == set(CENTRES), "nothing else is touched"
    row = after["identity_shenzhen"]
    of_each = FENCE | {"former_key_destroy_at"}  # by the clock of its own Confirm
    assert {name: row[name] for name in row if name not in of_each} == {
        name: value for name, value in after["identity_guiyang"].items() if name not in of_each
    }, "both data centres hold the same"
    index = document_index(world.app.secrets.documents, "resident_id", number)
    assert (row["state"], row["level"], row["document_index"]) == ("active", 2, index)
    assert row["birth_date"] == date(1988, 12, 31), "no more of it in clear than rules need"
    identity = await opens(world, account, 2, row["sealed"])
    assert (identity.name, identity.number, identity.birth_date) == (NAME, number, date(1988, 3, 4))
    assert (row["former_sealed"], row["former_epochs"]) == ([before["identity_shenzhen"]["sealed"]], [1])
    assert await world.pool("platform").fetchval(
        "SELECT count(*) FROM platform.identity_quota WHERE document_index = $1 AND account_id = $2", index, account
    ), "the change counts for the document that it brought"
    for name in CENTRES:
        assert not await world.pool(name).fetchval(
            "SELECT count(*) FROM identity.staged WHERE account_id = $1", account
        )
    async with asyncio.timeout(PATIENCE_S):
        while await wrapped(world, account, 1) is not None:  # noqa: ASYNC110 - a worker destroys it
            await asyncio.sleep(0.05)
    assert "was swapped for the new one" in await world.heard(one, "swapped")
    again = await one.ask("POST", "/v1/checks", {"accounts": [str(account)], "kind": "change_identity"})
    assert "ID-RECENT-CHANGE" in [each["code"] for each in again.json()["checks"][0]["blockers"]]
    assert (await world.app.verify()).clean


async def test_a_document_that_is_not_theirs_costs_a_try_and_changes_nothing(world: KindsWorld) -> None:
    """A thief who knows somebody's number does not know that the register has it under another name."""
    number = number_of_somebody()
    holder, case = await opened(world)
    assert (await bring(holder, case, number)).status_code == 200, "the first name told of a number is its holder's"
    thief, theirs = await opened(world)
    before = await world.rows(thief.account_id)
    refused = await bring(thief, theirs, number, name="李雷")
    assert (refused.status_code, refused.json()["code"]) == (409, "PROOF-REFUSED")
    assert (refused.json()["fields"]["cause"], refused.json()["fields"]["tries_left"]) == ("wrong", 4)
    assert await world.rows(thief.account_id) == before
    assert not await world.pool("keys").fetchval(
        "SELECT count(*) FROM keys.data_key WHERE account_id = $1 AND epoch > 1", thief.account_id
    )


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"number": "110101198813040017"}, 409, "the check character does not fit"),
        ({"number": "1101011988"}, 409, "wrong length"),
        ({"number": ""}, 400, "number"),
        ({"document_type": "passport"}, 400, "document_type"),
        ({"document_type": "library_card"}, 400, "document_type"),
        ({"name": " "}, 409, "visible characters"),
        ({"name": "a\u202eb"}, 400, "name"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
async def test_what_cannot_be_read_is_named_and_costs_no_try(
    world: KindsWorld, change: dict[str, str], status: int, says: str
) -> None:
    """A slip of the finger must neither lock a person out nor reach a verifier."""
    one, case = await opened(world)
    answer = await bring(one, case, number_of_somebody(), more=change)
    code = "INVALID-INPUT" if status == 400 else "IDENTITY-REFUSED"
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in str(answer.json()["fields"])
    assert answer.json()["zh"]["action"]
    shown = (await one.ask("GET", f"/v1/cases/{case}")).json()
    assert {each["method"]: each["tries_left"] for each in shown["proofs"]}["document"] == 5


async def test_a_child_is_refused_with_the_reason(world: KindsWorld) -> None:
    """A minor's identity needs what nobody can hand in here yet: it must not slip in by way of a change."""
    one, case = await opened(world)
    answer = await bring(one, case, number_of_somebody(date(datetime.now(UTC).year - 10, 1, 1)))
    assert (answer.status_code, answer.json()["code"]) == (409, "IDENTITY-REFUSED")
    assert "under 18" in str(answer.json()["fields"]["reason"])


@pytest.mark.parametrize("kind", [VerifierFaultKind.LIE, VerifierFaultKind.CONTRADICT, VerifierFaultKind.SILENT])
async def test_a_verifier_that_lies_or_is_silent_has_not_answered(world: KindsWorld, kind: VerifierFaultKind) -> None:
    """Nobody is bound to a name on a doubtful word, nor told that their document is wrong because a verifier was."""
    one, case = await opened(world)
    number = number_of_somebody()
    await faulty(world, VerifierFault(kind))
    answer = await bring(one, case, number)
    await faulty(world)
    assert (answer.status_code, answer.json()["code"]) == (503, "PARTICIPANT-UNAVAILABLE")
    assert answer.json()["fields"]["participant"] == "verifier"
    shown = (await one.ask("GET", f"/v1/cases/{case}")).json()
    proof = next(each for each in shown["proofs"] if each["method"] == "document")
    assert (proof["state"], proof["tries_left"]) == ("wanted", 5)
    assert (await bring(one, case, number)).status_code == 200, "and once it answers, the same person goes on"


async def test_an_answer_that_comes_twice_is_one(world: KindsWorld) -> None:
    one, case = await opened(world)
    await faulty(world, VerifierFault(VerifierFaultKind.TWICE))
    assert (await bring(one, case, number_of_somebody())).status_code == 200
    await faulty(world)


async def test_two_identities_at_once_leave_one_and_the_same_in_both_centres(world: KindsWorld) -> None:
    """Sent twice from two windows: one must win everywhere, or the data centres would bind two people."""
    one, case = await opened(world)
    answers = await asyncio.gather(*(bring(one, case, number_of_somebody()) for _ in range(4)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 409, 409, 409]
    await world.prove(one, case)
    assert (await world.ended(one, case))["state"] == "done"
    rows = [await world.row(name, one.account_id) for name in CENTRES]
    assert rows[0]["sealed"] == rows[1]["sealed"]
    assert (await opens(world, one.account_id, 2, rows[0]["sealed"])).name == NAME


async def test_a_withdrawn_case_leaves_nothing_bound_and_what_was_brought_is_refused_from_then_on(
    world: KindsWorld,
) -> None:
    """Who changes their mind keeps their name; and nobody goes on with a case that is over."""
    one, case = await opened(world)
    before = await world.rows(one.account_id)
    assert (await bring(one, case, number_of_somebody())).status_code == 200
    assert (await one.ask("DELETE", f"/v1/cases/{case}")).status_code == 202
    late = await bring(one, case, number_of_somebody())
    assert (late.status_code, late.json()["fields"]["cause"]) == (409, "not_awaited")
    assert await world.rows(one.account_id) == before


async def test_a_document_whose_year_is_used_up_is_refused_and_begins_its_cooling_off(world: KindsWorld) -> None:
    """The fourth change by one document in a year is refused, whichever account it comes from."""
    number = number_of_somebody()
    index = document_index(world.app.secrets.documents, "resident_id", number)
    await world.pool("platform").execute(
        """INSERT INTO platform.identity_quota (document_index, year, slot, account_id, case_no, claimed_at)
           SELECT $1, extract(year FROM now() AT TIME ZONE 'Asia/Shanghai')::smallint, n, 4000000 + n, 1, now()
           FROM generate_series(1, 3) AS n""",
        index,
    )
    one, case = await opened(world)
    answer = await bring(one, case, number)
    assert (answer.status_code, answer.json()["code"]) == (409, "BLOCKED")
    assert {"ID-COOLING"} <= {each["code"] for each in answer.json()["check"]["blockers"]}
    assert await world.pool("platform").fetchval(
        "SELECT count(*) FROM platform.quota_refusal WHERE document_index = $1", index
    )


async def test_a_document_is_no_secret_and_a_revoke_asks_for_none(world: KindsWorld) -> None:
    """The two doors must not be mistaken for each other."""
    one, case = await opened(world)
    wrong = await one.prove(case, "document", "110101198803040000")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "INVALID-INPUT")
    other = await world.somebody(identity={"changed_at": datetime(2024, 1, 1, tzinfo=UTC)})
    revoke = (await world.ask_for(other, "revoke"))["id"]
    answer = await bring(other, revoke, number_of_somebody())
    assert (answer.status_code, answer.json()["fields"]["cause"]) == (409, "not_asked")
    stranger = await bring(other, case, number_of_somebody())
    assert (stranger.status_code, stranger.json()["code"]) == (404, "UNKNOWN-CASE")


async def test_no_name_and_no_number_stands_anywhere_in_clear(world: KindsWorld) -> None:
    """After all the stories above: every table of every database, and every log."""
    dump = await everything(world.app.pools)
    logs = "".join(path.read_text("utf-8") for path in (world.app.settings.home / "logs").glob("*.log"))
    assert "resident_id" in dump, "something was read"
    for secret in _secrets():
        assert secret not in dump
        assert secret not in logs


def _secrets() -> Sequence[str]:
    given = [make_resident_id("110101", date(1988, 3, 4), order) for order in range(1, next(_orders))]
    return [NAME, "李雷", *given]
