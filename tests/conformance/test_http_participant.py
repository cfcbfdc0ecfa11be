"""The platform's client against a real network: the suite of every participant, and what is the protocol's own."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import httpx
import msgspec
import pytest

from jiebang.model.ids import MAX_ACCOUNT
from jiebang.model.plan import UNNAMED, PlannedOperation
from jiebang.participants.base import Participant, explain_silence
from jiebang.participants.http import HttpParticipant
from jiebang.remote.client import RemoteError
from jiebang.remote.signing import Requester
from jiebang.remote.stand_ins import read_links
from jiebang.remote.wire import MAX_BATCH, MAX_BODY
from jiebang.saga.coordinator import Reply
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, NetworkFault
from jiebang.sandbox.ledger import Binding, BindingState
from jiebang.sandbox.processes import Sandbox
from tests.conformance.suite import RemoteSuite, Subject, examine


class TestNetworks(RemoteSuite):
    """Both networks, each in its own process."""

    @pytest.fixture(params=["unionpay", "netsunion"])
    async def subject(
        self, request: pytest.FixtureRequest, world: Sandbox, numbers: itertools.count[int]
    ) -> AsyncIterator[Subject]:
        link = world.link(request.param)
        participant, control = HttpParticipant(link), Control(link)

        async def accounts(n: int) -> list[int]:
            return [next(numbers) for _ in range(n)]

        async def refused(n: int) -> tuple[list[Order], str]:
            orders = [Order(account, 1) for account in await accounts(n)]
            named = tuple(str(order.account_id) for order in orders)
            await control.set_faults([NetworkFault(FaultKind.REFUSE, accounts=named, code="NETWORK-HOLD", count=n)])
            return orders, "NETWORK-HOLD"

        planned = PlannedOperation("release", {"release_bindings": True})
        yield Subject(participant, accounts, refused, planned, link=link)
        await control.set_faults([])
        assert not participant.ignored, "a network of ours said something that could not be believed"
        await participant.aclose()
        await control.aclose()


class _KnowsNoEffects:
    """A network's client that answers as a party did which the suite had passed: 422 to any effects."""

    def __init__(self, network: HttpParticipant) -> None:
        self._network, self.name = network, network.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    async def apply(self, op: Op, orders: Sequence[Order], planned: PlannedOperation) -> Sequence[Reply]:
        if op is Op.CONFIRM and planned.effects:
            raise RemoteError(self.name, "answered 422 INVALID-INPUT", 422, "INVALID-INPUT", "$.effects: unknown")
        return await self._network.apply(op, orders, planned)


async def test_the_suite_is_failed_by_a_party_that_knows_no_effects(
    unionpay: HttpParticipant, numbers: itertools.count[int]
) -> None:
    """Its team would be told that it may be named in plans, and every case with it would hang after the commit."""

    async def accounts(n: int) -> list[int]:
        return [next(numbers) for _ in range(n)]

    async def refused(n: int) -> tuple[list[Order], str]:
        raise AssertionError(n)

    bare = Subject(cast("Participant", _KnowsNoEffects(unionpay)), accounts, refused, PlannedOperation("release"))
    with pytest.raises(RemoteError):
        await examine("serves_whole_plans", bare)


async def test_a_refused_batch_says_why(unionpay: HttpParticipant, account: int) -> None:
    """The log said `RemoteError` and nothing else, while every case of a plan hung."""
    with pytest.raises(RemoteError) as caught:
        await unionpay.apply(Op.TRY, [Order(account, 1)], PlannedOperation("bind"))
    assert explain_silence(caught.value) == {
        "error": "RemoteError",
        "reason": "answered 422 INVALID-INPUT",
        "status": 422,
        "code": "INVALID-INPUT",
        "detail": "$.operation: there is no such operation; known are release",
    }


async def test_a_batch_larger_than_a_request_is_answered_whole(
    unionpay: HttpParticipant, numbers: itertools.count[int]
) -> None:
    """The worker's rounds are not cut to the protocol's limit; nobody may fall between two requests."""
    orders = [Order(next(numbers), 1) for _ in range(2 * MAX_BATCH + 7)]
    replies = await unionpay.apply(Op.TRY, orders, UNNAMED)
    assert {reply.account_id for reply in replies} == {order.account_id for order in orders}
    rows = await unionpay.look([order.account_id for order in orders])
    assert rows == {order.account_id: FenceRow(1, CaseOp.TRIED) for order in orders}


