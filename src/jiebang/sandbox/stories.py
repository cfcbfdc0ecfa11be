"""The demo's stories: named people who take their real name back through the HTTP API, as anybody would.

A story drives the API with the person's own token, reads the SMS code from the sandbox's phone, switches faults on at a
clearing network or sends money in the super-app where the story wants it, and follows the case's timeline to its end.
It reports each event to a `Listener`, which the terminal shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import OurFaultError
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault

if TYPE_CHECKING:
    from jiebang.sandbox.control import Control

ENDED: Final = frozenset({"done", "aborted", "rejected", "withdrawn", "expired"})
PASSWORD: Final = "246810"  # noqa: S105 - the payment password of people who do not exist
_CODE: Final = re.compile(r"验证码\s*(\d+)")
"""How a person finds the code in a text message."""
_SLOW_MS: Final = 600
_PATIENCE_SECONDS: Final = 30.0


class Role(StrEnum):
    """The part that the person of a story plays."""

    CLEAR = "clear"
    BLOCKED = "blocked"
    MOVING = "moving"
    SILENT = "silent"


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A named person's story and how it must end."""

    role: Role
    title: Text
    expected: str


STORIES: Final[Sequence[Story]] = (
    Story(role=Role.CLEAR, title=Text("一切就绪的人", "Nothing stands in the way"), expected="done"),
    Story(
        role=Role.BLOCKED,
        title=Text("余额 ¥0.01、红包未拆,清掉后通过", "Blocked by ¥0.01 and a red packet, clears both, passes"),
        expected="done",
    ),
    Story(
        role=Role.MOVING,
        title=Text("中途有人转账:全部回滚", "Money moves half-way: rolled back everywhere"),
        expected="aborted",
    ),
    Story(
        role=Role.SILENT,
        title=Text("网联无应答:全部回滚", "NetsUnion falls silent: rolled back everywhere"),
        expected="aborted",
    ),
)


class StoryEnding(msgspec.Struct, frozen=True, kw_only=True):
    """How a story ended. `ms`: from the last proof accepted to the case's end, as its timeline has it."""

    name: str
    expected: str
    ended: str
    ok: bool
    participants: Mapping[str, str]
    ms: float
    case: str


class Listener(Protocol):
    """Receives the events of a story."""

    def says(self, text: Text) -> None:
        """Something happened that a person would notice."""

    def checked(self, check: Mapping[str, Any]) -> None:
        """A check was answered."""

    def saved(self, event: Mapping[str, Any]) -> None:
        """A row of the timeline arrived."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Where a story takes place. `token(account_id)`: an access token of the person at their primary device."""

    api: httpx.AsyncClient
    phone: httpx.AsyncClient
    superapp: httpx.AsyncClient
    networks: Mapping[str, Control]
    token: Callable[[int], str]
    new_key: Callable[[], str]


class StoryFailedError(OurFaultError):
    """A step of a story did not do what it must. fields: step, expected, status, answer."""

    code = "STORY-FAILED"
    title = Text("演示中的一步没有得到应有的结果", "A step of the demo did not do what it must")
    action = Text("详见 answer 与数据目录中的 logs。", "See `answer`, and the logs in the home folder.")


async def play_story(story: Story, account_id: int, other_id: int, world: World, listener: Listener) -> StoryEnding:
    """Play one story. `other_id`: an account with money, which sends some where the story needs it.

    Raises StoryFailedError, and TimeoutError when something never comes.
    """
    person = _Person(account_id, world)
    check = await person.check()
    listener.checked(check)
    if story.role is Role.BLOCKED:
        await _clear_blockers(person, listener)
    async with _trouble(story.role, account_id, world, listener):
        case = await person.submit()
        listener.says(Text("已提交,并已通知本人手机与邮箱", "Submitted; the person's phone and e-mail were told"))
        await person.prove(case)
        listener.says(Text("支付密码与短信验证码通过", "Payment password and SMS code accepted"))
        timeline = []
        async for event in person.events(case):
            listener.saved(event)
            timeline.append(event)
            if story.role is Role.MOVING and _enters(event, "trying"):
                await _Person(other_id, world).send_one_fen(account_id)
                listener.says(Text("有人转来 ¥0.01", "Somebody sends ¥0.01"))
        ended = await person.case(case)
    return StoryEnding(
        name=story.role.value,
        expected=story.expected,
        ended=ended["state"],
        ok=ended["state"] == story.expected and len(set(ended["participants"].values())) == 1,
        participants=ended["participants"],
        ms=_milliseconds(timeline),
        case=case,
    )


async def unbind(account_id: int, world: World) -> float:
    """Drive one person without blockers to the end; return the milliseconds from the last proof."""
    person = _Person(account_id, world)
    case = await person.submit()
    await person.prove(case)
    timeline = [event async for event in person.events(case)]
    return _milliseconds(timeline)


