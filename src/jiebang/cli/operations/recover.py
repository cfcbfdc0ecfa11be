"""`jiebang recover`: after a restore from backup, read every participant and complete every decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, check_participants
from jiebang.cli.progress import progress_over_accounts
from jiebang.cli.runner import FAILED, REFUSED, Json, console, errors, print_json, with_app
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.saga.recovery_driver import RecoveryTally


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
                "查明的申请种类与方案(仅用于 plan_lost),如 case_…=revoke@wechat/2",
                "What a case was, of a plan_lost task, such as case_…=revoke@wechat/2",
            ),
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=say("只说明会做什么", "Stop, send and save nothing; say what it would do"))
    ] = False,
    as_json: Json = False,
) -> None:
    """Recover."""
    check_participants(restored, also=["platform"], as_json=as_json)

    async def work(app: App) -> RecoveryTally:
        outcomes = _read_outcomes(app, committed or (), broken_off or ())
        async with progress_over_accounts(app, say("恢复", "Recover")) as progress:
            return await app.recover(
                restored,
                by,
                gap=gap,
                patience=timedelta(seconds=patience),
                outcomes=outcomes,
                papers={
                    _decode_case(app, "--was", case): what
                    for case, _, what in (each.partition("=") for each in was or ())
                },
                dry_run=dry_run,
                progress=progress,
                waiting=_report_waiting,
            )

    result = with_app(work, as_json=as_json)
    if as_json:
        print_json({"complete": result.complete, "found": result})
    else:
        _show_result(result)
    if not result.complete:
        raise typer.Exit(FAILED)
    if result.undecided:
        raise typer.Exit(REFUSED)


def _decode_case(app: App, option: str, public_id: str) -> tuple[int, int]:
    key = app.case_ids.decode(public_id)
    if key is None:
        raise InvalidInputError(field=option, reason=Text("不是申请编号", "this is no case id"))
    return key


def _read_outcomes(app: App, committed: Sequence[str], broken_off: Sequence[str]) -> dict[tuple[int, int], bool]:
    """Return the outcomes given on the command line: whether each case committed.

    Raises InvalidInputError for what is no case id, and for a case given both outcomes.
    """
    outcomes = dict[tuple[int, int], bool]()
    for option, ids, outcome in (("--committed", committed, True), ("--broken-off", broken_off, False)):
        for each in ids:
            if outcomes.setdefault(_decode_case(app, option, each), outcome) is not outcome:
                reason = Text("同一申请不能既已生效又未生效", "a case cannot have been done and come to nothing")
                raise InvalidInputError(field=option, reason=reason)
    return outcomes


def _report_waiting(waits: Mapping[str, int], left: timedelta) -> None:
    """Print to standard error what a recovery waits for, and how long at most."""
    what, seconds = _format_counts(waits), int(left.total_seconds())
    errors.print(
        say(
            f"等待自行消除的阻碍:{what}(申请数),最多再等 {seconds} 秒;领取与受理仍停止",
            f"Waiting for what clears by itself: {what} case(s), {seconds} s more at most; claims and new cases stay "
            "stopped",
        ),
        highlight=False,
        soft_wrap=True,
    )


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _show_result(result: RecoveryTally) -> None:
    if result.dry_run:
        console.print(say("预演,未作任何改动:", "A dry run; nothing was changed. It would:"), style="yellow")
    rows = {
        say("查看账户", "accounts looked at"): result.accounts,
        say("补发操作", "ops sent"): result.sent or 0,
        say("改动申请", "cases changed"): result.changed,
        say("重建申请", "lost cases made again"): result.made_again,
        say("置于状态", "put into states"): result.states or 0,
        say("提高申请号的账户", "accounts with numbers raised"): result.numbers_raised,
        say("等待过的申请", "cases waited for"): result.waited or 0,
        say("须由人判定", "left to people"): result.undecided or 0,
        say("未完成账户", "accounts unfinished"): len(result.unfinished),
    }
    for name, value in rows.items():
        told = _format_counts(value) if isinstance(value, dict) else f"{value:,}"
        console.print(f"  {name}: {told}", highlight=False)
    if not result.complete:
        errors.print(
            say(
                "有参与方未应答,申请的领取与受理仍停止:请排除故障后再次执行,会从中断处继续。",
                "Somebody did not answer, and claims and new cases stay stopped: mend that and run this again; it "
                "goes on.",
            ),
            style="bold red",
        )
    elif result.undecided:
        errors.print(say("→ jiebang tasks list,见 docs/operations.md", "→ jiebang tasks list; see docs/operations.md"))
    elif not result.dry_run:
        console.print(say("恢复完成;请执行 jiebang verify。", "Recovered; now run jiebang verify."), style="green")


def register(cli: typer.Typer) -> None:
    """Add the command to the command line."""
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
