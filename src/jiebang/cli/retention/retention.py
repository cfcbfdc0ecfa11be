"""`jiebang retention`: what law keeps of names that were taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from uuid import uuid4

import msgspec
import typer

from jiebang.cli.arguments import account_number
from jiebang.cli.language import read, say
from jiebang.cli.operations.arguments import By, require_text
from jiebang.cli.runner import REFUSED, Json, console, print_json, with_app

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.usecases.retention.keep import EndingReport, RetainedIdentity, RetentionReport

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "依法留存的资料:查阅(须写明用途,记录在案)、到期、销毁、保全、报告。",
        "What law keeps of names that were taken back: read it for a stated purpose, which is recorded; see what ends "
        "when; end it; hold it; report.",
    ),
)
Account = Annotated[str, typer.Argument(help=say("账户号,例如 1", "Account number, such as 1"))]
Purpose = Annotated[
    str,
    typer.Option(
        callback=require_text,
        help=say("用途与依据,例如调查文书编号;记录在案", "What for, such as the number of an order; kept on record"),
    ),
]
Days = Annotated[int, typer.Option(min=0, max=36_525, help=say("天数", "How many days"))]


@commands.command(
    "read",
    help=say(
        "查阅一个账户依法留存的身份资料。先记录查阅人与用途,再打开。没有留存的资料时退出码为 2,不作记录。",
        "Read the identity that law keeps of an account. Who reads it and what for is on record before it opens. Exits "
        "2, with nothing on record, where nothing is kept.",
    ),
)
def _read(account: Account, purpose: Purpose, by: By, as_json: Json = False) -> None:
    number = account_number(account, as_json=as_json)

    async def work(app: App) -> list[RetainedIdentity]:
        return await app.retention_desk().read(number, purpose, by, uuid4(), app.clock())

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json({"account": account, "retained": found})
        return
    for each in found:
        who = each.identity
        console.print(f"{who.name}  {who.number}  {who.birth_date or ''}  {who.region or ''}".rstrip(), highlight=False)
        last = each.last_day or say("未定", "not determined")
        told = say(f"依据 {each.kept_under},保存至 {last}", f"kept under {each.kept_under} until {last}")
        console.print(f"  {told}{say(',已保全', ', held') if each.held else ''}", highlight=False, soft_wrap=True)


@commands.command(
    "due",
    help=say(
        "列出今后若干天内到期的资料,以及未定期限与逾期未销毁的数目;有后两者时退出码为 1。",
        "List what ends within some days, and how much is not determined or late. Exits 1 when anything is.",
    ),
)
def _due(days: Days = 30, as_json: Json = False) -> None:
    from jiebang.usecases.retention.keep import find_horizon

    async def work(app: App) -> EndingReport:
        now = app.clock()
        return await app.retention_desk().list_ending(find_horizon(now, days), now)

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        for day in found.days:
            told = say(f"{day.keys} 项,其中保全 {day.held} 项", f"{day.keys} kept, of which {day.held} are held")
            console.print(f"{day.last_day}  {told}  {day.kept_under or '—'}", highlight=False, soft_wrap=True)
        _tell_late(found)
    if found.undetermined or found.overdue_keys or found.overdue_retentions:
        raise typer.Exit(REFUSED)


def _tell_late(found: EndingReport) -> None:
    if not found.days:
        console.print(say("其间没有到期的资料。", "Nothing ends until then."))
    if found.undetermined:
        told = say(
            f"{found.undetermined} 项未定期限:其策略包没有 retentions。请加入写明它的新版本。",
            f"{found.undetermined} are not determined: their pack has no `retentions`. Add a version that has.",
        )
        console.print(told, style="yellow", soft_wrap=True)
    if found.overdue_keys or found.overdue_retentions:
        told = say(
            f"逾期未销毁:密钥 {found.overdue_keys},留存 {found.overdue_retentions}。请查看工作进程。",
            f"Late: {found.overdue_keys} keys, {found.overdue_retentions} retentions. Look after the workers.",
        )
        console.print(told, style="red", soft_wrap=True)


@commands.command(
    "purge",
    help=say(
        "立即销毁到期的留存资料,已保全的除外。工作进程也会自行销毁。",
        "Destroy at once what has reached its day, but for what is held. Workers do so by themselves, too.",
    ),
)
def _purge(as_json: Json = False) -> None:
    async def work(app: App) -> int:
        chore, ended = app.key_destruction(), 0
        while found := await chore.end_retentions(app.clock()):
            ended += found
        return ended

    ended = with_app(work, as_json=as_json)
    if as_json:
        print_json({"ended": ended})
    else:
        console.print(say(f"已销毁 {ended} 项。", f"Destroyed: {ended}."))


@commands.command(
    "hold",
    help=say(
        "保全一个账户依法留存的资料,期满不销毁;--release 解除保全。均记录在案。没有可改变的,退出码为 1。",
        "Hold what law keeps of an account beyond its day; with --release let go of it. Both are on record. Exits 1 "
        "when nothing changed.",
    ),
)
def _hold(
    account: Account,
    purpose: Purpose,
    by: By,
    release: Annotated[bool, typer.Option("--release", help=say("解除保全", "Let go of it"))] = False,
    as_json: Json = False,
) -> None:
    number = account_number(account, as_json=as_json)

    async def work(app: App) -> int:
        return await app.retention_desk().hold(number, purpose, by, uuid4(), app.clock(), release=release)

    changed = with_app(work, as_json=as_json)
    if as_json:
        print_json({"account": account, "held": not release, "changed": changed})
    elif changed:
        console.print(say("已解除保全。", "Released.") if release else say("已保全。", "Held."), style="green")
    else:
        console.print(say("原已如此,未作更改。", "It was so already; nothing changed."))
    if not changed:
        raise typer.Exit(REFUSED)


@commands.command(
    "report",
    help=say(
        "报告依法留存了什么、依据与用途,以及若干天内的查阅与保全。",
        "Report what law keeps, why and for what, and who read or held it within some days.",
    ),
)
def _report(days: Days = 365, as_json: Json = False) -> None:
    from jiebang.usecases.retention.keep import find_horizon

    async def work(app: App) -> RetentionReport:
        return await app.retention_desk().report(find_horizon(app.clock(), -days))

    found = with_app(work, as_json=as_json)
    if as_json:
        shown = [msgspec.to_builtins(each) | {"account_id": str(each.account_id)} for each in found.acts]
        print_json({"kept": found.kept, "bases": found.bases, "undetermined": found.undetermined, "acts": shown})
        return
    bases = {each.basis: each for each in found.bases}
    for kept in found.kept:
        basis = bases.get(kept.basis or "")
        why = say("法律不要求保存", "law keeps it no longer") if basis is None else read(basis.law)
        for_what = "" if basis is None else f"  {read(basis.purpose)}"
        span = say(
            f"{kept.keys} 项,至 {kept.first_day}—{kept.last_day}",
            f"{kept.keys}, until {kept.first_day}–{kept.last_day}",
        )
        console.print(f"{kept.basis or '—'}  {span}  {why}{for_what}", highlight=False, soft_wrap=True, markup=False)
    if not found.kept:
        console.print(say("没有依法留存的资料。", "Nothing is kept."))
    if found.undetermined:
        console.print(say(f"未定期限:{found.undetermined} 项", f"Not determined: {found.undetermined}"), style="yellow")
    for act in found.acts:
        line = f"{act.at:%Y-%m-%d %H:%M}Z  {act.act}  {act.account_id}  {act.done_by}: {act.purpose}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
