"""Everybody who is told of a done case: merchants, enterprises and platforms, through the real gateway, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from jiebang.model.case import BUCKETS, Kind
from jiebang.model.check import Text
from jiebang.model.ids import CaseIds
from jiebang.model.notice import AddresseeKind, Channel, Notice, Organisation, Refusals
from jiebang.model.plan import PlannedOperation
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.opening import open_participants
from jiebang.policy import packs
from jiebang.policy.load import load_pack
from jiebang.remote.client import SignedClient
from jiebang.remote.gateway import HttpGateway
from jiebang.saga.fence import Op
from jiebang.saga.orders import Order
from jiebang.sandbox.phone import AddresseeRefusal, AddresseeRefusals
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage
from jiebang.usecases.operations.delivery import Delivery, EndedReader

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PACK = load_pack(*packs.text("wechat"), PARTICIPANTS)
EVERYWHERE = frozenset(range(BUCKETS))
AT = datetime(2026, 4, 1, 4, 0, tzinfo=UTC)
accounts = count(5_000_001)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """The real gateway, a process of its own."""
    async with sandbox(tmp_path_factory.mktemp("mailboxes"), names=("phone",)) as running:
        yield running


class Everybody:
    """An installation whose cases are done by hand: the participants, the outbox, its delivery and the mailboxes."""

    def __init__(self, pools: Mapping[str, Pool], world: Sandbox) -> None:
        self.pools, self.platform, self.world = pools, pools["platform"], world
        opened = open_participants(PARTICIPANTS, pools, lambda: AT, pepper=b"p" * 32)
        self.participants = {name: one for name, one in opened.items() if isinstance(one, DatabaseParticipant)}
        self.ended: dict[str, EndedReader] = {
            ending: one.read_ended for one in self.participants.values() for ending in one.endings
        }
        self.gateway = HttpGateway(world.link("phone"))
        self.control = SignedClient(world.link("phone"), limit=5.0)
        self.deliver = self.delivery()

    def delivery(self, **changed: Any) -> Delivery:
        async def know(_cases: object) -> None:
            """There is one version, and it is known."""

        given: dict[str, Any] = {
            "pool": self.platform,
            "gateway": self.gateway,
            "pack": lambda: PACK,
            "pack_named": lambda _name: PACK,
            "know": know,
            "case_ids": CaseIds(b"i" * 16),
            "codes_key": b"c" * 32,
            "ended": self.ended,
        }
        return Delivery(**{**given, **changed})

    async def person(self, contracts: Sequence[tuple[int, str]] = ()) -> int:
        """A new person with contracts (number, merchant), an approval, and a grant with and one without payment."""
        account = next(accounts)
        await self.platform.execute(
            "INSERT INTO platform.account (account_id, created_at) VALUES ($1, $2)", account, AT
        )
        for owner in ("wallet", "enterprise", "openplatform"):
            await self.pools[owner].execute(f"INSERT INTO {owner}.account (account_id) VALUES ($1)", account)  # noqa: S608 - of ours
        for number, merchant in contracts:
            await self.sign(account, number, merchant)
        await self.pools["enterprise"].execute(
            """INSERT INTO enterprise.membership (account_id, enterprise_id, name, credit_code, role, joined_at)
               VALUES ($1, 77, '深圳某某公司', '91440300MA5DXXXX0X', 'member', $2)""",
            account,
            AT,
        )
        await self.pools["enterprise"].execute(
            """INSERT INTO enterprise.approval
                   (account_id, approval_id, enterprise_id, title, state, submitted_at, ended_at)
               VALUES ($1, 901, 77, '张三的请假', 'in_flight', $2, NULL),
                   ($1, 902, 77, '张三的报销', 'approved', $2, $2)""",
            account,
            AT,
        )
        await self.pools["openplatform"].execute(
            """INSERT INTO openplatform.oauth_grant (account_id, grant_id, app_id, app_name, scopes, granted_at)
               VALUES ($1, 31, 'wxa1', '美团', '{userinfo,pay}', $2), ($1, 32, 'wxi9', '知乎', '{userinfo}', $2)""",
            account,
            AT,
        )
        return account

    async def sign(self, account: int, number: int, merchant: str, ended_at: datetime | None = None) -> None:
        await self.pools["wallet"].execute(
            """INSERT INTO wallet.autodebit_contract
                   (account_id, contract_id, epoch, merchant, service, signed_at, ended_at)
               SELECT $1, $2, epoch, $3, '会员', $4, $5 FROM wallet.account WHERE account_id = $1""",
            account,
            number,
            merchant,
            AT,
            ended_at,
        )

    async def carry_out(self, account: int, case_no: int, *, then: Op = Op.CONFIRM) -> None:
        """Try a case everywhere, and confirm or cancel it."""
        for name, planned in PACK.plans[Kind.REVOKE].operations.items():
            if name in ("wallet", "enterprise", "openplatform"):
                for op in (Op.TRY, then):
                    await self.participants[name].apply(op, [Order(account, case_no)], planned)

    async def queue_done(self, account: int, at: datetime = AT) -> OutboxMessage:
        """Open the account's next case and queue the message that it is done."""
        new = NewCase(account_id=account, kind=Kind.REVOKE, plan=PACK.id, participants=11, due_at=at)
        case = (await store.insert(self.platform, [new], at, [{"what": "state", "state": "open"}]))[account]
        await self.platform.execute(
            """UPDATE platform.cases SET state = 'done', marks = repeat('d', 11), ended_at = $2, due_at = NULL,
                   versions = array_fill(1::bigint, ARRAY[11]), wallet_version = 1, deadline = $2
               WHERE account_id = $1""",
            account,
            at,
        )
        message = OutboxMessage(
            account_id=account,
            message_id=uuid4(),
            case_no=case.case_no,
            template="case_done",
            params={},
            created_at=at,
        )
        await outbox.insert(self.platform, [message], at)
        return message

    async def rows(self, account: int) -> list[dict[str, Any]]:
        found = await self.platform.fetch(
            "SELECT * FROM platform.outbox WHERE account_id = $1 ORDER BY addressee_kind, created_at, params::text",
            account,
        )
        return [dict(row) for row in found]

    async def mailbox(self, kind: str, name: str) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=self.world.addresses["phone"], trust_env=False) as client:
            answer = await client.get("/mailboxes", params={"kind": kind, "id": name})
        found: list[dict[str, Any]] = answer.json()["messages"]
        return found

    async def refuse(self, *refusals: AddresseeRefusal) -> None:
        """Have the gateway refuse what is sent to these, and to no others."""
        await self.control.send("PUT", "/sandbox/refusals", msgspec.json.encode(AddresseeRefusals([*refusals])))

    async def run(self, now: datetime = AT) -> int:
        """Deliver until nothing is due; return how many went out."""
        total = 0
        while sent := await self.deliver(EVERYWHERE, now):
            total += sent
        return total


