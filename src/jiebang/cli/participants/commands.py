"""`jiebang participant`: for the team of a participant that is written or run outside this installation."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jiebang.cli.language import say
from jiebang.cli.runner import REFUSED, Json, console, exit_on_error, print_json, run
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError
from jiebang.participants.starters import StarterLanguage

if TYPE_CHECKING:
    from jiebang.participants.conformance.trial import TrialReport

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "给要加入的团队:写出参与方的起步文件,检验远程参与方是否符合协议。",
        "For a team that takes part: write a starter, and see whether a remote participant keeps the protocol.",
    ),
)
_SEEDS: Final = 1 << 31
_TEXT_LIMIT: Final = 1 << 22
_NAME_FORM: Final = r"[a-z][a-z0-9_]{0,23}"

Url = Annotated[str, typer.Argument(metavar="URL", help=say("参与方的基址", "The participant's base address"))]


@commands.command(
    "test",
    help=say(
        "对一个远程参与方运行符合性测试集:逐项报告性质、所发送、所应答、协议所要求。有不符合时退出码为 1。"
        "会为未用过的账户留下围栏行:请对测试环境运行。",
        "Run the conformance suite against a remote participant: each property, and of a failed one what was sent, "
        "what was answered and what the protocol wants. Exits 1 when one fails. It leaves fence rows of unused "
        "accounts behind: run it against a test environment.",
    ),
)
def examine_participant(
    url: Url,
    name: Annotated[
        str, typer.Option(help=say("链路名,即密钥文件名的前一半", "Name of the link, as in its key files"))
    ],
    keys: Annotated[
        Path,
        typer.Option(
            help=say(
                "密钥目录:NAME-request.pem 与 NAME-reply.pub.pem", "Folder of NAME-request.pem and NAME-reply.pub.pem"
            )
        ),
    ] = Path(),
    operation: Annotated[str, typer.Option(help=say("策略所要求的操作", "The operation that plans ask for"))] = "",
    effects: Annotated[
        str, typer.Option(help=say("其效果,JSON 对象", "Its effects, a JSON object, such as '{\"points_kept\": 5}'"))
    ] = "{}",
    unfit: Annotated[
        str | None,
        typer.Option(help=say("它无法执行的效果,JSON 对象", "Effects that it cannot apply, a JSON object")),
    ] = None,
    accounts: Annotated[
        Path | None,
        typer.Option(
            help=say(
                "其 Try 会被准许的未用账户,每行一个;不给则任取大号码",
                "File of unused accounts whose Try is granted, one a line; without it, high numbers are made up",
            )
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            help=say(
                "其 Try 会被拒绝的未用账户,每行“账户 代码”",
                "File of unused accounts whose Try is refused, `account CODE` a line",
            )
        ),
    ] = None,
    spent: Annotated[
        str | None,
        typer.Option(
            help=say("已完成一次的账户再次申请时的拒绝代码", "Code that refuses an account after its first Confirm")
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=say("只检验此性质,可重复", "Examine this property alone; may repeat"))
    ] = None,
    first_account: Annotated[
        int | None, typer.Option(min=1, help=say("编造账户的起点", "Where made-up accounts begin"))
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help=say("消息交错顺序的种子", "Seed of the order"))] = None,
    limit: Annotated[float, typer.Option(min=0.05, help=say("应答时限,秒", "Seconds to wait for an answer"))] = 2.0,
    as_json: Json = False,
) -> None:
    """Run the suite."""
    from jiebang.cli.participants.show_findings import show_report
    from jiebang.cli.progress import progress
    from jiebang.participants.conformance.suite import select
    from jiebang.participants.conformance.trial import FIRST_ACCOUNTS, Trial, run_trial

    with exit_on_error(as_json=as_json):
        try:
            properties = select(only or ())
        except KeyError as error:
            reason = Text("没有这项性质", "there is no such property")
            raise InvalidInputError(field=f"--only {error.args[0]}", reason=reason) from error
        trial = Trial(
            name=name,
            url=url,
            keys=keys,
            operation=operation,
            effects=_read_object(effects, "--effects"),
            unfit=None if unfit is None else _read_object(unfit, "--unfit"),
            accounts=None if accounts is None else [one for one, _ in _read_accounts(accounts, "--accounts")],
            refused=None if refused is None else _read_accounts(refused, "--refused", with_codes=True),
            spent=spent,
            first_account=first_account or secrets.choice(FIRST_ACCOUNTS),
            seed=secrets.randbelow(_SEEDS) if seed is None else seed,
            limit=limit,
        )

    async def work() -> TrialReport:
        with progress(say("检验", "Examining"), len(properties), counts=True) as done:
            return await run_trial(trial, properties, done)

    report = run(work(), as_json=as_json)
    if as_json:
        print_json({"conforms": report.conforms, "report": report})
    else:
        show_report(console, report)
    if not report.conforms:
        raise typer.Exit(REFUSED)


@commands.command(
    "new",
    help=say(
        "写出一个参与方的起步文件:能运行,能通过测试集。python:一个远程服务;yaml:平台自己的一个数据库,不写代码。",
        "Write the starter of a participant: it runs, and passes the suite, as it is. python: a remote "
        "service; yaml: a database of the platform's own, without code.",
    ),
)
def write_starter(
    name: Annotated[str, typer.Argument(metavar="NAME", help=say("名称,也是目录名", "Its name, and the folder's"))],
    language: Annotated[StarterLanguage, typer.Option(help=say("用什么写", "What it is written in"))],
    folder: Annotated[Path, typer.Option("--in", help=say("写在哪个目录之下", "The folder to write it in"))] = Path(),
    as_json: Json = False,
) -> None:
    """Write a starter."""
    from jiebang.files import write
    from jiebang.participants.starters import build_starter

    with exit_on_error(as_json=as_json):
        _check_name(name)
        place = folder / name
        if place.exists():
            raise InvalidInputError(field=str(place), reason=Text("已经存在", "exists already"))
        place.mkdir(parents=True)
        written = build_starter(name, language)
        for file, text in written.items():
            write(place / file, text.encode(), 0o644)
    if as_json:
        print_json({"folder": str(place), "files": sorted(written)})
        return
    for file in sorted(written):
        console.print(str(place / file), markup=False, highlight=False, soft_wrap=True)
    console.print(say("怎样运行与检验,见其 README.md。", "Its README.md says how to run and test it."), markup=False)


def _check_name(name: str) -> None:
    """Raise InvalidInputError for a name that no participant may have."""
    from jiebang.participants import PARTICIPANTS
    from jiebang.participants.configured import RESERVED_NAMES

    if not re.fullmatch(_NAME_FORM, name):
        reason = Text(
            "应为小写字母、数字与下划线,以字母开头,至多 24 个", "must be a-z, 0-9 and _, from a letter on, at most 24"
        )
        raise InvalidInputError(field="NAME", reason=reason)
    if name in RESERVED_NAMES or name in PARTICIPANTS or name in PARTICIPANTS.owned:
        raise InvalidInputError(field="NAME", reason=Text("此名称已另有所指", "that name means something else already"))


def _read_object(text: str, option: str) -> dict[str, Any]:
    from jiebang.model.decoding import decode_any

    try:
        value = decode_any(text)
    except InvalidInputError as error:
        raise InvalidInputError(field=option, reason=error.fields["reason"]) from error
    if not isinstance(value, dict):
        raise InvalidInputError(field=option, reason=Text("应为 JSON 对象", "must be a JSON object"))
    return value


def _read_accounts(path: Path, option: str, *, with_codes: bool = False) -> list[tuple[int, str]]:
    """Read accounts, one a line, each with a code where wanted. Raises InvalidInputError with the line."""
    from jiebang.model.ids import account_of

    try:
        if path.stat().st_size > _TEXT_LIMIT:
            raise InvalidInputError(field=f"{option} {path}", reason=Text("文件过大", "the file is too large"))
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = Text("无法读取", "it cannot be read as text")
        raise InvalidInputError(field=f"{option} {path}", reason=reason) from error
    found = list[tuple[int, str]]()
    for at, line in enumerate(lines, start=1):
        words = line.split()
        account = account_of(words[0]) if words else None
        if words and (account is None or len(words) != 1 + with_codes):
            form = "账户 代码" if with_codes else "账户", "account CODE" if with_codes else "account"
            reason = Text(f"应为“{form[0]}”", f"must be `{form[1]}`")
            raise InvalidInputError(field=f"{option} {path}:{at}", reason=reason)
        if account is not None:
            found.append((account, words[-1]))
    return found
