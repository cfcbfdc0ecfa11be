"""Messages to people: from the outbox, worded in both languages, to a real gateway's phones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import pytest

from jiebang.model.case import BUCKETS, Kind, bucket_of
from jiebang.model.check import Text
from jiebang.model.ids import CaseIds
from jiebang.model.notice import Notice, Refusals
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.opening import open_participants
from jiebang.policy.load import load_pack
from jiebang.remote.gateway import Gateway, HttpGateway
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.store.cases import cases as store
from jiebang.store.cases.cases import NewCase
from jiebang.store.operations import outbox
from jiebang.store.operations.outbox import OutboxMessage
from jiebang.usecases.cases.codes import derive_code
from jiebang.usecases.operations import delivery as delivery_module
from jiebang.usecases.operations.delivery import Delivery, EndedReader

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

PACK = load_pack(
    files("jiebang.policy.packs").joinpath("wechat.yaml").read_text(encoding="utf-8"), "wechat.yaml", PARTICIPANTS
)
IDS, CODES_KEY, NONCE = CaseIds(b"i" * 16), b"c" * 32, b"n" * 16
EVERYWHERE = frozenset(range(BUCKETS))
AT = datetime(2026, 4, 1, 4, 0, tzinfo=UTC)
accounts = count(1)


def readers(pools: Mapping[str, Pool]) -> Mapping[str, EndedReader]:
    """The real participants, which know what their Confirms ended."""
    opened = open_participants(PARTICIPANTS, pools, lambda: AT, pepper=b"p" * 32).values()
    databases = [one for one in opened if isinstance(one, DatabaseParticipant)]
    return {ending: one.read_ended for one in databases for ending in one.endings}


async def _nothing(_cases: object) -> None:
    """There is one version, and it is known."""


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """The real gateway, a process of its own."""
    async with sandbox(tmp_path_factory.mktemp("phone"), names=("phone",)) as running:
        yield running


def deliver_by(gateway: Gateway, pools: Mapping[str, Pool], **more: Any) -> Delivery:
    """What a worker delivers with, by this gateway."""
    return Delivery(
        pool=pools["platform"],
        gateway=gateway,
        pack=lambda: PACK,
        pack_named=lambda _name: PACK,
        know=_nothing,
        case_ids=IDS,
        codes_key=CODES_KEY,
        ended=readers(pools),
        **more,
    )


@pytest.fixture
async def delivery(pools: Mapping[str, Pool], world: Sandbox) -> AsyncIterator[Delivery]:
    await pools["platform"].execute("TRUNCATE platform.outbox")
    gateway = HttpGateway(world.link("phone"))
    yield deliver_by(gateway, pools)
    await gateway.aclose()


async def queued(pool: Pool, template: str, **params: Any) -> OutboxMessage:
    """A new person with a case, and a message about it."""
    account = next(accounts)
    await pool.execute("INSERT INTO platform.account (account_id, created_at) VALUES ($1, $2)", account, AT)
    due = AT + timedelta(days=1)
    new = NewCase(account_id=account, kind=Kind.REVOKE, plan=PACK.id, participants=11, due_at=due)
    await store.insert(pool, [new], AT, [{"what": "state", "state": "open"}])
    message = OutboxMessage(
        account_id=account, message_id=uuid4(), case_no=1, template=template, params=params, created_at=AT
    )
    await outbox.insert(pool, [message], AT)
    return message


async def phone(world: Sandbox, message: OutboxMessage) -> list[dict[str, Any]]:
    """What a person's phone and mailbox show."""
    async with httpx.AsyncClient(base_url=world.addresses["phone"], trust_env=False) as client:
        found: list[dict[str, Any]] = (await client.get(f"/phones/{message.account_id}")).json()["messages"]
    return found


async def row(pool: Pool, message: OutboxMessage) -> Mapping[str, Any]:
    found = await pool.fetchrow("SELECT * FROM platform.outbox WHERE message_id = $1", message.message_id)
    assert found is not None
    return dict(found)


async def test_a_code_reaches_the_phone_in_both_languages(
    delivery: Delivery, pools: Mapping[str, Pool], world: Sandbox
) -> None:
    """The person cannot prove anything without it; in the mailbox, which others may read, it must not stand."""
    expires = (AT + timedelta(minutes=5)).isoformat()
    message = await queued(pools["platform"], "sms_code", nonce=NONCE.hex(), expires_at=expires)
    assert await delivery(EVERYWHERE, AT) == 1
    sms, email = await phone(world, message)
    code = derive_code(CODES_KEY, message.account_id, 1, NONCE, PACK.proofs[Kind.REVOKE].code_digits)
    assert (sms["channel"], email["channel"]) == ("sms", "email")
    for language in ("zh", "en"):
        assert code in sms["text"][language]
        assert code not in email["text"][language]
        assert IDS.encode(message.account_id, 1) in email["text"][language]
    assert PACK.kinds[Kind.REVOKE].zh in sms["text"]["zh"]
    assert "2026年4月1日 12:00" in email["text"]["zh"], "times are told as the person's clock shows them"


@pytest.mark.parametrize("template", sorted(PACK.messages.keys() - {"sms_code"}))
async def test_every_message_of_the_pack_can_be_worded(
    delivery: Delivery, pools: Mapping[str, Pool], world: Sandbox, template: str
) -> None:
    """A value that lacks would keep this message from everybody."""
    message = await queued(pools["platform"], template)
    await pools["platform"].execute(
        "UPDATE platform.cases SET reason = 'PAY-BALANCE,NOBODY-KNOWS' WHERE account_id = $1", message.account_id
    )
    assert await delivery(EVERYWHERE, AT) == 1
    for notice in await phone(world, message):
        assert notice["text"]["zh"] != notice["text"]["en"]
        assert "{" not in notice["text"]["zh"] + notice["text"]["en"]
        if template in ("case_rejected", "case_aborted"):
            assert PACK.reason("PAY-BALANCE,NOBODY-KNOWS").zh in notice["text"]["zh"]


