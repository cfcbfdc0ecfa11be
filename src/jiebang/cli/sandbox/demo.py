"""`jiebang demo`: fill an installation with people, start everything, tell the stories, audit, and stay up."""

from __future__ import annotations

import asyncio
import secrets
import signal
import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
import msgspec
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as Styled

from jiebang.app import open_app
from jiebang.cli.language import read, say
from jiebang.cli.operations.serve import audit_summary, warn_of_edited_packs
from jiebang.cli.sandbox.accounts import load_people
from jiebang.cli.show import TimelineView, show_audit_briefly, show_blockers, show_outcome_briefly
from jiebang.clock import utc_now
from jiebang.model.check import CheckAnswer, Text
from jiebang.model.errors import InvalidInputError
from jiebang.participants import PARTICIPANTS
from jiebang.sandbox.control import Control
from jiebang.sandbox.population.people import STORY_PEOPLE
from jiebang.sandbox.processes import Sandbox, sandbox
from jiebang.sandbox.stage import clear, only_demo, platform_processes
from jiebang.sandbox.stories import PASSWORD, STORIES, Role, StoryEnding, World, play_story, unbind

if TYPE_CHECKING:
    from rich.console import Console

    from jiebang.settings import Settings

SEED: Final = 7
_HTTP_LIMIT: Final = 30.0
_SPARES: Final = tuple(person.account_id for name, person in STORY_PEOPLE.items() if name.startswith("spare_"))
"""People without blockers; the last one is left for the viewer of the demo to try."""


class _Screen:
    """Draws one story as it happens; a `stories.Listener`. What one story has told the others do not repeat."""

    def __init__(self, screen: Console, live: Live, role: Role) -> None:
        self._screen, self._live = screen, live
        self._first = role is Role.CLEAR
        self._view = TimelineView()

    def says(self, text: Text) -> None:
        self._screen.print(f"  · {read(text)}", style="cyan", markup=False)

    def checked(self, check: Mapping[str, Any]) -> None:
        answer = msgspec.convert({**check, "account_id": int(check["account"])}, CheckAnswer)
        show_blockers(self._screen, answer)
        if self._first:
            show_outcome_briefly(self._screen, answer)
            command = f"jiebang check {_SPARES[-1]}"
            self._screen.print(say(f"  (全文:{command})", f"  (in full: {command})"), style="dim", highlight=False)

    def saved(self, event: Mapping[str, Any]) -> None:
        self._view.add(event["entries"])
        # The ordinary way is told in one line, since the next story shows it at every participant.
        self._live.update(self._view.show_states() if self._first else self._view, refresh=True)


async def _tell_stories(world: World, screen: Console) -> list[StoryEnding]:
    endings = []
    for story in STORIES:
        person = STORY_PEOPLE[story.role.value]
        screen.rule(f"[bold]{person.name}[/]  {read(story.title)}")
        with Live(console=screen, auto_refresh=False) as live:
            listener = _Screen(screen, live, story.role)
            endings.append(
                await play_story(story, person.account_id, STORY_PEOPLE["sender"].account_id, world, listener)
            )
        if not screen.is_terminal:
            screen.print()  # where nothing can be drawn over, the last drawing has no end of line
        result = endings[-1]
        right = say("与预期一致", "as told") if result.ok else say("与预期不符!", "NOT as told!")
        screen.print(
            say(
                f"结局:{result.ended}({right}),{result.ms:.0f} 毫秒",
                f"Ended: {result.ended} ({right}), {result.ms:.0f} ms",
            ),
            style="green" if result.ok else "bold red",
        )
    return endings


async def _idle_latency(world: World, screen: Console) -> float:
    """Take the spare people through one after another; return the median from proven to done."""
    taken = [await unbind(account, world) for account in _SPARES[:-1]]
    p50 = statistics.median(taken)
    screen.print(
        say(
            f"空闲时,另外 {len(taken)} 人从验证通过到全部数据库与清算机构完成:"
            f"中位数 {p50:.0f} 毫秒,最慢 {max(taken):.0f} 毫秒",
            f"Idle, {len(taken)} more people from proven to done, all databases and networks included: "
            f"median {p50:.0f} ms, slowest {max(taken):.0f} ms",
        )
    )
    return round(p50, 1)


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=_HTTP_LIMIT, trust_env=False)


@asynccontextmanager
async def _world(outside: Sandbox, api_url: str) -> AsyncIterator[World]:
    issuer = outside.issuer
    devices = {person.account_id: person.device_id for person in STORY_PEOPLE.values()}

    def token(account_id: int) -> str:
        return issuer.person(account_id, utc_now(), str(uuid4()), device=devices.get(account_id))

    async with AsyncExitStack() as stack:
        networks = {name: Control(outside.link(name)) for name in PARTICIPANTS.networks}
        for control in networks.values():
            stack.push_async_callback(control.aclose)
        yield World(
            api=await stack.enter_async_context(_client(api_url)),
            phone=await stack.enter_async_context(_client(outside.addresses["phone"])),
            superapp=await stack.enter_async_context(_client(outside.addresses["superapp"])),
            networks=networks,
            token=token,
            new_key=lambda: secrets.token_hex(16),
        )


