"""Commands of the operators on duty for the whole installation: workers, participants, recovery after a restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.progress import progress_over_accounts
from jiebang.cli.runner import FAILED, REFUSED, Json, console, errors, print_json, telling, with_app
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.participants import PARTICIPANTS

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.saga.recovery_driver import Found
    from jiebang.store.operations.outages import Outage
    from jiebang.store.operations.worker_registry import Wish, WorkerSeen

_ORDER: Final = (*PARTICIPANTS.databases, *PARTICIPANTS.networks)

workers: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "工作进程:列出、暂停、恢复、排空。进程在下一次心跳(数秒内)时照办。",
        "Workers: list, pause, resume, drain. A worker does so at its next heartbeat, within seconds.",
    ),
)
participants: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "参与方的停用与恢复。停用期间不受理需要它的新申请,已就绪的申请等待,办理中的申请照常进行。",
        "Take a participant out of service and back. Meanwhile new cases that need it are refused and told why, ready "
        "ones wait, and those under way go on.",
    ),
)


def _said(value: str) -> str:
    """Refuse an empty text where one is kept on record."""
    if not value.strip():
        raise typer.BadParameter(say("不可为空", "it must not be empty"))
    return value


By = Annotated[str, typer.Option("--by", callback=_said, help=say("您的姓名,记录在案", "Your name, kept on record"))]


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def ago(at: datetime) -> str:
    """Say how long ago something was, roughly."""
    seconds = max(int((now() - at).total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@workers.command("list", help=say("列出工作进程:桶、积压、心跳。", "List workers: buckets, lag, heartbeat."))
def list_workers(as_json: Json = False) -> None:
    """List workers."""
    from jiebang.usecases.operations import workers as use_case

    async def work(app: App) -> list[WorkerSeen]:
        return await use_case.list_workers(app.pools["platform"], now())

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(say("没有工作进程。", "No worker runs."))
    for each in found:
        lives = say("在线", "lives") if each.seen_until > now() else say("失联", "gone")
        lag = ago(each.oldest_due_at) if each.oldest_due_at else "0 s"
        wish = "" if each.wish == "run" else f"  {each.wish} ({each.wished_by})"
        told = say(f"桶 {each.buckets}  积压 {lag}", f"{each.buckets} buckets  lag {lag}")
        console.print(f"{each.worker_id}  {lives}  {each.state}  {told}{wish}", highlight=False, soft_wrap=True)


WorkerIds = Annotated[list[str] | None, typer.Argument(metavar="ID…", help=say("进程编号", "Worker ids, as listed"))]
All = Annotated[bool, typer.Option("--all", help=say("全部进程", "Every worker"))]


def _wish(ids: Sequence[str] | None, wanted: Wish, by: str, *, everybody: bool, as_json: bool) -> None:
    from jiebang.usecases.operations.workers import set_wish

    with telling(as_json=as_json):
        if bool(ids) == everybody:
            reason = Text("请列出进程编号,或用 --all", "name workers, or say --all")
            raise InvalidInputError(field="ID", reason=reason)

    async def work(app: App) -> list[str]:
        return await set_wish(app.pools["platform"], None if everybody else ids or [], wanted, by, now())

    heard = with_app(work, as_json=as_json)
    unknown = sorted(set(ids or ()) - set(heard))
    if as_json:
        print_json({"wish": wanted, "workers": heard, "unknown": unknown})
    else:
        console.print(f"{wanted}: {', '.join(heard) or '—'}", highlight=False)
        if unknown:
            errors.print(say(f"没有这些进程:{', '.join(unknown)}", f"No such worker: {', '.join(unknown)}"))
    if unknown or not heard:
        raise typer.Exit(REFUSED)


@workers.command(
    help=say(
        "暂停:做完手头的一批,不再领取,把桶交给其他进程;进程不退出。",
        "Pause: a worker finishes what it has at hand, claims nothing, and leaves its buckets to the others. It stays.",
    )
)
def pause(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Pause workers."""
    _wish(ids, "pause", by, everybody=everybody, as_json=as_json)