@pytest.fixture
async def everybody(pools: Mapping[str, Pool], world: Sandbox) -> AsyncIterator[Everybody]:
    await pools["platform"].execute("TRUNCATE platform.outbox")
    made = Everybody(pools, world)
    await made.refuse()
    yield made
    await made.gateway.aclose()
    await made.control.aclose()


async def test_a_merchant_is_told_of_its_contract_and_of_nothing_else(everybody: Everybody) -> None:
    """A merchant that goes on charging, or learns who took their name back, is what the notice must prevent."""
    merchant = f"腾讯视频-{uuid4().hex[:6]}"
    account = await everybody.person([(4_711, merchant), (4_712, "中国移动")])
    await everybody.sign(account, 4_713, merchant, ended_at=AT)
    await everybody.carry_out(account, 1)
    await everybody.queue_done(account)
    assert await everybody.run() == 5, "the person, two merchants, the enterprise, the platform"
    [told] = await everybody.mailbox("merchant", merchant)
    assert "4711" in told["text"]["zh"]
    assert "4711" in told["text"]["en"]
    assert merchant in told["text"]["zh"]
    assert "2026年4月1日 12:00" in told["text"]["zh"]
    assert str(account) not in msgspec.json.encode(told).decode(), "whose contract it was the merchant looks up itself"
    [enterprise] = [one for one in await everybody.mailbox("enterprise", "77") if "901" in one["text"]["zh"]][-1:]
    assert enterprise["name"] == "深圳某某公司"
    assert "张三" not in msgspec.json.encode(enterprise).decode(), "a title may hold a name"
    [platform] = (await everybody.mailbox("platform", "wxa1"))[-1:]
    assert (platform["name"], "31" in platform["text"]["zh"]) == ("美团", True)
    assert await everybody.mailbox("platform", "wxi9") == [], "no payment goes through that grant"


async def test_whoever_was_not_confirmed_is_not_told(everybody: Everybody) -> None:
    """A case that was broken off ended nothing: a merchant that stops a membership for it wrongs its customer."""
    account = await everybody.person([(1, "爱奇艺")])
    await everybody.carry_out(account, 1, then=Op.CANCEL)
    await everybody.queue_done(account)
    await everybody.run()
    assert [row["addressee_kind"] for row in await everybody.rows(account)] == ["person"]