async def perform(settings: Settings, screen: Console, *, people: int, once: bool) -> dict[str, Any]:
    """Run the whole demo on `screen`; without `once`, stay up until interrupted. Returns the summary.

    Raises InvalidInputError for fewer `people` than the stories have, StoryFailedError, NotOursToClearError,
    DemoRunningError, ProcessStartError.
    """
    if people < len(STORY_PEOPLE):
        reason = Text(
            f"至少 {len(STORY_PEOPLE)} 人,故事里才有人", f"at least {len(STORY_PEOPLE)}, the people of the stories"
        )
        raise InvalidInputError(field="people", reason=reason)
    started = perf_counter()
    async with AsyncExitStack() as stack:
        stack.enter_context(only_demo(settings.home))
        empty = await stack.enter_async_context(open_app(settings))
        ends = (empty.anchor, empty.last_seal)
        await clear(empty.pools, settings.home, ends, outside=settings.databases is not None)
        outside = await stack.enter_async_context(sandbox(settings.home, databases=empty.databases))
        app = await stack.enter_async_context(open_app(settings))  # now with links to the networks, which run
        warn_of_edited_packs(app, screen)
        starting = asyncio.create_task(_start_platform(stack, settings))
        await load_people(app, outside, people, SEED, screen)
        processes = await starting
        api_url = processes["api"].url
        if processes["api"].port != settings.http.port != 0:
            screen.print(
                say(
                    f"端口 {settings.http.port} 已被占用,接口改在 {api_url}",
                    f"Port {settings.http.port} is taken: the API answers at {api_url}",
                ),
                style="yellow",
            )
        world = await stack.enter_async_context(_world(outside, api_url))
        screen.print(
            say(
                f"一切就绪,用时 {perf_counter() - started:.1f} 秒",
                f"Everything is up after {perf_counter() - started:.1f} s",
            ),
            style="bold green",
        )
        endings = await _tell_stories(world, screen)
        p50 = await _idle_latency(world, screen)
        report = await app.verify()
        screen.rule()
        show_audit_briefly(screen, report)
        summary = {
            "stories": [_ending_to_json(one) for one in endings],
            "verify": audit_summary(report),
            "idle_p50_ms": p50,
        }
        if not once:
            show_what_next(screen, {"api": api_url, **outside.addresses}, settings)
            await _wait_for_interrupt()
        return summary


async def _start_platform(stack: AsyncExitStack, settings: Settings) -> Mapping[str, Any]:
    return await stack.enter_async_context(platform_processes(settings.home, api_port=settings.http.port))


def _ending_to_json(endings: StoryEnding) -> dict[str, Any]:
    return {
        "name": endings.name,
        "expected": endings.expected,
        "ended": endings.ended,
        "ok": endings.ok,
        "participants": dict(endings.participants),
        "ms": endings.ms,
    }


def show_what_next(screen: Console, addresses: Mapping[str, str], settings: Settings) -> None:
    """Draw where everything answers, where the phone's code is read, and what to try."""
    person, blocked = _SPARES[-1], _SPARES[-1] + 1
    phone = f"{addresses['phone']}/phones/{person}"
    where = Table(show_header=False, box=None, pad_edge=False)
    where.add_column(no_wrap=True)
    where.add_column(overflow="fold")
    where.add_row(say("接口", "API"), addresses["api"])
    where.add_row(say("接口文档", "API document"), f"{addresses['api']}/openapi.json")
    where.add_row(say(f"{person} 号的手机", f"Phone of person {person}"), phone)
    where.add_row(say("超级应用", "Super-app"), addresses["superapp"])
    for name in PARTICIPANTS.networks:
        where.add_row(name, addresses[name])
    where.add_row(say("数据目录", "Data"), str(settings.home))
    screen.print(Panel(where, title=say("正在运行,按 Ctrl-C 停止", "Running; Ctrl-C stops it"), expand=False))
    steps = Table(show_header=False, box=None, pad_edge=False)
    steps.add_column(no_wrap=True)
    for command, told in (
        (". .venv/bin/activate", say("使 jiebang 命令可用", "makes the command jiebang known")),
        (f"export JIEBANG_HOME='{settings.home.absolute()}'", "") if settings.home.name != ".jiebang" else ("", ""),
        # In a demo's own home the sandbox stands in by itself.
        ("export JIEBANG_SANDBOX=true", "") if settings.databases is not None else ("", ""),
        (f"jiebang check {blocked}", say(f"挡住 {blocked} 号的一切", f"all that stands in the way of {blocked}")),
        (f"jiebang submit {person}", say("提交;随后输入密码与验证码", "asks; then for the password and the code")),
        (f"  {PASSWORD}", say("支付密码,人人如此", "the payment password, everybody's")),
        (
            f"  curl -s {phone}",
            say("手机上的验证码;也可在浏览器打开", "the code on the phone; or open it in a browser"),
        ),
        ("jiebang case case_… --follow", say("实时时间线", "the live timeline")),
        ("jiebang explain 30007", say("某个代码的含义", "what a code means")),
        ("jiebang verify", say("再审计一次", "audits again")),
    ):
        if command:
            steps.add_row(Styled(command, style="bold"), told)
    screen.print(say("在另一个终端接着试:", "Try next, in another terminal:"))
    screen.print(steps)


async def _wait_for_interrupt() -> None:
    """Wait for SIGINT or SIGTERM."""
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    await asked.wait()