@workers.command(help=say("恢复已暂停的进程。", "Let paused workers go on."))
def resume(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Resume workers."""
    _wish(ids, "run", by, everybody=everybody, as_json=as_json)


@workers.command(
    help=say(
        "排空:做完手头的一批,交还桶,然后退出。部署与停机前使用。",
        "Drain: a worker finishes what it has at hand, gives its buckets back and ends. For deployments.",
    )
)
def drain(by: By, ids: WorkerIds = None, everybody: All = False, as_json: Json = False) -> None:
    """Drain workers."""
    _wish(ids, "drain", by, everybody=everybody, as_json=as_json)


@participants.command("list", help=say("列出参与方及其停用记录。", "List participants, and when they were out."))
def list_participants(as_json: Json = False) -> None:
    """List participants."""
    from jiebang.usecases.operations.outages import list_outages

    async def work(app: App) -> list[Outage]:
        return await list_outages(app.pools["platform"])

    _show_participants(with_app(work, as_json=as_json), as_json=as_json)


def _show_participants(history: Sequence[Outage], *, as_json: bool) -> None:
    out = {each.participant: each for each in history if each.back_at is None}
    if as_json:
        standing = [{"participant": name, "in_service": name not in out, "outage": out.get(name)} for name in _ORDER]
        print_json({"participants": standing, "history": history})
        return
    for name in _ORDER:
        each = out.get(name)
        told = (
            say("在用", "in service")
            if each is None
            else say(
                f"停用,自 {each.since:%Y-%m-%d %H:%M}Z,{each.by}:{each.reason}",
                f"out since {each.since:%Y-%m-%d %H:%M}Z, {each.by}: {each.reason}",
            )
        )
        console.print(f"{name:<18} {told}", highlight=False, style="yellow" if each else None)


Names = Annotated[list[str], typer.Argument(metavar="NAME…", help=say("参与方", "Participants, such as wallet"))]


def _known(names: Sequence[str], *, also: Sequence[str] = (), as_json: bool) -> None:
    """Tell an unknown name before any server is started."""
    from jiebang.usecases.operations.outages import check_names

    with telling(as_json=as_json):
        check_names(names, also=also)


@participants.command(
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
        str, typer.Option(callback=_said, help=say("原因,仅供运维查看", "Why; for operators, not shown to persons"))
    ],
    as_json: Json = False,
) -> None:
    """Take participants out of service."""
    from jiebang.usecases.operations.outages import take_out

    _known(names, as_json=as_json)

    async def work(app: App) -> list[Outage]:
        return await take_out(app.pools["platform"], names, reason, by, now())

    _show_participants(with_app(work, as_json=as_json), as_json=as_json)


@participants.command("in", help=say("恢复使用:等待的申请自行继续。", "Put back into service: what waits goes on."))
def back(names: Names, by: By, as_json: Json = False) -> None:
    """Put participants back into service."""
    from jiebang.usecases.operations.outages import take_back

    _known(names, as_json=as_json)

    async def work(app: App) -> list[Outage]:
        return await take_back(app.pools["platform"], names, by, now())

    _show_participants(with_app(work, as_json=as_json), as_json=as_json)


def _recover(
    restored: Annotated[
        list[str],
        typer.Option(
            help=say(
                "从备份恢复的库:platform 或参与方,可多次", "A database that was restored: platform, or a participant"
            )
        ),
    ],
    by: By,
    gap: Annotated[
        int,
        typer.Option(
            min=0, help=say("平台恢复时跳过的申请号数", "Numbers stepped over where the platform was restored")
        ),
    ] = 1_000,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            max=86_400,
            help=say(
                "自行消除的阻碍(未完成的转账)最多等多少秒,之后成为事项",
                "Seconds to wait for what clears by itself (an open transfer) before it becomes a task",
            ),
        ),
    ] = 300,
    committed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help=say(
                "查明已生效的申请(仅用于 outcome_lost),可多次",
                "A case found out to have been done, of an outcome_lost task",
            ),
        ),
    ] = None,
    broken_off: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help=say(
                "查明未生效的申请(仅用于 outcome_lost),可多次",
                "A case found out to have come to nothing, of an outcome_lost task",
            ),
        ),
    ] = None,
    was: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE=KIND@PLAN",
            help=say(
                "查明的申请种类与方案(仅用于 plan_lost),如 case_…=revoke@wechat/1",
                "What a case was, of a plan_lost task, such as case_…=revoke@wechat/1",
            ),
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=say("只说明会做什么", "Stop, send and save nothing; say what it would do"))
    ] = False,
    as_json: Json = False,
) -> None:
    """Recover."""
    _known(restored, also=["platform"], as_json=as_json)

    async def work(app: App) -> Found:
        outcomes = _outcomes(app, committed or (), broken_off or ())
        async with progress_over_accounts(app, say("恢复", "Recover")) as progress:
            return await app.recover(
                restored,
                by,
                gap=gap,
                patience=timedelta(seconds=patience),
                outcomes=outcomes,
                papers={
                    _key(app, "--was", case): what for case, _, what in (each.partition("=") for each in was or ())
                },
                dry_run=dry_run,
                progress=progress,
                waiting=_tell_waiting,
            )

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json({"complete": found.complete, "found": found})
    else:
        _show_found(found)
    if not found.complete:
        raise typer.Exit(FAILED)
    if found.undecided:
        raise typer.Exit(REFUSED)


def _key(app: App, option: str, public_id: str) -> tuple[int, int]:
    key = app.case_ids.decode(public_id)
    if key is None:
        raise InvalidInputError(field=option, reason=Text("不是申请编号", "this is no case id"))
    return key


def _outcomes(app: App, committed: Sequence[str], broken_off: Sequence[str]) -> dict[tuple[int, int], bool]:
    """Read what people found out. Raises InvalidInputError for what is no case, and for a case said to be both."""
    outcomes = dict[tuple[int, int], bool]()
    for option, ids, outcome in (("--committed", committed, True), ("--broken-off", broken_off, False)):
        for each in ids:
            if outcomes.setdefault(_key(app, option, each), outcome) is not outcome:
                reason = Text("同一申请不能既已生效又未生效", "a case cannot have been done and come to nothing")
                raise InvalidInputError(field=option, reason=reason)
    return outcomes


def _tell_waiting(waits: Mapping[str, int], left: timedelta) -> None:
    """Say on the error stream, which is no part of the result, what a recovery waits for and how long at most."""
    what, seconds = _counted(waits), int(left.total_seconds())
    errors.print(
        say(
            f"等待自行消除的阻碍:{what}(申请数),最多再等 {seconds} 秒;领取与受理仍停止",
            f"Waiting for what clears by itself: {what} case(s), {seconds} s more at most; claims and new cases stay "
            "stopped",
        ),
        highlight=False,
        soft_wrap=True,
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _show_found(found: Found) -> None:
    if found.dry_run:
        console.print(say("预演,未作任何改动:", "A dry run; nothing was changed. It would:"), style="yellow")
    rows = {
        say("查看账户", "accounts looked at"): found.accounts,
        say("补发操作", "ops sent"): found.sent or 0,
        say("改动申请", "cases changed"): found.changed,
        say("重建申请", "lost cases made again"): found.made_again,
        say("置于状态", "put into states"): found.states or 0,
        say("提高申请号的账户", "accounts with numbers raised"): found.numbers_raised,
        say("等待过的申请", "cases waited for"): found.waited or 0,
        say("须由人判定", "left to people"): found.undecided or 0,
        say("未完成账户", "accounts unfinished"): len(found.unfinished),
    }
    for name, value in rows.items():
        told = _counted(value) if isinstance(value, dict) else f"{value:,}"
        console.print(f"  {name}: {told}", highlight=False)
    if not found.complete:
        errors.print(
            say(
                "有参与方未应答,申请的领取与受理仍停止:请排除故障后再次执行,会从中断处继续。",
                "Somebody did not answer, and claims and new cases stay stopped: mend that and run this again; it "
                "goes on.",
            ),
            style="bold red",
        )
    elif found.undecided:
        errors.print(say("→ jiebang tasks list,见 docs/operations.md", "→ jiebang tasks list; see docs/operations.md"))
    elif not found.dry_run:
        console.print(say("恢复完成;请执行 jiebang verify。", "Recovered; now run jiebang verify."), style="green")


def register(cli: typer.Typer) -> None:
    """Add these commands to the command line."""
    cli.add_typer(workers, name="workers")
    cli.add_typer(participants, name="participants")
    cli.command(
        "recover",
        help=say(
            "从备份恢复任一数据库后执行。停止领取与受理,查看所有参与方,提高申请号,使每个决定都得到完成:任一确认的记录即证明"
            "已提交;其余一律撤销;未完成的转账等其完成;无法判定的交由人处理。可重复执行。先用 --dry-run 预演。\n\n"
            "例:jiebang recover --restored wallet --by 张三",
            "Run this after any database was restored from backup. It stops claims and new cases, looks at every "
            "participant, raises case numbers, and brings every decision to its end: one confirmed row proves a "
            "commit, the rest is rolled back, open transfers are completed and waited for, and what cannot be decided "
            "is left to people. Name every database that was restored. It may be repeated. Try --dry-run "
            "first.\n\nExample: jiebang recover --restored wallet --by Ann",
        ),
    )(_recover)
