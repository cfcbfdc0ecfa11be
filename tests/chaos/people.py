"""People at the API and the super-app while everything breaks: they ask, prove, withdraw, pay, and remember it all.

A client does what a good one does: whatever brings no definite answer (no connection, no answer in time, 429, 5xx) is
sent again under the same Idempotency-Key until one comes. So after the storm everything asked has been answered.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import httpx

from jiebang.model.notice import Channel
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.control import Control
from jiebang.sandbox.ledger import Binding
from jiebang.store.encryption import password_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.app import App
    from jiebang.sandbox.processes import Sandbox
    from tests.chaos.storm import Stage

PASSWORD: Final = "246810"
OPENING_FEN: Final = 100_000
"""What each sender has at first; nobody else has anything."""
_ENDED: Final = frozenset({"done", "aborted", "rejected", "withdrawn", "expired"})
_CODE: Final = re.compile(r"验证码\s*(\d+)")
_ONE_ANSWER: Final = 5.0
_PAUSE: Final = 0.2
_BUSY: Final = "WALLET-BUSY"
_HELD: Final = "IDEMPOTENCY-KEY-IN-USE"
"""By the request before it, which may have died with its process: to be sent again."""


def sends(account: int) -> bool:
    """Every tenth account has money, and asks for nothing."""
    return account % 10 == 0


def receives(account: int) -> bool:
    """Another tenth gets money in the middle of everything: with the senders, money moves on 20% of the accounts."""
    return account % 10 == 5


async def settle(app: App, outside: Sandbox, ids: Sequence[int]) -> None:
    """Bind an identity to the accounts everywhere; nothing stands in their way, save the senders' money."""
    await app.pools["platform"].execute(
        "INSERT INTO platform.account (account_id, created_at) SELECT unnest($1::bigint[]), now()", ids
    )
    for name in PARTICIPANTS.databases:
        await app.pools[name].execute(
            f"INSERT INTO {name.split('_')[0]}.account (account_id) SELECT unnest($1::bigint[])", ids
        )
        if name.startswith("identity"):
            await app.pools[name].execute(
                """UPDATE identity.account SET state = 'active', level = 2, document_type = 'resident_id',
                       sealed = '\\x00', document_index = sha256(account_id::text::bytea), birth_date = '1990-01-01',
                       changed_at = '2024-01-01Z' WHERE account_id = ANY ($1::bigint[])""",
                ids,
            )
    await app.pools["security"].execute(
        """UPDATE security.account SET primary_device_id = 'phone-' || account_id,
               primary_device_since = now() - interval '1 year' WHERE account_id = ANY ($1::bigint[])""",
        ids,
    )
    salt = bytes(16)
    await app.pools["wallet"].execute(
        """UPDATE wallet.account SET password_salt = $2, password_hash = $3,
               balance_fen = CASE WHEN account_id % 10 = 0 THEN $4::bigint ELSE 0 END
           WHERE account_id = ANY ($1::bigint[])""",
        ids,
        salt,
        password_hash(app.secrets.passwords, salt, PASSWORD),
        OPENING_FEN,
    )
    await app.pools["wallet"].execute(
        """INSERT INTO wallet.entry (account_id, entry_id, kind, title, amount_fen, state, made_at, ended_at)
           SELECT account_id, gen_random_uuid(), 'opening', '', balance_fen, 'completed', now(), now()
           FROM wallet.account WHERE account_id = ANY ($1::bigint[])""",
        ids,
    )
    for network in PARTICIPANTS.networks:
        control = Control(outside.link(network))
        await control.bind([Binding(str(account), f"card-{account}", "card") for account in ids])
        await control.aclose()


@dataclass(slots=True)
class Told:
    """What people were told, which must all be true afterwards."""

    submitted: dict[str, int] = field(default_factory=dict)  # 201: case -> account
    ready: set[str] = field(default_factory=set)  # 200 to the last proof
    wished: set[str] = field(default_factory=set)  # 202 to a withdrawal
    too_late: set[str] = field(default_factory=set)  # 409 to one
    ended: dict[str, str] = field(default_factory=dict)  # 200 to a read
    moved: dict[UUID, tuple[int, int, int, str]] = field(default_factory=dict)  # id -> from, to, fen, state
    refused: Counter[str] = field(default_factory=Counter)  # definite refusals, by what and code
    unanswered: Counter[str] = field(default_factory=Counter)  # what was sent again, by status or error
    waiting: int = 0  # requests that still have no definite answer
    busy_seconds: float = 0.0  # the longest that one transfer was told "busy", outages included