async def test_an_order_names_an_operation_of_the_networks_or_none(unionpay: HttpParticipant, account: int) -> None:
    """A network that released bindings for a plan that asks for something else would do what nobody asked for."""
    with pytest.raises(RemoteError) as caught:
        await unionpay.apply(Op.TRY, [Order(account, 1)], PlannedOperation("bind"))
    assert caught.value.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert await unionpay.look([account]) == {}
    for op, planned in ((Op.TRY, UNNAMED), (Op.CONFIRM, PlannedOperation("release"))):
        (reply,) = await unionpay.apply(op, [Order(account, 1)], planned)
        assert reply.answer is (Answer.GRANTED if op is Op.TRY else Answer.DONE)


async def test_networks_own_no_facts(unionpay: HttpParticipant, account: int) -> None:
    """A network that answered facts would be asked for versions it does not have."""
    assert await unionpay.facts([account]) is None  # type: ignore[func-returns-value]  # that it is None is the point


async def test_bindings_are_reserved_released_and_restored(
    unionpay: HttpParticipant, control: Control, numbers: itertools.count[int]
) -> None:
    """A card still bound at the network after `done` is the very thing the person asked to be rid of."""
    kept, freed, bare = next(numbers), next(numbers), next(numbers)
    cards = [
        Binding(str(account), f"card-{at}", "card", "招商银行 尾号 1234") for account in (kept, freed) for at in (1, 2)
    ]
    assert await control.bind(cards) == []
    await unionpay.apply(Op.TRY, [Order(account, 1) for account in (kept, freed, bare)], UNNAMED)
    tried = await control.state([kept, freed, bare])
    assert [one.state for one in tried[kept].bindings + tried[freed].bindings] == [BindingState.RELEASING] * 4
    assert tried[bare].bindings == []
    assert await control.bind([Binding(str(kept), "card-3", "card")]) == [kept], "left alone in the middle of a case"
    await unionpay.apply(Op.CANCEL, [Order(kept, 1)], UNNAMED)
    await unionpay.apply(Op.CONFIRM, [Order(freed, 1)], PlannedOperation("", {"anything": {"a plan": "says"}}))
    ended = await control.state([kept, freed])
    assert [one.state for one in ended[kept].bindings] == [BindingState.BOUND] * 2
    assert [one.state for one in ended[freed].bindings] == [BindingState.RELEASED] * 2
    await unionpay.apply(Op.CANCEL, [Order(freed, 2)], UNNAMED)
    assert [one.state for one in (await control.state([freed]))[freed].bindings] == [BindingState.RELEASED] * 2
    assert await control.bind([Binding(str(freed), "card-1", "card")]) == []
    assert [one.state for one in (await control.state([freed]))[freed].bindings] == [
        BindingState.BOUND,
        BindingState.RELEASED,
    ]


async def test_every_row_can_be_read_page_by_page(unionpay: HttpParticipant, numbers: itertools.count[int]) -> None:
    """The audit must see every fence row a network holds, not only those of accounts it thinks of."""
    mine = [next(numbers) for _ in range(MAX_BATCH + 3)]
    await unionpay.apply(Op.CANCEL, [Order(account, 9) for account in mine], UNNAMED)
    seen = await unionpay.marks(0, MAX_ACCOUNT, 1 << 20)
    assert list(seen) == sorted(seen)
    assert set(mine) <= set(seen)
    assert list(await unionpay.marks(mine[0], mine[-2], 7)) == mine[1:8]
    assert list(await unionpay.marks(mine[0], mine[-2], MAX_BATCH + 9)) == mine[1:-1]
    assert await unionpay.marks(mine[-1], mine[-1], 7) == {}


async def send(
    world: Sandbox, method: str, path: str, body: bytes, *, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send what another team's client might, rightly signed."""
    link = world.link("unionpay")
    url = link.base_url + path
    sent = Requester(link).sign(method, url, body, now=datetime.now(UTC), nonce=secrets.token_urlsafe(18))
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method, url, headers=sent.headers | (headers or {}), content=body)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"gid":"ignored"}'])
async def test_the_single_case_form_answers_by_dtms_convention(
    world: Sandbox, unionpay: HttpParticipant, account: int, body: bytes
) -> None:
    """A team that runs DTM can point its branches at a network without writing a client."""
    at = f"/branch?gid={account}-3&trans_type=tcc&branch_id=01&op="
    assert (await send(world, "POST", f"{at}try", body)).status_code == 200
    granted = await send(world, "POST", f"{at}try", body)
    assert granted.json() == {
        "account": str(account),
        "case_no": 3,
        "outcome": "granted",
        "row": {"case_no": 3, "case_op": "tried"},
    }
    working = await send(world, "POST", f"/branch?gid={account}-4&branch_id=01&op=try", body)
    assert (working.status_code, working.json()["outcome"]) == (425, "pending")
    assert (await send(world, "POST", f"{at}cancel", body)).status_code == 200
    refused = await send(world, "POST", f"{at}confirm", body)
    assert (refused.status_code, refused.json()["code"]) == (409, "FENCE-CANCELLED")
    assert await unionpay.look([account]) == {account: FenceRow(3, CaseOp.CANCELLED)}