async def test_each_case_tells_of_what_it_ended_however_late_it_is_asked(everybody: Everybody) -> None:
    """A second revoke soon after: a merchant told of another contract than its own ends the wrong one."""
    account = await everybody.person([(1, "爱奇艺")])
    await everybody.carry_out(account, 1)
    await everybody.sign(account, 2, "优酷")
    await everybody.carry_out(account, 2)
    wallet = everybody.participants["wallet"]
    for _ in range(2):
        found = await wallet.read_ended("ended_contracts", [(account, 1), (account, 2), (account, 3)])
        assert [(one.case_no, one.item, one.addressee) for one in found] == [(1, "1", "爱奇艺"), (2, "2", "优酷")]
    await wallet.apply(Op.CONFIRM, [Order(account, 2)], PlannedOperation("downgrade"))
    again = await wallet.read_ended("ended_contracts", [(account, 1), (account, 2)])
    assert [one.item for one in again] == ["1", "2"], "a repeated Confirm ends nothing more"


async def test_a_notice_is_queued_and_shown_once(everybody: Everybody) -> None:
    """A worker that dies between queueing and saving queues again; the merchant must hear once."""
    merchant = f"网易云-{uuid4().hex[:6]}"
    account = await everybody.person([(8, merchant)])
    await everybody.carry_out(account, 1)
    message = await everybody.queue_done(account)
    await everybody.run()
    await everybody.platform.execute(
        "UPDATE platform.outbox SET delivered_at = NULL, spread_at = NULL, due_at = $2 WHERE message_id = $1",
        message.message_id,
        AT,
    )
    await everybody.platform.execute(
        "UPDATE platform.outbox SET delivered_at = NULL, due_at = $1 WHERE addressee = $2", AT, merchant
    )
    assert await everybody.run() == 2
    assert len(await everybody.mailbox("merchant", merchant)) == 1


async def test_a_silent_wallet_keeps_back_its_own_notices_alone(everybody: Everybody) -> None:
    """The person, and everybody whose participant answers, hears at once; the merchants as soon as the wallet does."""
    account = await everybody.person([(9, "爱奇艺")])
    await everybody.carry_out(account, 1)
    message = await everybody.queue_done(account)

    async def silent(_ending: str, _keys: Sequence[tuple[int, int]]) -> list[Any]:
        raise TimeoutError

    deliver = everybody.delivery(ended={**everybody.ended, "ended_contracts": silent})
    assert await deliver(EVERYWHERE, AT) == 1
    assert await deliver(EVERYWHERE, AT) == 2, "the enterprise and the platform"
    [row] = [row for row in await everybody.rows(account) if row["message_id"] == message.message_id]
    assert (row["delivered_at"], row["spread_at"]) == (AT, None)
    assert row["due_at"] > AT
    await outbox.insert(
        everybody.platform, [msgspec.structs.replace(message, message_id=uuid4(), template="case_requested")], AT
    )
    assert await deliver(EVERYWHERE, AT) == 1, "what the person is told next does not wait for it"
    await everybody.run(row["due_at"])
    rows = await everybody.rows(account)
    assert {row["addressee"] for row in rows if row["addressee_kind"] == "merchant"} == {"爱奇艺"}
    assert all(row["delivered_at"] and row["due_at"] is None for row in rows)


async def test_an_unknown_addressee_holds_up_nobody_and_can_be_replayed(everybody: Everybody) -> None:
    """One merchant that is gone must not keep a thousand others from hearing; an operator mends it and sends again."""
    gone, good = f"gone-{uuid4().hex[:6]}", f"good-{uuid4().hex[:6]}"
    account = await everybody.person([(1, gone), (2, good), (3, gone)])
    await everybody.carry_out(account, 1)
    await everybody.queue_done(account)
    await everybody.refuse(AddresseeRefusal(AddresseeKind.MERCHANT, gone))
    await everybody.run()
    assert len(await everybody.mailbox("merchant", good)) == 1
    dead = await outbox.load_dead(everybody.platform, 10)
    assert [(one.addressee, one.dead_code, one.replayed_by) for one in dead] == [(gone, "NO-SUCH-ADDRESSEE", None)] * 2
    assert await everybody.run(AT + timedelta(days=1)) == 0, "given up: not tried again by itself"
    await everybody.refuse()
    ids = await outbox.replay(everybody.platform, [dead[0].message_id], "mei", AT + timedelta(days=1), 10)
    assert ids == [dead[0].message_id]
    assert await everybody.run(AT + timedelta(days=1)) == 1
    assert await outbox.replay(everybody.platform, None, "mei", AT + timedelta(days=1), 10) == [dead[1].message_id]
    assert await everybody.run(AT + timedelta(days=1)) == 1
    assert {UUID(one["message_id"]) for one in await everybody.mailbox("merchant", gone)} == {
        one.message_id for one in dead
    }
    assert await outbox.load_dead(everybody.platform, 10) == []


