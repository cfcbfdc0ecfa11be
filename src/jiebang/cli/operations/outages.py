"""`jiebang participants`: take participants out of service and put them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, check_participants, require_text
from jiebang.cli.runner import Json, console, print_json, with_app

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.store.operations.outages import Outage

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "参与方的停用与恢复。停用期间不受理需要它的新申请,已就绪的申请等待,办理中的申请照常进行。",
        "Take a participant out of service and back. Meanwhile new cases that need it are refused and told why, ready "
        "ones wait, and those under way go on.",
    ),
)


@commands.command("list", help=say("列出参与方及其停用记录。", "List participants, and when they were out."))
def list_participants(as_json: Json = False) -> None:
    """List participants."""
    from jiebang.usecases.operations.outages import list_outages

    async def work(app: App) -> tuple[Sequence[str], list[Outage]]:
        return app.declared.names, await list_outages(app.pools["platform"])

    _show_participants(*with_app(work, as_json=as_json), as_json=as_json)


def _show_participants(names: Sequence[str], history: Sequence[Outage], *, as_json: bool) -> None:
    out = {each.participant: each for each in history if each.back_at is None}
    if as_json:
        statuses = [{"participant": name, "in_service": name not in out, "outage": out.get(name)} for name in names]
        print_json({"participants": statuses, "history": history})
        return
    for name in names:
        each = out.get(name)
        status = (
            say("在用", "in service")
            if each is None
            else say(
                f"停用,自 {each.since:%Y-%m-%d %H:%M}Z,{each.by}:{each.reason}",
                f"out since {each.since:%Y-%m-%d %H:%M}Z, {each.by}: {each.reason}",
            )
        )
        console.print(f"{name:<18} {status}", highlight=False, style="yellow" if each else None)


Names = Annotated[list[str], typer.Argument(metavar="NAME…", help=say("参与方", "Participants, such as wallet"))]


@commands.command(
    help=say(
        "停用:自此不受理需要它的新申请(检查与提交都会说明),已就绪的等待,办理中的照常。全部进程立即生效。",
        "Take out of service: from now on new cases that need it are refused, and the check says so; ready ones "
        "wait, those under way go on. In force at once in every process.",
    )
)
def out(
    names: Names,
    by: By,
    reason: Annotated[
        str,
        typer.Option(callback=require_text, help=say("原因,仅供运维查看", "Why; for operators, not shown to persons")),
    ],
    as_json: Json = False,
) -> None:
    """Take participants out of service."""
    from jiebang.usecases.operations.outages import take_out

    check_participants(names, as_json=as_json)

    async def work(app: App) -> tuple[Sequence[str], list[Outage]]:
        history = await take_out(app.pools["platform"], names, reason, by, app.clock(), app.declared)
        return app.declared.names, history

    _show_participants(*with_app(work, as_json=as_json), as_json=as_json)


@commands.command("in", help=say("恢复使用:等待的申请自行继续。", "Put back into service: what waits goes on."))
def put_back(names: Names, by: By, as_json: Json = False) -> None:
    """Put participants back into service."""
    from jiebang.usecases.operations.outages import take_back

    check_participants(names, as_json=as_json)

    async def work(app: App) -> tuple[Sequence[str], list[Outage]]:
        return app.declared.names, await take_back(app.pools["platform"], names, by, app.clock(), app.declared)

    _show_participants(*with_app(work, as_json=as_json), as_json=as_json)