def cases(*some: Any) -> bytes:
    return msgspec.json.encode({"cases": some})


GOOD = {"account": "7", "case_no": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/try", b"", 422, "$"),
        ("POST", "/try", b"\xff\xfe", 422, "$"),
        ("POST", "/try", b"[]", 422, "$"),
        ("POST", "/try", cases(), 422, "$.cases"),
        ("POST", "/try", cases(*({"account": str(at), "case_no": 1} for at in range(1, 1026))), 422, "$.cases"),
        ("POST", "/try", cases(GOOD, GOOD), 422, "$.cases"),
        ("POST", "/try", cases(GOOD, {"account": "9007199254740992", "case_no": 1}), 422, "$.cases[1].account"),
        ("POST", "/try", cases({**GOOD, "case_no": 1.5}), 422, "$.cases[0].case_no"),
        ("POST", "/try", cases({**GOOD, "version": 0}), 422, "$.cases[0].version"),
        ("POST", "/try", b" " * (MAX_BODY + 1), 413, None),
        ("POST", "/look", b'{"accounts":[]}', 422, "$.accounts"),
        ("POST", "/look", b'{"accounts":["1;DROP TABLE account"]}', 422, "$.accounts[0]"),
        ("POST", "/branch?gid=7&branch_id=1&op=try", b"", 422, "gid, branch_id"),
        ("POST", "/branch?gid=7-1&op=try", b"", 422, "gid, branch_id"),
        ("POST", "/branch?gid=7-1&branch_id=1&op=look", b"", 422, "op, trans_type"),
        ("POST", "/branch?gid=7-1&branch_id=1&op=try&trans_type=saga", b"", 422, "op, trans_type"),
        ("POST", "/branch?gid=7-1&gid=8-1&branch_id=1&op=try", b"", 422, "gid"),
        ("POST", "/branch?gid=7-9999999999&branch_id=1&op=try", b"", 422, "$.case_no"),
        ("PUT", "/sandbox/faults", b'{"faults":[{"kind":"slow"}]}', 422, "$.faults[0]"),
        ("PUT", "/sandbox/faults", b'{"faults":[{"kind":"refuse","ops":["confirm"]}]}', 422, "$.faults[0]"),
        ("PUT", "/sandbox/bindings", b'{"bindings":[{"account":"7","binding":"","kind":"card"}]}', 422, None),
        ("GET", "/sandbox/state", b"", 422, "$.accounts"),
        ("GET", "/sandbox/state?account=x", b"", 422, "$.accounts[0]"),
        ("POST", "/marks", b'{"after":"-1","upto":"9"}', 422, "$.after"),
        ("POST", "/marks", b'{"after":"0","upto":"9007199254740992"}', 422, "$.upto"),
        ("GET", "/try", b"", 404, None),
        ("POST", "/try/", b"", 404, None),
        ("POST", "/", b"", 404, None),
    ],
)
async def test_a_wrong_request_gets_a_clear_problem_and_changes_nothing(
    world: Sandbox, unionpay: HttpParticipant, method: str, path: str, body: bytes, status: int, field: str | None
) -> None:
    """Another team finds its mistake from the answer alone; and a batch is refused whole, never half done."""
    response = await send(world, method, path, body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    for language in ("zh", "en"):
        assert problem[language]["title"]
        assert problem[language]["action"]
    if field is not None:
        assert problem["fields"]["field"] == field
        assert problem["fields"]["reason"]["zh"] != problem["fields"]["reason"]["en"]
    assert await unionpay.look([7, 8]) == {}


async def test_another_command_finds_a_running_sandbox(world: Sandbox, account: int) -> None:
    """`jiebang check` beside a running demo must reach the same networks."""
    home = world.home
    participant = HttpParticipant(read_links(home, ["netsunion"])["netsunion"])
    (reply,) = await participant.apply(Op.TRY, [Order(account, 1)], UNNAMED)
    assert reply.answer is Answer.GRANTED
    await participant.aclose()
