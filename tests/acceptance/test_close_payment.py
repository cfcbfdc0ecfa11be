"""Closing the payment account, as its person lives it: asked for, proven, done everywhere, and only there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from jiebang.participants import PARTICIPANTS
from jiebang.participants.wallet.movements import EntryState, Transfer
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault
from jiebang.store.postgres.data_directory import remove
from tests.acceptance.kinds_world import KindsWorld, kinds_world

FENCE = {"case_no", "case_op", "epoch", "facts_version"}


@pytest.fixture(scope="module")
async def world(databases: Mapping[str, str], new_folder: Callable[[str], Path]) -> AsyncIterator[KindsWorld]:
    folder = new_folder("close")
    async with kinds_world(databases, folder / "home 家") as opened:
        yield opened
    remove(folder)


async def test_the_payment_account_closes_and_the_social_side_keeps_the_name(world: KindsWorld) -> None:
    """They see it offered, read what follows, and afterwards exactly that is so: nothing less, and nothing else."""
    one = await world.somebody()
    account = one.account_id
    await world.pool("wallet").execute(
        """INSERT INTO wallet.autodebit_contract (account_id, contract_id, merchant, service, signed_at)
           VALUES ($1, 1, '美团', '会员', now())""",
        account,
    )
    answer = await one.ask("POST", "/v1/checks", {"accounts": [str(account)], "kind": "close_payment"})
    [check] = answer.json()["checks"]
    assert (check["offered"], [each["code"] for each in check["blockers"]]) == (True, ["PAY-AUTODEBIT"])
    told = {each["code"] for each in check["consequences"]}
    assert {"PAYMENT-CLOSED", "WALLET-CARDS-UNBOUND", "UNIONPAY-RELEASED", "NETSUNION-RELEASED"} <= told
    before = await world.rows(account)

    done = await world.go_through(one, "close_payment", consents=["PAY-AUTODEBIT"])

    assert done["state"] == "done"
    assert set(done["participants"]) == {"merchant", "wallet", *PARTICIPANTS.networks}
    after = await world.rows(account)
    changed = {
        name: {column for column, value in row.items() if value != before[name][column]} - FENCE
        for name, row in after.items()
    }
    assert {name: columns for name, columns in changed.items() if columns} == {
        "wallet": {"state"},
        "merchant": {"records_kept_until"},
    }
    assert after["wallet"]["state"] == "closed"
    assert after["identity_shenzhen"]["state"] == after["identity_guiyang"]["state"] == "active"
    for network in PARTICIPANTS.networks:
        assert await world.bindings(network, account) == ["released"]
    facts = (await world.app.participants["wallet"].facts([account])).columns  # type: ignore[union-attr]
    told_by_wallet = {name: list(facts[name]) for name in ("payment_closed", "bank_cards", "autodebit_contracts")}
    assert told_by_wallet == {"payment_closed": [True], "bank_cards": [0], "autodebit_contracts": [0]}
    assert "Your payment account was closed on" in await world.heard(one, "payment account was closed")
    assert (await world.app.verify()).clean


async def test_money_sent_to_a_closed_account_goes_back(world: KindsWorld) -> None:
    """A sender must not lose what they sent to somebody who has left."""
    leaver, sender = await world.somebody(), await world.somebody(balance_fen=500)
    assert (await world.go_through(leaver, "close_payment"))["state"] == "done"
    one = Transfer(transfer_id=uuid4(), sender=sender.account_id, receiver=leaver.account_id, amount_fen=300)
    [outcome] = await world.app.wallet.transfer([one])
    assert outcome.state is EntryState.RETURNED
    assert (await world.row("wallet", sender.account_id))["balance_fen"] == 500
    assert (await world.row("wallet", leaver.account_id))["balance_fen"] == 0


async def test_a_fen_left_stands_in_the_way_and_a_closed_account_cannot_be_closed_again(world: KindsWorld) -> None:
    """Money without an owner, or a second case about nothing, would help nobody."""
    rich, gone = await world.somebody(balance_fen=1), await world.somebody()
    refused = await rich.ask("POST", "/v1/cases", {"account": str(rich.account_id), "kind": "close_payment"})
    assert refused.status_code == 409
    assert [each["code"] for each in refused.json()["check"]["blockers"]] == ["PAY-BALANCE"]
    assert (await world.go_through(gone, "close_payment"))["state"] == "done"
    again = await gone.ask("POST", "/v1/cases", {"account": str(gone.account_id), "kind": "close_payment"})
    assert again.status_code == 409
    [blocker] = again.json()["check"]["blockers"]
    assert (blocker["code"], bool(blocker["title"]["zh"])) == ("PAY-CLOSED", True)


async def test_a_network_that_refuses_leaves_the_account_as_it_was(world: KindsWorld) -> None:
    """All or nothing: closed here and bound there would leave a card at a network that nobody can reach any more."""
    one = await world.somebody()
    before = await world.rows(one.account_id)
    control = Control(world.outside.link("netsunion"))
    await control.set_faults([NetworkFault(kind=FaultKind.REFUSE, ops=(FaultOp.TRY,), accounts=(str(one.account_id),))])
    ended = await world.go_through(one, "close_payment")
    await control.set_faults([])
    await control.aclose()
    assert ended["state"] == "aborted"
    after = await world.rows(one.account_id)
    for name, row in after.items():
        assert {column for column, value in row.items() if value != before[name][column]} <= FENCE - {"epoch"}, name
    for network in PARTICIPANTS.networks:
        assert await world.bindings(network, one.account_id) == ["bound"]
    assert "put back" in await world.heard(one, "could not be completed")


async def test_the_name_can_still_be_taken_back_after_the_payment_account_is_closed(world: KindsWorld) -> None:
    """Who closed the payment side first must not be locked out of the rest of their rights."""
    one = await world.somebody()
    assert (await world.go_through(one, "close_payment"))["state"] == "done"
    assert (await world.go_through(one, "revoke"))["state"] == "done"
    assert (await world.row("identity_guiyang", one.account_id))["state"] == "reclaimed"
    assert (await world.row("wallet", one.account_id))["state"] == "closed"
