"""`jiebang workers`: list, pause, resume and drain workers, and free the buckets of a dead one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By
from jiebang.cli.operations.show import format_age
from jiebang.cli.runner import REFUSED, Json, console, errors, exit_on_error, print_json, with_app
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.app import App
    from jiebang.store.operations.worker_registry import FreedWorker, Wish, WorkerStatus

_FREED_SHOWN: Final = 100

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "工作进程:列出、暂停、恢复、排空,进程在下一次心跳(数秒内)时照办;收回已死进程的桶。",
        "Workers: list, pause, resume, drain; a worker does so at its next heartbeat, within seconds. And free the "
        "buckets of a dead one.",
    ),
)


@commands.command("list", help=say("列出工作进程:桶、积压、心跳。", "List workers: buckets, lag, heartbeat."))
def list_workers(as_json: Json = False) -> None:
    """List workers."""
    from jiebang.usecases.operations import workers as use_case

    async def work(app: App) -> tuple[list[WorkerStatus], datetime]:
        now = app.clock()
        return await use_case.list_workers(app.pools["platform"], now), now

    found, now = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(say("没有工作进程。", "No worker runs."))
    for each in found:
        liveness = say("在线", "lives") if each.seen_until > now else say("失联", "gone")
        lag = format_age(each.oldest_due_at, now) if each.oldest_due_at else "0 s"
        wish = "" if each.wish == "run" else f"  {each.wish} ({each.wished_by})"
        load = say(f"桶 {each.buckets}  积压 {lag}", f"{each.buckets} buckets  lag {lag}")
        clock = "" if each.clock_off_ms is None else "  " + _tell_clock(each.clock_off_ms)
        console.print(
            f"{each.worker_id}  {liveness}  {each.state}  {load}{wish}{clock}", highlight=False, soft_wrap=True
        )


def _tell_clock(off_ms: int) -> str:
    seconds = abs(off_ms) / 1000
    ahead = say("快", "ahead") if off_ms > 0 else say("慢", "behind")
    return say(
        f"本机时钟{ahead} {seconds:.1f} 秒,不领取申请:请校准该主机的时钟(NTP)",
        f"its clock is {seconds:.1f} s {ahead}, so it claims nothing: set the clock of its host right (NTP)",
    )


WorkerIds = Annotated[list[str] | None, typer.Argument(metavar="ID…", help=say("进程编号", "Worker ids, as listed"))]
All = Annotated[bool, typer.Option("--all", help=say("全部进程", "Every worker"))]


def _set_wish(ids: Sequence[str] | None, wanted: Wish, by: str, *, everybody: bool, as_json: bool) -> None:
    from jiebang.usecases.operations.workers import set_wish

    with exit_on_error(as_json=as_json):
        if bool(ids) == everybody:
            reason = Text("请列出进程编号,或用 --all", "name workers, or say --all")
            raise InvalidInputError(field="ID", reason=reason)

    async def work(app: App) -> list[str]:
        return await set_wish(app.pools["platform"], None if everybody else ids or [], wanted, by, app.clock())

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


@commands.command(
    help=say(
        "立即收回一个已死进程的桶,交给其他进程,不等其租约到期。操作人会被记录。进程若其实还在,下一次心跳时会重新领桶。",
        "Free the buckets of a dead worker now, for the others, without waiting for its lease. Who did it is recorded. "
        "A worker that is alive after all takes its share again at its next heartbeat.",
    )
)
def free(
    worker_id: Annotated[str, typer.Argument(metavar="ID", help=say("进程编号", "The worker's id, as listed"))],
    by: By,
    as_json: Json = False,
) -> None:
    """Free a dead worker's buckets."""
    from jiebang.usecases.operations import workers as use_case

    async def work(app: App) -> FreedWorker:
        return await use_case.free(app.pools["platform"], worker_id, by, app.clock())

    freed = with_app(work, as_json=as_json)
    if as_json:
        print_json(freed)
        return
    told = say(
        f"已收回 {freed.worker_id} 的 {freed.buckets} 个桶。", f"Freed {freed.buckets} buckets of {freed.worker_id}."
    )
    console.print(told, highlight=False, soft_wrap=True, markup=False)


@commands.command(help=say("列出已收回的桶:谁、何时、哪个进程。", "List whose buckets were freed, by whom and when."))
def freed(as_json: Json = False) -> None:
    """List freed workers."""
    from jiebang.usecases.operations import workers as use_case

    async def work(app: App) -> list[FreedWorker]:
        return await use_case.list_freed(app.pools["platform"], _FREED_SHOWN)

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(say("没有收回过任何桶。", "No buckets were ever freed."))
    for each in found:
        load = say(f"桶 {each.buckets}", f"{each.buckets} buckets")
        line = f"{each.freed_at:%Y-%m-%d %H:%M:%S}Z  {each.worker_id}  {load}  {each.freed_by}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