class _Person:
    """One person at the API, with their own token and phone."""

    def __init__(self, account_id: int, world: World) -> None:
        self.account_id, self._world = account_id, world
        self._headers = {"Authorization": f"Bearer {world.token(account_id)}"}

    async def _ask(
        self, method: str, path: str, body: object = None, *, expect: int, at: httpx.AsyncClient | None = None
    ) -> Any:
        headers = self._headers | ({} if method == "GET" else {"Idempotency-Key": self._world.new_key()})
        answer = await (at or self._world.api).request(method, path, json=body, headers=headers)
        if answer.status_code != expect:
            raise StoryFailedError(
                step=f"{method} {path}", expected=expect, status=answer.status_code, answer=answer.text[:500]
            )
        return answer.json()

    async def check(self) -> dict[str, Any]:
        body = {"accounts": [str(self.account_id)], "kind": "revoke"}
        checks: dict[str, Any] = await self._ask("POST", "/v1/checks", body, expect=200)
        first: dict[str, Any] = checks["checks"][0]
        return first

    async def remedy(self, name: str) -> None:
        await self._ask("POST", f"/v1/remedies/{name}", {"account": str(self.account_id)}, expect=200)

    async def send_one_fen(self, to: int) -> None:
        body = {"from": str(self.account_id), "to": str(to), "amount_fen": 1}
        await self._ask("POST", "/v1/transfers", body, expect=200, at=self._world.superapp)

    async def refused(self) -> dict[str, Any]:
        body = {"account": str(self.account_id), "kind": "revoke"}
        problem: dict[str, Any] = await self._ask("POST", "/v1/cases", body, expect=409)
        return problem

    async def submit(self) -> str:
        case = await self._ask("POST", "/v1/cases", {"account": str(self.account_id), "kind": "revoke"}, expect=201)
        return str(case["id"])

    async def case(self, case: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("GET", f"/v1/cases/{case}", expect=200)
        return found

    async def prove(self, case: str) -> None:
        await self._ask(
            "POST", f"/v1/cases/{case}/proofs", {"method": "payment_password", "secret": PASSWORD}, expect=200
        )
        code = await self._sms_code()
        await self._ask("POST", f"/v1/cases/{case}/proofs", {"method": "sms_code", "secret": code}, expect=200)

    async def _sms_code(self) -> str:
        """Wait for the phone to show the code of this case: the newest message that holds one."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:  # the phone offers no notification, so it is polled
                answer = await self._world.phone.get(f"/phones/{self.account_id}")
                texts = [message["text"]["zh"] for message in answer.json()["messages"] if message["channel"] == "sms"]
                codes = [found[1] for text in texts if (found := _CODE.search(text))]
                if codes:
                    return codes[-1]
                await asyncio.sleep(0.01)

    async def events(self, case: str) -> AsyncIterator[dict[str, Any]]:
        """Follow the case's server-sent events until it has ended."""
        path = f"/v1/cases/{case}/events"
        headers = self._headers | {"Accept": "text/event-stream"}
        async with (
            asyncio.timeout(_PATIENCE_SECONDS),
            self._world.api.stream("GET", path, headers=headers, timeout=_PATIENCE_SECONDS) as stream,
        ):
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    event: dict[str, Any] = msgspec.json.decode(line[5:])
                    yield event
                    if any(_enters(event, state) for state in ENDED):
                        return


async def _clear_blockers(person: _Person, listener: Listener) -> None:
    """Submit and be refused, clear every blocker on the spot, and check again."""
    await person.refused()
    listener.says(Text("提交被拒:一次列出全部阻碍", "Refused, with every blocker at once"))
    await person.remedy("red-packets")
    listener.says(Text("拆开红包", "Opens the red packet"))
    await person.remedy("cash-out")
    listener.says(Text("余额全部提现", "Cashes out the whole balance"))
    listener.checked(await person.check())


@contextlib.asynccontextmanager
async def _trouble(role: Role, account_id: int, world: World, listener: Listener) -> AsyncIterator[None]:
    """Switch on the fault that a story needs, for its person alone, and off again."""
    meant = (str(account_id),)
    match role:
        case Role.MOVING:
            network, fault = "unionpay", NetworkFault(FaultKind.SLOW, ops=(FaultOp.TRY,), accounts=meant, ms=_SLOW_MS)
            message = Text(f"银联变慢({_SLOW_MS} 毫秒)", f"UnionPay turns slow ({_SLOW_MS} ms)")
        case Role.SILENT:
            network, fault = "netsunion", NetworkFault(FaultKind.SILENT, ops=(FaultOp.TRY,), accounts=meant)
            message = Text("网联对尝试请求不再应答", "NetsUnion no longer answers a Try")
        case _:
            yield
            return
    await world.networks[network].set_faults([fault])
    listener.says(message)
    try:
        yield
    finally:
        await world.networks[network].set_faults([])


def _enters(event: Mapping[str, Any], state: str) -> bool:
    return any(entry.get("state") == state for entry in event["entries"])


def _milliseconds(timeline: Sequence[Mapping[str, Any]]) -> float:
    """Return the milliseconds from the entry `ready` to the ended state; 0 where one is missing."""
    at = {
        entry["state"]: datetime.fromisoformat(entry["at"])
        for event in timeline
        for entry in event["entries"]
        if entry["what"] == "state"
    }
    ended = next((at[state] for state in ENDED if state in at), None)
    if ended is None or "ready" not in at:
        return 0.0
    return round((ended - at["ready"]).total_seconds() * 1000, 1)
