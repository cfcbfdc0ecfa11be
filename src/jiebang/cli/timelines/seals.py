"""`jiebang seals`: where the sealing of timelines stands, and going on after a restore from backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.runner import REFUSED, Json, console, print_json, run, with_app
from jiebang.cli.show import ANCHOR_IN_HOME

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.usecases.timelines.seal import SealingStatus

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say("时间线封印:现状,以及恢复备份之后继续。", "Seals on timelines: where they stand, and on after a restore."),
)


@commands.command(
    "status", help=say("查看封印现状;不正常时退出码为 1。", "Where sealing stands. Exits 1 if it is halted.")
)
def _status(as_json: Json = False) -> None:

    async def work(app: App) -> SealingStatus:
        return await app.sealing().standing(app.clock())

    status = with_app(work, as_json=as_json)
    if as_json:
        print_json(status)
    else:
        none = say("没有", "none")
        console.print(say(f"最后一枚封印:{status.seal}", f"Last seal: {status.seal}"))
        console.print(say(f"外部锚点:{status.anchored or none}", f"Anchor outside: {status.anchored or none}"))
        console.print(say(f"等待最久:{status.unsealed_s} 秒", f"Longest wait for a seal: {status.unsealed_s} s"))
        if status.anchor_in_home:
            console.print(ANCHOR_IN_HOME, style="yellow")
        if status.halted is not None:
            console.print(say(f"已停止封印:{status.halted}", f"Sealing is halted: {status.halted}"), style="red")
            console.print(
                say(
                    "先执行 jiebang verify。若确因恢复备份或锚点文件丢失,再执行 jiebang seals resume --by 您的姓名。",
                    "Run jiebang verify first. If a backup was restored or the anchor file was lost, then: "
                    "jiebang seals resume --by YOUR-NAME.",
                )
            )
    if status.halted is not None:
        raise typer.Exit(REFUSED)


@commands.command(
    "resume",
    help=say(
        "恢复备份之后继续封印:缺口与确认人会被签名,并出现在每次审计中。无缺口时不作任何更改,退出码为 1。",
        "Go on sealing after a restore from backup: the gap and who acknowledged it are signed, and every audit names "
        "them. Where there is no gap nothing is changed, and the exit code is 1.",
    ),
)
def _resume(
    by: Annotated[str, typer.Option(help=say("确认人", "Who acknowledges it"))],
    as_json: Json = False,
) -> None:

    async def work(app: App) -> int | None:
        return await app.sealing().go_on_after_restore(app.clock(), by)

    seal = with_app(work, as_json=as_json)
    if as_json:
        print_json({"seal": seal})
    elif seal is not None:
        console.print(say(f"已从封印 {seal} 继续。", f"Sealing goes on with seal {seal}."), style="green")
    else:
        console.print(
            say(
                "没有可确认的缺口。若 jiebang seals status 显示签名无效,请找回密钥文件。",
                "There is no gap to acknowledge. If jiebang seals status tells of a signature, look for the key files.",
            )
        )
    if seal is None:
        raise typer.Exit(REFUSED)


@commands.command(
    "rotate",
    help=say(
        "更换封印的签名密钥;此前的签名仍可用旧公钥核验。之后请把密钥目录复制到每台主机,并重启全部进程。",
        "Make a new signing key for the seals; what was signed before stays good under the old public key. Copy the "
        "folder of keys to every host afterwards, and restart every process.",
    ),
)
def _rotate(as_json: Json = False) -> None:
    from jiebang.app import is_installed, load_settings, rotate_seal_key
    from jiebang.model.errors import NotInstalledError

    async def work() -> str:
        settings = load_settings()
        if not is_installed(settings):
            raise NotInstalledError(home=str(settings.home))
        await rotate_seal_key(settings)
        return str(settings.keys)

    keys = run(work(), as_json=as_json)
    if as_json:
        print_json({"keys": keys})
    else:
        told = say(
            f"已更换。请把 {keys} 复制到每台主机,并重启全部进程。",
            f"Done. Copy {keys} to every host, and restart every process.",
        )
        console.print(told, style="green", markup=False, highlight=False, soft_wrap=True)
