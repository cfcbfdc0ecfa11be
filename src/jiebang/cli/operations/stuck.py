"""`jiebang cases`: cases that make no progress, why, and sending their open ops again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations import corrections
from jiebang.cli.operations.arguments import By, CaseIds, Limit, decode_cases
from jiebang.cli.operations.show import format_age, print_task, task_to_json
from jiebang.cli.runner import REFUSED, Json, console, print_json, with_app
from jiebang.model.case import ENDED

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.app import App
    from jiebang.usecases.operations.stuck import CaseView, RetryOutcome, StuckCase

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "不能推进的申请:列出、查看、重试,以及由两人更正参与方无法执行的效果。任何一条命令都不会改变已作出的决定。",
        "Cases that do not get on: list, show, try again; and two people set right an effect that a participant cannot "
        "apply. None of these ever changes what was decided.",
    ),
)
corrections.register(commands)


@commands.command(
    help=say(
        "列出不能推进的申请及原因,最久无消息的在前:parked 两次被拒;silent 参与方未应答;unread 事实读不到;"
        "undecided 恢复时无法判定;unheard 到期而无人处理。有则退出码为 1。",
        "List cases that do not get on, the quietest first, and why: parked (refused twice), silent (a participant "
        "owes an answer), unread (facts could not be read), undecided (a recovery could not decide it), unheard (due, "
        "but no worker takes it). Exits 1 when there are any.",
    )
)
def stuck(limit: Limit = 100, as_json: Json = False) -> None:
    """List stuck cases."""
    from jiebang.usecases.operations import stuck

    async def work(app: App) -> tuple[list[tuple[str, StuckCase]], datetime]:
        found = await stuck.list_stuck(
            app.pools["platform"], app.registry, app.settings.tasks, app.settings.saga, app.clock(), limit
        )
        return [(app.case_ids.encode(*each.case.key), each) for each in found], app.clock()

    found, now = with_app(work, as_json=as_json)
    if as_json:
        print_json(
            [
                {"case": name, "why": each.why, "state": each.case.state, "waits_for": each.waits_for}
                | {"heard_at": each.heard_at, "attempt": each.case.attempt, "reason": each.case.reason}
                for name, each in found
            ]
        )
    elif not found:
        console.print(say("没有不能推进的申请。", "Every case gets on."))
    for name, each in () if as_json else found:
        waits = ", ".join(each.waits_for) or "—"
        quiet = format_age(each.heard_at, now)
        line = say(
            f"{name}  {each.why}  {each.case.state}  等待:{waits}  {quiet}无消息",
            f"{name}  {each.why}  {each.case.state}  waits for: {waits}  unheard of for {quiet}",
        )
        console.print(line, highlight=False, soft_wrap=True)
    if found:
        raise typer.Exit(REFUSED)


@commands.command(
    help=say(
        "查看一个申请:状态、各参与方的标记与其当前的栅栏行、事项、时间线。",
        "Show a case as operators see it: its state, what it knows of each participant and what each holds now, its "
        "tasks and its timeline.",
    )
)
def show(case: Annotated[str, typer.Argument(metavar="CASE")], as_json: Json = False) -> None:
    """Show one case."""
    from jiebang.model.errors import UnknownCaseError
    from jiebang.usecases.operations import stuck

    async def work(app: App) -> tuple[CaseView, datetime]:
        [key] = decode_cases(app, [case]).values()
        shown = await stuck.show(app.pools["platform"], app.participants, app.registry, [key])
        if key not in shown:
            raise UnknownCaseError(case=case)
        return shown[key], app.clock()

    found, now = with_app(work, as_json=as_json)
    if as_json:
        saved = found.case
        print_json(
            {"case": case, "state": saved.state, "kind": saved.kind, "plan": saved.plan, "reason": saved.reason}
            | {"revision": saved.revision, "attempt": saved.attempt, "due_at": saved.due_at, "deadline": saved.deadline}
            | {"participants": found.parties, "timeline": found.timeline}
            | {"tasks": [task_to_json(task) for task in found.tasks]}
        )
        return
    console.print(f"{case}  {found.case.state}  {found.case.plan}  {found.case.reason or ''}", highlight=False)
    due = found.case.due_at
    console.print(
        say(f"下次处理:{due or '无,等待运维'}", f"next look: {due or 'none, it waits for an operator'}")
        if found.case.state not in ENDED
        else say("已结束", "ended"),
        highlight=False,
    )
    for party in found.parties:
        silent, none = say("未应答", "does not answer"), say("无记录", "no row")
        row = f"{party.row.case_no} {party.row.case_op}" if party.row else (none if party.answers else silent)
        console.print(f"  {party.participant:<18} {party.mark}  {row}", highlight=False)
    for task in found.tasks:
        print_task(task, case, now)
    for entry in found.timeline:
        line = "  ".join(str(value) for name, value in entry.items() if name != "at")
        console.print(f"  {entry['at']}  {line}", highlight=False, soft_wrap=True)


@commands.command(
    help=say(
        "立即重发申请尚未完成的操作,包括已挂起的。决定不变;您即成为其事项的处理人。",
        "Send a case's open ops again now, parked ones too. What was decided stays decided, and you look after its "
        "tasks from now on.",
    )
)
def retry(case: CaseIds, by: By, as_json: Json = False) -> None:
    """Send open ops again."""
    from jiebang.usecases.operations import stuck

    async def work(app: App) -> dict[str, RetryOutcome]:
        keys = decode_cases(app, case)
        outcomes = await stuck.retry(
            app.pools["platform"], app.registry, keys.values(), by, app.clock(), app.settings.saga
        )
        return {name: outcomes[key] for name, key in keys.items()}

    outcomes = with_app(work, as_json=as_json)
    if as_json:
        print_json(outcomes)
    for name, outcome in () if as_json else outcomes.items():
        console.print(f"{name}  {say(*_OUTCOMES[outcome])}", highlight=False)
    if not {"retried", "woken"} >= set(outcomes.values()):
        raise typer.Exit(REFUSED)


_OUTCOMES: Final[Mapping[str, tuple[str, str]]] = {
    "retried": ("已重发挂起的操作", "parked ops are sent again"),
    "woken": ("已唤醒,立即处理", "woken: it is due now"),
    "not_under_way": ("未在办理:等待本人或已结束", "not under way: it waits for its person, or has ended"),
    "undecided": ("无法判定,不能重试:见 jiebang tasks list", "undecided, nothing to try again: see jiebang tasks list"),
    "moved": ("刚刚自行推进,请再查看", "it moved by itself just now; look again"),
    "unknown": ("没有这个申请", "there is no such case"),
}