async def test_a_message_told_twice_shows_once(delivery: Delivery, pools: Mapping[str, Pool], world: Sandbox) -> None:
    """A worker that dies between telling and saving tells again; the person must not be alarmed twice."""
    message = await queued(pools["platform"], "case_requested")
    assert await delivery(EVERYWHERE, AT) == 1
    assert await delivery(EVERYWHERE, AT) == 0, "delivered: due no more"
    before = await phone(world, message)
    await pools["platform"].execute("UPDATE platform.outbox SET delivered_at = NULL, due_at = $1", AT)
    assert await delivery(EVERYWHERE, AT) == 1
    assert await phone(world, message) == before
    assert len(before) == 2


async def test_a_gateway_that_is_down_is_asked_again_ever_later(
    delivery: Delivery, pools: Mapping[str, Pool], world: Sandbox
) -> None:
    """A message is never given up, and a gateway that struggles is not hammered."""
    messages = [await queued(pools["platform"], "case_done") for _ in range(3)]
    await world.processes["phone"].stop()
    now, pauses = AT, []
    try:
        for attempt in range(11):
            with pytest.raises(OSError):  # noqa: PT011 - whatever a closed port says
                await delivery(EVERYWHERE, now)
            rows = [await row(pools["platform"], message) for message in messages]
            assert {each["attempt"] for each in rows} == {attempt + 1}
            assert await delivery(EVERYWHERE, rows[0]["due_at"] - timedelta(microseconds=1)) == 0, "not before its time"
            pauses.append(rows[0]["due_at"] - now)
            now = rows[0]["due_at"]
    finally:
        await world.processes["phone"].start()
    assert all(before < after for before, after in pairwise(pauses[:9]))
    assert max(pauses) <= timedelta(minutes=5)
    assert await delivery(EVERYWHERE, now) == 3
    assert [len(await phone(world, message)) for message in messages] == [2, 2, 2]


async def test_a_message_that_cannot_be_worded_keeps_nobody_else_back(
    delivery: Delivery, pools: Mapping[str, Pool], world: Sandbox
) -> None:
    """One row of an older version would otherwise stop every code, and with it everybody's case."""
    pool = pools["platform"]
    wrong = [await queued(pool, "no_such_template"), await queued(pool, "sms_code", nonce="not hex", expires_at="?")]
    gone = await queued(pool, "case_done")
    await pool.execute("DELETE FROM platform.cases WHERE account_id = $1", gone.account_id)
    good = await queued(pool, "case_done")
    assert await delivery(EVERYWHERE, AT) == 1
    assert len(await phone(world, good)) == 2
    for message in (*wrong, gone):
        kept = await row(pool, message)
        assert (kept["dead_code"], kept["dead_at"], kept["delivered_at"]) == ("UNWORDED", AT, None)
        assert kept["due_at"] is None, "an operator replays it once there is a text for it"
        assert await phone(world, message) == []
    assert await delivery(EVERYWHERE, AT) == 0


async def test_only_the_buckets_asked_for_are_delivered(delivery: Delivery, pools: Mapping[str, Pool]) -> None:
    """Two workers would otherwise send everything twice."""
    messages = [await queued(pools["platform"], "case_done") for _ in range(4)]
    mine = bucket_of(messages[0].account_id)
    assert await delivery(frozenset(), AT) == 0
    expected = sum(bucket_of(message.account_id) == mine for message in messages)
    assert await delivery(frozenset({mine}), AT) == expected
    assert await delivery(EVERYWHERE, AT) == len(messages) - expected


async def test_more_than_a_batch_is_told_in_turns(pools: Mapping[str, Pool], world: Sandbox) -> None:
    """A morning's backlog must go out whole, however small the batch."""
    await pools["platform"].execute("TRUNCATE platform.outbox")
    gateway = HttpGateway(world.link("phone"))
    small = deliver_by(gateway, pools, batch=2)
    messages: Sequence[OutboxMessage] = [await queued(pools["platform"], "case_withdrawn") for _ in range(5)]
    assert [await small(EVERYWHERE, AT) for _ in range(4)] == [2, 2, 1, 0]
    shown = {UUID(notice["message_id"]) for message in messages for notice in await phone(world, message)}
    assert {message.message_id for message in messages} <= shown
    await gateway.aclose()


class Mailbox:
    """A gateway that keeps what it is given."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def send(self, notices: Sequence[Notice]) -> Refusals:
        self.notices += notices
        return {}

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_nothing_in_a_message_acts_on_whoever_reads_it(
    pools: Mapping[str, Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a text was filled with: it must not turn the rest around, nor begin another header of a mail."""
    hostile = "A\u202eB\x1b]8;;http://evil\a"
    await pools["platform"].execute("TRUNCATE platform.outbox")
    message = await queued(pools["platform"], "case_aborted")
    told = Text(hostile, hostile)
    monkeypatch.setattr(delivery_module, "pack_message", lambda *_: (told, Text(f"{hostile}\nBcc: x", "s"), told))
    mailbox = Mailbox()
    deliver = deliver_by(mailbox, pools)
    assert await deliver(EVERYWHERE, AT) == 1
    sms, mail = (one.text for one in mailbox.notices if one.account == str(message.account_id))
    plain = "A\N{REPLACEMENT CHARACTER}B␛]8;;http://evil␇"
    assert (sms, mail) == (Text(plain, plain), Text(f"{plain}␊Bcc: x\n\n{plain}", f"s\n\n{plain}"))