async def test_a_mailbox_that_is_down_gets_all_later_in_order(everybody: Everybody) -> None:
    """A merchant that was down must not read of the end of a contract after that of the next one, nor miss either."""
    down = f"down-{uuid4().hex[:6]}"
    await everybody.refuse(AddresseeRefusal(AddresseeKind.MERCHANT, down, code="MAILBOX-DOWN", final=False))
    for number in range(3):
        account = await everybody.person([(100 + number, down)])
        await everybody.carry_out(account, 1)
        await everybody.queue_done(account, AT + timedelta(seconds=number))
    now = AT + timedelta(seconds=10)
    await everybody.run(now)
    rows = await everybody.platform.fetch(
        "SELECT attempt, due_at FROM platform.outbox WHERE addressee = $1 ORDER BY created_at", down
    )
    assert [row["attempt"] for row in rows] == [1, 0, 0], "only the first counts a try"
    assert all(row["due_at"] > now for row in rows), "nothing of it is read again before its time"
    account = await everybody.person([(103, down)])
    await everybody.carry_out(account, 1)
    await everybody.queue_done(account, now)
    await everybody.run(now)
    assert await everybody.mailbox("merchant", down) == [], "a later one waits for the earlier ones"
    await everybody.refuse()
    await everybody.run(now + timedelta(minutes=6))
    shown = [one["text"]["en"] for one in await everybody.mailbox("merchant", down)]
    assert [next(n for n in range(100, 104) if str(n) in text) for text in shown] == [100, 101, 102, 103]


async def test_after_three_days_an_addressee_is_given_up(everybody: Everybody) -> None:
    """Else the outbox of a merchant that went out of business would be tried for ever, and nobody would look."""
    lost = f"lost-{uuid4().hex[:6]}"
    await everybody.refuse(AddresseeRefusal(AddresseeKind.MERCHANT, lost, code="MAILBOX-DOWN", final=False))
    account = await everybody.person([(5, lost)])
    await everybody.carry_out(account, 1)
    await everybody.queue_done(account)
    await everybody.run()
    assert await outbox.load_dead(everybody.platform, 10) == []
    await everybody.run(AT + timedelta(days=3, minutes=1))
    assert [one.dead_code for one in await outbox.load_dead(everybody.platform, 10)] == ["MAILBOX-DOWN"]


class Gateway(HttpGateway):
    """A gateway of another make: it answers 422 to a whole request that holds a notice it does not like."""

    def __init__(self, world: Sandbox, disliked: str) -> None:
        super().__init__(world.link("phone"))
        self._disliked, self.requests = disliked, 0

    async def _post(self, notices: Sequence[Notice]) -> Any:
        self.requests += 1
        # What the sandbox's gateway cannot read it refuses with 422, as a strict one of another make would.
        spoilt = [
            msgspec.structs.replace(one, text=Text(one.text.zh, None))  # type: ignore[arg-type]
            if one.to is not None and one.to.id == self._disliked
            else one
            for one in notices
        ]
        return await super()._post(spoilt)


async def test_a_gateway_that_refuses_a_whole_request_is_asked_until_the_bad_notice_is_alone(
    everybody: Everybody, world: Sandbox
) -> None:
    """One notice that a gateway cannot take would otherwise keep every code of the whole platform from its phone."""
    bad = f"bad-{uuid4().hex[:6]}"
    gateway = Gateway(world, bad)

    def to(name: str) -> Notice:
        organisation = Organisation(AddresseeKind.MERCHANT, name, name)
        return Notice(uuid4(), Channel.MAILBOX, Text("终止", "ended"), to=organisation)

    others = [f"other-{uuid4().hex[:6]}" for _ in range(7)]
    first, second = to(bad), to(bad)
    refused: Refusals = await gateway.send([to(others[0]), first, second, *map(to, others[1:])])
    await gateway.aclose()
    assert set(refused) == {first.message_id, second.message_id}
    assert not any(one.final for one in refused.values()), "only the status spoke: it may be the gateway that is wrong"
    for name in others:
        assert len(await everybody.mailbox("merchant", name)) == 1
    assert await everybody.mailbox("merchant", bad) == []
