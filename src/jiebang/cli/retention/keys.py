"""`jiebang keys`: rotate the keys that wrap data keys."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.progress import progress
from jiebang.cli.runner import REFUSED, Json, console, print_json, run

if TYPE_CHECKING:
    from jiebang.usecases.retention.rewrap import Rewrapped

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say("包裹数据密钥的主密钥与留存密钥。", "The master key and the retention key, which wrap data keys."),
)


class _WrappingKeyName(StrEnum):
    MASTER = "master"
    RETENTION = "retention"


@commands.callback()
def _keep_group() -> None:
    """Stay a group of commands, though it has one."""


@commands.command(
    "rotate",
    help=say(
        "更换主密钥或留存密钥:生成新密钥,逐一重新包裹数据密钥,不改动任何已封存的数据;可中断后再执行。之后把密钥目录复制到每台主机,重启全部进程,"
        "再执行一次,然后以 --finish 销毁旧密钥(*.previous.key)。有数据密钥打不开时退出码为 1。",
        "Change the master or the retention key: a new one is made and every data key is wrapped anew; nothing that "
        "is sealed changes. May be broken off and run again. Then copy the folder of keys to every host, restart every "
        "process, run it once more, and with --finish destroy the old key (*.previous.key). Exits 1 when data keys do "
        "not open.",
    ),
)
def _rotate(
    name: Annotated[_WrappingKeyName, typer.Argument(help=say("哪一个", "Which"))],
    finish: Annotated[
        bool, typer.Option("--finish", help=say("销毁旧密钥", "Destroy the old key, which must open nothing any more"))
    ] = False,
    as_json: Json = False,
) -> None:
    from jiebang.app import is_installed, load_settings, rotate_wrapping_key
    from jiebang.model.errors import NotInstalledError

    async def work() -> Rewrapped:
        settings = load_settings()
        if not is_installed(settings):
            raise NotInstalledError(home=str(settings.home))
        with progress(say("重新包裹", "Wrapping anew"), None) as advance:
            return await rotate_wrapping_key(settings, name.value, finish=finish, progress=advance)

    done = run(work(), as_json=as_json)
    if as_json:
        print_json({"key": name.value, "finished": finish, "rewrapped": done.wraps, "unopened": done.unopened})
    elif finish:
        console.print(say("旧密钥已销毁。", "The old key is destroyed."), style="green")
    else:
        told = say(
            f"已重新包裹 {done.wraps} 个数据密钥。请把密钥目录复制到每台主机,重启全部进程,再执行一次,然后加 --finish。",
            f"{done.wraps} data keys are wrapped anew. Copy the folder of keys to every host, restart every process, "
            "run this once more, and then with --finish.",
        )
        console.print(told, style="green", soft_wrap=True)
    if done.unopened:
        if not as_json:
            told = say(f"{done.unopened} 个数据密钥打不开", f"{done.unopened} data keys do not open")
            console.print(told, style="red")
        raise typer.Exit(REFUSED)
