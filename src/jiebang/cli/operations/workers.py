"""`jiebang workers`: list, pause, resume and drain the workers of an installation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By
from jiebang.cli.operations.show import format_age
from jiebang.cli.runner import REFUSED, Json, console, errors, exit_on_error, print_json, with_app
from jiebang.clock import utc_now
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.store.operations.worker_registry import Wish, WorkerStatus

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "工作进程:列出、暂停、恢复、排空。进程在下一次心跳(数秒内)时照办。",
        "Workers: list, pause, resume, drain. A worker does so at its next heartbeat, within seconds.",
    ),
)


@commands.command("list", help=say("列出工作进程:桶、积压、心跳。", "List workers: buckets, lag, heartbeat."))
def list_workers(as_json: Json = False) -> None:
    """List workers."""
    from jiebang.usecases.operations import workers as use_case

    async def work(app: App) -> list[WorkerStatus]:
        return await use_case.list_workers(app.pools["platform"], utc_now())

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(say("没有工作进程。", "No worker runs."))
    for each in found:
        liveness = say("在线", "lives") if each.seen_until > utc_now() else say("失联", "gone")
        lag = format_age(each.oldest_due_at) if each.oldest_due_at else "0 s"
        wish = "" if each.wish == "run" else f"  {each.wish} ({each.wished_by})"
        load = say(f"桶 {each.buckets}  积压 {lag}", f"{each.buckets} buckets  lag {lag}")
        console.print(f"{each.worker_id}  {liveness}  {each.state}  {load}{wish}", highlight=False, soft_wrap=True)


WorkerIds = Annotated[list[str] | None, typer.Argument(metavar="ID…", help=say("进程编号", "Worker ids, as listed"))]
All = Annotated[bool, typer.Option("--all", help=say("全部进程", "Every worker"))]


def _set_wish(ids: Sequence[str] | None, wanted: Wish, by: str, *, everybody: bool, as_json: bool) -> None:
    from jiebang.usecases.operations.workers import set_wish

    with exit_on_error(as_json=as_json):
        if bool(ids) == everybody:
            reason = Text("请列出进程编号,或用 --all", "name workers, or say --all")
            raise InvalidInputError(field="ID", reason=reason)

    async def work(app: App) -> list[str]:
        return await set_wish(app.pools["platform"], None if everybody else ids or [], wanted, by, utc_now())

    reached = with_app(work, as_json=as_json)
    unknown = sorted(set(ids or ()) - set(reached))
    if as_json:
        print_json({"wish": wanted, "workers": reached, "unknown": unknown})
    else:
        console.print(f"{wanted}: {', '.join(reached) or '—'}", highlight=False)
        if unknown:
            errors.print(say(f"没有这些进程:{', '.join(unknown)}", f"No such worker: {', '.join(unknown)}"))
    if unknown or not reached:
        raise typer.Exit(REFUSED)


@commands.command(
    help=say(
        "暂停:做完手头的一批,不再领取,把桶交给其他进程;进程不退出。",
        "Pause: a worker finishes what it has at hand, claims nothing, and leaves its buckets to the others. It stays.",
    )
)
def pause(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Pause workers."""
    _set_wish(ids, "pause", by, everybody=everybody, as_json=as_json)


@commands.command(help=say("恢复已暂停的进程。", "Let paused workers go on."))
def resume(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Resume workers."""
    _set_wish(ids, "run", by, everybody=everybody, as_json=as_json)


@commands.command(
    help=say(
        "排空:做完手头的一批,交还桶,然后退出。部署与停机前使用。",
        "Drain: a worker finishes what it has at hand, gives its buckets back and ends. For deployments.",
    )
)
def drain(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Drain workers."""
    _set_wish(ids, "drain", by, everybody=everybody, as_json=as_json)