class People:
    """Everybody, at an API of several processes: who gets no answer from one asks another. Money is the super-app's."""

    def __init__(self, stage: Stage, api_urls: Sequence[str], superapp_url: str, ids: Sequence[int], seed: int) -> None:
        self.told = Told()
        self.stopping = asyncio.Event()
        self._issuer, self._dice = stage.outside.issuer, random.Random(seed)  # noqa: S311 - must be replayable
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self._apis, self._superapp_url = itertools.cycle(api_urls), superapp_url
        self._api_url = next(self._apis)
        self._api = httpx.AsyncClient(timeout=_ONE_ANSWER, trust_env=False, limits=limits)
        self._phone = httpx.AsyncClient(
            base_url=stage.outside.addresses["phone"], timeout=_ONE_ANSWER, trust_env=False, limits=limits
        )
        self._queue = [account for account in ids if not sends(account)]
        self._senders = [account for account in ids if sends(account)]
        self._receivers = [account for account in ids if receives(account)]
        self._live = set[int]()
        self._held = defaultdict[int, int](int)
        self._numbers = iter(range(1, 1 << 62))

    async def run(self, *, visitors: int, movers: int) -> None:
        """Let `visitors` people at a time try to unbind, and `movers` send money, until `stopping`; then finish."""
        async with asyncio.TaskGroup() as everybody:
            for _ in range(visitors):
                everybody.create_task(self._visit())
            for _ in range(movers):
                everybody.create_task(self._move_money())
        await self._api.aclose()
        await self._phone.aclose()

    async def get_on(self, more: int, patience: float, *, done: bool = False) -> bool:
        """Wait until `more` further cases are told ended (or `done`); say whether that came to pass in time."""

        def ended() -> int:
            return sum(not done or end == "done" for end in self.told.ended.values())

        enough = ended() + more
        try:
            async with asyncio.timeout(patience):
                while ended() < enough:  # noqa: ASYNC110 - every person tells it
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            return False
        return True

    async def _visit(self) -> None:
        while not self.stopping.is_set() and self._queue:
            account = self._queue.pop(0)
            if await self._unbind(account) != "done":
                self._queue.append(account)  # broken off: another time
            await asyncio.sleep(self._dice.uniform(0, 0.1))

    async def _unbind(self, account: int) -> str:
        if self._held[account]:
            await self._transfer(account, self._dice.choice(self._senders), self._held[account])
        answer = await self._ask(account, "POST", "/v1/cases", {"account": str(account), "kind": "revoke"})
        if answer.status_code != httpx.codes.CREATED:
            self._refuse("submit", answer)
            return "refused"
        case = answer.json()["id"]
        self.told.submitted[case] = account
        self._live.add(account)
        withdrawing = None
        if self._dice.random() < 0.12:
            withdrawing = asyncio.create_task(self._withdraw(account, case, self._dice.uniform(0, 1.5)))
        try:
            proven = await self._prove(account, case)
            return await self._read_to_the_end(account, case, proven=proven or withdrawing is not None)
        finally:
            self._live.discard(account)
            if withdrawing is not None:
                await withdrawing

    async def _prove(self, account: int, case: str) -> bool:
        path = f"/v1/cases/{case}/proofs"
        answer = await self._ask(account, "POST", path, {"method": "payment_password", "secret": PASSWORD})
        if answer.status_code != httpx.codes.OK:
            self._refuse("password", answer)
            return False
        code = await self._code(account, case)
        if code is None:
            return False
        answer = await self._ask(account, "POST", path, {"method": "sms_code", "secret": code})
        if answer.status_code != httpx.codes.OK:
            self._refuse("code", answer)
            return False
        self.told.ready.add(case)
        return True

    async def _code(self, account: int, case: str) -> str | None:
        """Wait for the text message that came with the e-mail which names this case; None once it was withdrawn."""
        while case not in self.told.wished:
            try:
                answer = await self._phone.get(f"/phones/{account}")
            except (httpx.HTTPError, AttributeError):
                await asyncio.sleep(_PAUSE)
                continue
            inbox = answer.json()["messages"]
            mails = {mail["message_id"] for mail in inbox if case in mail["text"]["zh"]}
            for message in inbox:
                found = _CODE.search(message["text"]["zh"])
                if found and str(uuid5(UUID(message["message_id"]), Channel.EMAIL)) in mails:
                    return found[1]
            await asyncio.sleep(_PAUSE)
        return None

    async def _withdraw(self, account: int, case: str, after: float) -> None:
        await asyncio.sleep(after)
        answer = await self._ask(account, "DELETE", f"/v1/cases/{case}")
        if answer.status_code == httpx.codes.ACCEPTED:
            self.told.wished.add(case)
        else:
            self.told.too_late.add(case)
            self._refuse("withdraw", answer)

    async def _read_to_the_end(self, account: int, case: str, *, proven: bool) -> str:
        """Read the case until it has ended. One that waits for the person is left, after the storm any parked one."""
        while True:
            answer = await self._ask(account, "GET", f"/v1/cases/{case}")
            if answer.status_code != httpx.codes.OK:
                self._refuse("read", answer)
                return "unreadable"
            state = str(answer.json()["state"])
            if state in _ENDED:
                self.told.ended[case] = state
                return state
            if state == "open" and not proven:
                return state
            if self.stopping.is_set() and state in ("confirming", "cancelling"):
                return state
            await asyncio.sleep(_PAUSE)

    async def _move_money(self) -> None:
        while not self.stopping.is_set():
            sender = self._dice.choice(self._senders)
            live = [account for account in self._receivers if account in self._live]
            receiver = self._dice.choice(live or self._receivers)
            if self._dice.random() < 0.5:
                receiver = self._dice.choice([each for each in self._senders if each != sender])
            await self._transfer(sender, receiver, self._dice.randint(1, 5))
            await asyncio.sleep(self._dice.uniform(0, 0.3))

    async def _transfer(self, sender: int, receiver: int, amount_fen: int) -> None:
        body = {"from": str(sender), "to": str(receiver), "amount_fen": amount_fen}
        answer = await self._ask(sender, "POST", "/v1/transfers", body, at=self._superapp_url)
        if answer.status_code != httpx.codes.OK:
            return self._refuse("transfer", answer)
        movement = answer.json()
        self.told.moved[UUID(movement["id"])] = (sender, receiver, amount_fen, movement["state"])
        if movement["state"] == "completed":
            self._held[receiver] += amount_fen if not sends(receiver) else 0
            self._held[sender] -= amount_fen if not sends(sender) else 0
        return None

    async def _ask(
        self, account: int, method: str, path: str, body: Any = None, *, at: str | None = None
    ) -> httpx.Response:
        """Send a request until it is answered definitely. `at`: where, if not at the API."""
        token = self._issuer.person(account, datetime.now(UTC), f"t{next(self._numbers)}", device=f"phone-{account}")
        headers = {"authorization": f"Bearer {token}"}
        if method != "GET":
            headers["idempotency-key"] = f"chaos-{next(self._numbers)}"
        busy_since: float | None = None
        now = asyncio.get_running_loop().time
        self.told.waiting += 1
        while True:
            try:
                url = (at or self._api_url) + path
                answer = await self._api.request(method, url, json=body, headers=headers)
            except (httpx.HTTPError, AttributeError) as error:  # the latter: anyio's, for a reset in mid-connect
                self.told.unanswered[type(error).__name__] += 1
                if url.startswith(self._api_url):
                    self._api_url = next(self._apis)
            else:
                code = _code_of(answer)
                again = answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error or code == _HELD
                if not again:
                    self.told.waiting -= 1
                    return answer
                self.told.unanswered[f"{answer.status_code} {code}"] += 1
                if code == _BUSY:
                    busy_since = busy_since or now()
                    self.told.busy_seconds = max(self.told.busy_seconds, now() - busy_since)
            await asyncio.sleep(_PAUSE)

    def _refuse(self, what: str, answer: httpx.Response) -> None:
        code = _code_of(answer)
        check = answer.json().get("check", {}) if code == "BLOCKED" else {}
        reasons = sorted({str(each.get("code")) for each in check.get("blockers", ())})
        self.told.refused[" ".join([what, str(answer.status_code), code, *reasons])] += 1


def _code_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("code", ""))
    except ValueError:
        return ""
