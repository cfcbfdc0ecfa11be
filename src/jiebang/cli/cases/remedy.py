"""`jiebang remedy`: clear a blocker on the spot, or agree that the case ends what it names."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from jiebang.cli.language import say
from jiebang.cli.runner import REFUSED, Json, print_json, with_app
from jiebang.model.case import Kind


def register(cli: typer.Typer) -> None:
    """Add the command to the command line."""
    cli.command(
        "remedy",
        help=say(
            "当场处理一项阻碍,并重新检查:例如 PAY-BALANCE、PAY-AUTODEBIT;PROOF-LOCK 解除因多次错误而锁定的验证。"
            "仍有阻碍时退出码为 1。",
            "Clear a blocker on the spot, such as PAY-BALANCE or PAY-AUTODEBIT, and check again; PROOF-LOCK frees "
            "proofs locked after wrong tries. Exits 1 while something still blocks.",
        ),
    )(_remedy)


def _remedy(
    account: Annotated[str, typer.Argument(help=say("账户号", "Account number"))],
    code: Annotated[str, typer.Argument(help=say("阻碍事项代码", "Code of the blocker, such as PAY-BALANCE"))],
    item: Annotated[
        list[int] | None,
        typer.Option(min=1, help=say("只处理此编号,可多次", "Only this id, as the check names it; may be repeated")),
    ] = None,
    kind: Annotated[Kind, typer.Option(help=say("之后检查的申请种类", "What is checked afterwards"))] = Kind.REVOKE,
    device: Annotated[
        str | None,
        typer.Option(help=say("发起设备;不填则视为客服代办", "The device it comes from; without it, asked by staff")),
    ] = None,
    give_back: Annotated[bool, typer.Option("--return", help=say("退回红包", "Return red packets"))] = False,
    agree: Annotated[
        bool, typer.Option("--agree", help=say("同意由申请终止", "Agree that the case ends what it names"))
    ] = False,
    take_back: Annotated[bool, typer.Option("--take-back", help=say("撤回同意", "Take that back"))] = False,
    password: Annotated[str | None, typer.Option(help=say("支付密码", "Payment password"))] = None,
    sms: Annotated[str | None, typer.Option(help=say("短信验证码", "SMS code"))] = None,
    proving: Annotated[
        UUID | None, typer.Option("--remedy", help=say("已发起的处理编号", "Prove one that was asked for before"))
    ] = None,
    approve: Annotated[
        str | None,
        typer.Option(help=say("主设备扫得的代码", "On the primary device: the code that the other one shows")),
    ] = None,
    as_json: Json = False,
) -> None:
    """Clear a blocker on the spot."""
    from jiebang.cli.arguments import account_number
    from jiebang.cli.cases.as_person import origin_at
    from jiebang.cli.cases.remedy_as_person import Options, carry_out, show
    from jiebang.usecases.cases.remedy_request import RemedyRequest

    number = account_number(account, as_json=as_json)
    items = None if item is None else tuple(item)
    wanted = RemedyRequest(account_id=number, kind=kind, origin=origin_at(device), items=items)
    options = Options(
        give_back=give_back,
        agree=agree,
        take_back=take_back,
        password=password,
        sms=sms,
        approve=approve,
        proving=proving,
        quiet=as_json,
    )
    result = with_app(lambda app: carry_out(app, wanted, code, options), as_json=as_json)
    if as_json:
        print_json(result.shape)
    else:
        show(result)
    if result.check is not None and not result.check.passes:
        raise typer.Exit(REFUSED)
