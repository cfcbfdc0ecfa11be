"""`jiebang config`: whether everything is there that a start needs, and which settings are in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.runner import REFUSED, Json, console, print_json, run

if TYPE_CHECKING:
    from jiebang.app import Checkup, ServerNeed

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say("配置:启动前检查是否齐全,查看生效的配置。", "Settings: is everything there, and which are in force?"),
)


@commands.command(
    "check",
    help=say(
        "检查启动所需的一切:配置、密钥、数据库(可否连接、版本、会话、连接数)。一次列出全部缺项;有缺项时退出码为 1。"
        "不作任何更改。",
        "Look into everything that a start needs: settings, keys, databases (reachable, migrated, sessions, number of "
        "connections). Lists all that is missing at once; exits 1 when something is. Changes nothing.",
    ),
)
def check_settings(as_json: Json = False) -> None:
    """Check the settings."""
    from jiebang.app import check_up, load_settings

    async def work() -> Checkup:
        return await check_up(load_settings())

    found = run(work(), as_json=as_json)
    if as_json:
        print_json(
            {"complete": found.complete, "problems": found.problems, "stand_ins": found.stand_ins}
            | {"installed": found.installed, "servers": found.servers}
        )
    else:
        _show(found)
    if not found.complete:
        raise typer.Exit(REFUSED)


def _show(found: Checkup) -> None:
    for problem in found.problems:
        console.print(
            f"{problem.where}: {say(problem.zh, problem.en)}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for need in found.servers:
        console.print(_describe_need(need), markup=False, highlight=False, soft_wrap=True)
    if not found.installed:
        told = say(
            "此处还没有安装:jiebang migrate 会建立内置数据库与密钥。",
            "Nothing is installed here yet: `jiebang migrate` makes embedded databases and keys.",
        )
        console.print(told, markup=False, soft_wrap=True)
    if found.stand_ins:
        named = ", ".join(found.stand_ins)
        told = say(f"由沙箱代替(仅供试用):{named}", f"The sandbox stands in, to try it out, for: {named}")
        console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if found.complete:
        console.print(say("齐全,可以启动。", "Everything is there."), style="green")


def _describe_need(need: ServerNeed) -> str:
    names = ", ".join(need.databases)
    if need.most is None:
        room = say("服务器未应答", "the server did not answer")
    else:
        fits = need.most // need.per_process
        room = say(
            f"服务器最多 {need.most} 个,现已打开 {need.open} 个,够 {fits} 个进程",
            f"the server gives {need.most}, {need.open} are open now: room for {fits} processes",
        )
    return say(
        f"{need.server}({names}):每个进程至多 {need.per_process} 个连接;{room}",
        f"{need.server} ({names}): each process takes up to {need.per_process} connections; {room}",
    )


@commands.command(
    "show",
    help=say("查看生效的配置,不含任何密码。", "Print the settings in force, without any password."),
)
def show_settings(as_json: Json = False) -> None:
    """Show the settings."""
    from jiebang.app import load_settings, settings_without_secrets
    from jiebang.cli.runner import exit_on_error

    with exit_on_error(as_json=as_json):
        shown = settings_without_secrets(load_settings())
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        for field, one in value.items() if isinstance(value, dict) else (("", value),):
            where = f"{name}.{field}" if field else name
            console.print(f"{where} = {one}", markup=False, highlight=False, soft_wrap=True)
