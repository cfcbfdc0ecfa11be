"""`jiebang tasks`: what an operator must look at, and who has acknowledged it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, CaseIds, Limit, decode_cases
from jiebang.cli.operations.show import print_task, task_to_json
from jiebang.cli.runner import REFUSED, Json, console, print_json, with_app
from jiebang.clock import utc_now

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.store.operations.tasks import Task

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "须由人处理的事项:确认或撤销被拒绝两次、久未应答,或恢复时无法判定。完成后自行关闭。",
        "What a person must look at: a Confirm or Cancel refused twice or unanswered too long, and what a recovery "
        "could not decide. A task closes by itself once the op is done.",
    ),
)


@commands.command(
    "list", help=say("列出未完成的事项。有则退出码为 1。", "List open tasks. Exits 1 when there are any.")
)
def list_tasks(limit: Limit = 100, as_json: Json = False) -> None:
    """List open tasks."""
    from jiebang.usecases.operations import tasks

    async def work(app: App) -> list[tuple[str, Task]]:
        found = await tasks.list_open(app.pools["platform"], limit)
        return [(app.case_ids.encode(task.account_id, task.case_no), task) for task in found]

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json([{"case": name} | task_to_json(task) for name, task in found])
    elif not found:
        console.print(say("没有未完成的事项。", "Nothing is open."))
    for name, task in () if as_json else found:
        print_task(task, name)
    if found:
        raise typer.Exit(REFUSED)


@commands.command(
    "ack", help=say("认领申请的事项,他人即知有人处理。", "Take the tasks of cases on: others see who does.")
)
def acknowledge(case: CaseIds, by: By, as_json: Json = False) -> None:
    """Acknowledge tasks."""
    from jiebang.usecases.operations import tasks

    async def work(app: App) -> list[str]:
        keys = decode_cases(app, case)
        done = await tasks.acknowledge(app.pools["platform"], keys.values(), by, utc_now())
        return [name for name, key in keys.items() if key in done]

    _print_done(case, with_app(work, as_json=as_json), as_json=as_json)


@commands.command(
    "close",
    help=say(
        "关闭恢复时无法判定的事项,并写下查明的情况。其余事项在操作完成后自行关闭。申请本身不会改变。",
        "Close undecided tasks with what was found out. All others close by themselves once the op is done. Nothing "
        "of the case changes.",
    ),
)
def close(
    case: CaseIds,
    by: By,
    note: Annotated[str, typer.Option(help=say("查明的情况", "What was found out"))],
    as_json: Json = False,
) -> None:
    """Close undecided tasks."""
    from jiebang.usecases.operations import tasks

    async def work(app: App) -> list[str]:
        keys = decode_cases(app, case)
        done = await tasks.close(app.pools["platform"], keys.values(), note, by, utc_now())
        return [name for name, key in keys.items() if key in done]

    _print_done(case, with_app(work, as_json=as_json), as_json=as_json)


def _print_done(asked: Sequence[str], done: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"done": done, "nothing": [each for each in asked if each not in done]})
    for each in () if as_json else asked:
        console.print(f"{each}  {say('完成', 'done') if each in done else say('没有可处理的事项', 'nothing to do')}")
    if len(done) < len(asked):
        raise typer.Exit(REFUSED)
