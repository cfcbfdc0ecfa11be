"""`jiebang cases confirming | correct | approve | corrections`: what a participant cannot apply, set right by two."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from jiebang.cli.language import say
from jiebang.cli.operations.arguments import By, Limit
from jiebang.cli.operations.show import format_age
from jiebang.cli.runner import REFUSED, Json, console, print_json, with_app
from jiebang.model.case import Kind
from jiebang.model.decoding import decode_any
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.app import App
    from jiebang.model.case import Key
    from jiebang.store.policy.corrections import Correction
    from jiebang.usecases.operations.corrections import ConfirmingCase
    from jiebang.usecases.operations.stuck import RetryOutcome


def _confirming(limit: Limit = 100, as_json: Json = False) -> None:
    """List cases past the commit point."""
    from jiebang.usecases.operations import corrections

    async def work(app: App) -> tuple[list[tuple[str, ConfirmingCase]], datetime]:
        db, timing, now = app.pools["platform"], app.settings.saga, app.clock()
        found = await corrections.list_confirming(db, app.registry, timing, now, limit)
        return [(app.case_ids.encode(*each.case.key), each) for each in found], now

    found, now = with_app(work, as_json=as_json)
    if as_json:
        print_json(
            [
                {"case": name, "plan": each.case.plan, "kind": each.case.kind, "waits_for": each.waits_for}
                | {"deadline": each.case.deadline, "unfit": each.unfit}
                for name, each in found
            ]
        )
    elif not found:
        console.print(say("没有停在确认阶段的申请。", "No case is past its commit point without having ended."))
    for name, each in () if as_json else found:
        _print_confirming(name, each, now)
    if found:
        raise typer.Exit(REFUSED)


def _print_confirming(name: str, each: ConfirmingCase, now: datetime) -> None:
    waits = ", ".join(each.waits_for) or "—"
    age = format_age(each.case.deadline or each.case.created_at, now)
    line = say(f"{name}  等待:{waits}  已 {age}", f"{name}  waits for: {waits}  for {age}")
    console.print(line, highlight=False, soft_wrap=True)
    for one in each.unfit:
        value = msgspec.json.encode(one.value).decode()
        console.print(
            say(
                f"  {one.participant} 的效果 {one.effect} = {value} 无法执行:{one.reason.zh}。更正:",
                f"  {one.participant} cannot apply {one.effect} = {value}: it {one.reason.en}. To set it right:",
            ),
            style="yellow",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        console.print(
            f"    jiebang cases correct {each.case.plan} {each.case.kind} {one.participant} {one.effect} "
            f"{say('新值', 'VALUE')} --why {say('原因', 'WHY')} --by {say('姓名', 'NAME')}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


Value = Annotated[
    str,
    typer.Argument(
        metavar="VALUE",
        help=say('新值(JSON:3、true、"test";null 为省略该效果)', 'JSON: 3, true, "test"; null leaves it out'),
    ),
]


def _correct(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help=say("版本,例如 wechat/2", "A version, such as wechat/2"))],
    kind: Annotated[Kind, typer.Argument(help=say("申请类型", "The kind of case"))],
    participant: Annotated[str, typer.Argument(help=say("参与方", "The participant"))],
    effect: Annotated[str, typer.Argument(help=say("效果名", "The effect, by name"))],
    value: Value,
    by: By,
    why: Annotated[str, typer.Option(help=say("原因,记录在案", "The reason, kept on record"))],
    as_json: Json = False,
) -> None:
    """Propose another value."""
    from jiebang.usecases.operations import corrections

    try:
        meant = decode_any(value)
    except InvalidInputError:
        meant = value  # a bare word is a text

    async def work(app: App) -> Correction:
        return await corrections.propose(
            app.pools["platform"],
            app.registry,
            pack=plan,
            kind=kind,
            participant=participant,
            effect=effect,
            value=meant,
            why=why,
            by=by,
            timing=app.settings.saga,
            now=app.clock(),
        )

    made = with_app(work, as_json=as_json)
    if as_json:
        print_json(made)
        return
    _print_correction(made)
    console.print(
        say(
            f"请另一位同事执行:jiebang cases approve {made.correction_no} --by 姓名",
            f"Now a colleague runs: jiebang cases approve {made.correction_no} --by NAME",
        ),
        highlight=False,
        soft_wrap=True,
    )


def _approve(
    number: Annotated[int, typer.Argument(min=1, metavar="NUMBER", help=say("更正的序号", "The correction's number"))],
    by: By,
    as_json: Json = False,
) -> None:
    """Approve a colleague's correction."""
    from jiebang.usecases.operations import corrections

    async def work(app: App) -> tuple[Correction, dict[Key, RetryOutcome], list[str]]:
        db, timing = app.pools["platform"], app.settings.saga
        made, outcomes = await corrections.approve(db, app.registry, number, by, timing, app.clock())
        return made, outcomes, [app.case_ids.encode(*key) for key in outcomes]

    made, outcomes, names = with_app(work, as_json=as_json)
    if as_json:
        print_json({"correction": made, "cases": dict(zip(names, outcomes.values(), strict=True))})
        return
    _print_correction(made)
    console.print(
        say(f"{len(names)} 个申请已重发:{', '.join(names)}", f"Sent again for {len(names)} cases: {', '.join(names)}"),
        highlight=False,
        soft_wrap=True,
    )


def _list(as_json: Json = False) -> None:
    """List corrections."""
    from jiebang.usecases.operations import corrections

    async def work(app: App) -> Sequence[Correction]:
        return await corrections.list_corrections(app.pools["platform"])

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
        return
    if not found:
        console.print(say("没有更正。", "Nothing was corrected."))
    for each in found:
        _print_correction(each)


def _print_correction(each: Correction) -> None:
    was, becomes = (msgspec.json.encode(value).decode() for value in (each.was, each.value))
    if each.approved_by:
        state = say(f"由 {each.approved_by} 批准", f"approved by {each.approved_by}")
    else:
        state = say("已失效", "lapsed") if each.lapsed_at else say("待批准", "waits for approval")
    console.print(
        f"{each.correction_no}  {each.pack} {each.kind}  {each.participant}.{each.effect}: {was} → {becomes}  "
        + say(f"{each.proposed_by} 提出", f"proposed by {each.proposed_by}")
        + f", {state}  ({each.why})",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def register(commands: typer.Typer) -> None:
    """Add these commands to `jiebang cases`."""
    commands.command(
        "confirming",
        help=say(
            "列出已过提交点而尚未结束的申请:在等哪个参与方,方案中哪个效果它无法执行、如何更正。有则退出码为 1。",
            "List cases past the commit point that have not ended: whom they wait for, which effect of their plan it "
            "cannot apply, and how to set it right. Exits 1 when there are any.",
        ),
    )(_confirming)
    commands.command(
        "correct",
        help=say(
            "提出更正:用另一个值替换方案中参与方无法执行的效果,用于此方案的所有申请。须由另一人批准;只有确有申请在等时才可提出。",
            "Propose to set an effect right that a participant cannot apply: another value takes its place, for every "
            "case that follows the plan. A second person approves it; possible only where a case waits for it.",
        ),
    )(_correct)
    commands.command(
        "approve",
        help=say(
            "批准同事提出的更正:立即生效,并重发等待它的申请。形近的姓名视为同一人。",
            "Approve a colleague's correction: it is in force at once, and the cases that wait for it are sent again. "
            "Names that look alike are one person.",
        ),
    )(_approve)
    commands.command(
        "corrections",
        help=say("列出更正:谁、何时、为何。", "List corrections: by whom, when and why."),
    )(_list)
