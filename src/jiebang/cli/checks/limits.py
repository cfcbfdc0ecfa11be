"""`jiebang limits`: what restricts an account now, why, and how it is lifted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jiebang.cli.language import read, say
from jiebang.cli.runner import Json, console, print_json, with_app
from jiebang.policy.wording import money

if TYPE_CHECKING:
    from jiebang.api.checks.limit_shapes import LimitOfAccount, LimitsOfAccount
    from jiebang.app import App


def register(cli: typer.Typer) -> None:
    """Add the command to the command line."""
    cli.command(
        "limits",
        help=say(
            "账户上生效中的限制:原因、依据、起止时间、如何解除。",
            "What restricts an account now: why, on what basis, since and until when, and how it is lifted.",
        ),
    )(_limits)


def _limits(
    account: Annotated[str, typer.Argument(help=say("账户号", "Account number"))], as_json: Json = False
) -> None:
    """Tell what restricts an account."""
    from jiebang.api.checks.limit_shapes import limits_shape
    from jiebang.cli.arguments import account_number
    from jiebang.usecases.checks.limits import read_limits

    number = account_number(account, as_json=as_json)

    async def work(app: App) -> LimitsOfAccount:
        [found] = await read_limits(app.context, [number])
        return limits_shape(found, app.case_ids)

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: LimitsOfAccount) -> None:
    if not found.limits and not found.unread:
        console.print(say("此账户没有生效中的限制。", "Nothing restricts this account."))
    for one in found.limits:
        _show_one(one)
    if found.unread:
        names = ", ".join(found.unread)
        told = say(f"未应答,其限制未知:{names}", f"No answer, so what they restrict is unknown: {names}")
        console.print(told, style="yellow", markup=False)


def _show_one(one: LimitOfAccount) -> None:
    console.print(f"• {read(one.title)}", style="bold", markup=False)
    for text in (one.explanation, one.lifted, one.appeal):
        if text is not None:
            console.print(f"  {read(text)}", markup=False)
    if one.used is not None:
        used = money(one.used) if one.unit == "fen" else f"{one.used:,}"
        console.print(say(f"  今日已用:{used}", f"  used today: {used}"), markup=False, highlight=False)
    if one.case is not None:
        since = "" if one.since is None else one.since.isoformat(timespec="seconds")
        console.print(say(f"  起因:申请 {one.case} {since}", f"  caused by {one.case} {since}"), markup=False)
    if one.legal_basis is not None:
        console.print(
            say(f"  依据:{one.source},{one.legal_basis}", f"  basis: {one.source}, {one.legal_basis}"),
            style="dim",
            markup=False,
        )
