"""`jiebang tasks`: what an operator must look at, and who has acknowledged it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, CaseIds, Limit, decode_cases
from jiebang.cli.operations.show import print_task, task_to_json
from jiebang.cli.runner import REFUSED, Json, console, errors, print_json, with_app

if TYPE_CHECKING:
    from datetime import datetime

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

    async def work(app: App) -> tuple[list[tuple[str, Task]], datetime]:
        found = await tasks.list_open(app.pools["platform"], limit)
        return [(app.case_ids.encode(task.account_id, task.case_no), task) for task in found], app.clock()

    found, now = with_app(work, as_json=as_json)
    if as_json:
        print_json([{"case": name} | task_to_json(task) for name, task in found])
    elif not found:
        console.print(say("没有未完成的事项。", "Nothing is open."))
    for name, task in () if as_json else found:
        print_task(task, name, now)
    if found:
        raise typer.Exit(REFUSED)


@commands.command(
    "ack", help=say("认领申请的事项,他人即知有人处理。", "Take the tasks of cases on: others see who does.")
)
def acknowledge(case: CaseIds, by: By, as_json: Json = False) -> None:
    """Acknowledge tasks."""
    from jiebang.usecases.operations import tasks

    async def work(app: App) -> tuple[list[str], list[tuple[str, Task]], datetime]:
        keys = decode_cases(app, case)
        done = await tasks.acknowledge(app.pools["platform"], keys.values(), by, app.clock())
        left = await tasks.list_open_of(app.pools["platform"], keys.values())
        names = {key: name for name, key in keys.items()}
        told = [(names[task.account_id, task.case_no], task) for task in left]
        return [name for name, key in keys.items() if key in done], told, app.clock()

    done, left, now = with_app(work, as_json=as_json)
    if as_json:
        _print_done_json(case, done)
    for name, task in () if as_json else left:
        print_task(task, name, now)
    idle = [each for each in case if each not in {name for name, _ in left}]
    for each in () if as_json else idle:
        console.print(f"{each}  {_NO_TASK}", highlight=False, soft_wrap=True, markup=False)
    if len(done) < len(case):
        if not as_json and len(idle) < len(case) - len(done):
            errors.print(say("有的事项已有人处理,未作更改。", "Tasks that somebody looks after already stay theirs."))
        raise typer.Exit(REFUSED)


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
        done = await tasks.close(app.pools["platform"], keys.values(), note, by, app.clock())
        return [name for name, key in keys.items() if key in done]

    done = with_app(work, as_json=as_json)
    if as_json:
        _print_done_json(case, done)
    told = say(f"{by} 已关闭其无法判定的事项:{note}", f"{by} closed its undecided tasks: {note}")
    for each in () if as_json else case:
        line = f"{each}  {told if each in done else _NO_TASK}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if len(done) < len(case):
        raise typer.Exit(REFUSED)


_NO_TASK: Final = say("没有可处理的事项", "has no such task")


def _print_done_json(asked: Sequence[str], done: Sequence[str]) -> None:
    print_json({"done": done, "nothing": [each for each in asked if each not in done]})
