"""The commands. `jiebang --help` lists them; each teaches itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from typer import rich_utils

from jiebang import __version__
from jiebang.cli.arguments import account_number
from jiebang.cli.cases import remedy
from jiebang.cli.checks import limits
from jiebang.cli.language import LANGUAGE, say
from jiebang.cli.operations import config, outages, recover, serve, stuck, tasks, workers
from jiebang.cli.participants import commands as participant
from jiebang.cli.policy import backtest, lifecycle, report
from jiebang.cli.retention import keys, retention
from jiebang.cli.runner import (
    REFUSED,
    Json,
    check_to_json,
    console,
    errors,
    exit_on_error,
    print_error,
    print_json,
    run,
    with_app,
)
from jiebang.cli.sandbox import accounts
from jiebang.cli.timelines import seals
from jiebang.model.case import Kind
from jiebang.model.errors import WrongUsageError

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.policy.codes import CodeExplained

cli = typer.Typer(
    name="jiebang",
    no_args_is_help=True,
    add_completion=False,  # `jiebang completion` prints it, and speaks both languages
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help=say(
        "解绑:把真实姓名从每一个数据库和清算机构收回来,要么全部完成,要么全部复原。\n\n先试 [bold]jiebang demo[/]。",
        "Take a real name back from every database and clearing network, all or nothing.\n\n"
        "Try [bold]jiebang demo[/] first.",
    ),
)
cli.add_typer(accounts.commands, name="accounts")
cli.add_typer(config.commands, name="config")
cli.add_typer(lifecycle.commands, name="policy")
cli.add_typer(seals.commands, name="seals")
cli.add_typer(retention.commands, name="retention")
cli.add_typer(keys.commands, name="keys")
backtest.register(accounts.commands, lifecycle.commands)

Account = Annotated[str, typer.Argument(help=say("账户号,例如 1", "Account number, such as 1"))]
CaseArgument = Annotated[
    str, typer.Argument(metavar="CASE", help=say("申请编号,形如 case_…", "Case id, such as case_…"))
]
KindOption = Annotated[Kind, typer.Option("--kind", help=say("申请种类", "What is asked for"))]
Device = Annotated[
    str | None,
    typer.Option(help=say("发起设备;不填则视为客服代查", "The device it comes from; without it, asked by a service")),
]


@cli.command(
    help=say(
        "检查:还有什么阻碍,怎么办。有阻碍时退出码为 1。",
        "Say everything that stands in the way, and how to clear it. Exits 1 when something does.",
    )
)
def check(
    account: Account,
    kind: KindOption = Kind.REVOKE,
    device: Device = None,
    explained: Annotated[
        bool,
        typer.Option(
            "--why",
            help=say(
                "逐条说明每条规则:事实、代入数值的条件、结果,通过的也列出",
                "Explain every rule: its facts, its condition with their values, and the result; passed ones too",
            ),
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check one account."""
    from jiebang.cli.cases.as_person import origin_at
    from jiebang.cli.checks.show_why import show_reasons
    from jiebang.cli.show import show_check
    from jiebang.policy.why import explain_answer
    from jiebang.usecases.checks.request import CheckRequest

    number = account_number(account, as_json=as_json)

    async def work(app: App) -> bool:
        (found,) = await app.checker.examine([CheckRequest(number, origin_at(device))], kind)
        answer = found.answer
        reasons = (
            explain_answer(app.context.pack_named(answer.pack), answer, found.facts, found.row) if explained else ()
        )
        if as_json:
            shape = check_to_json(answer)
            print_json({"check": shape, "why": reasons} if explained else shape)
        else:
            show_check(console, answer)
            show_reasons(console, reasons, app.declared.facts)
        return answer.passes

    if not with_app(work, as_json=as_json):
        raise typer.Exit(REFUSED)


@cli.command(
    help=say(
        "提交申请,并在终端完成验证。",
        "Submit a case, and prove it here: payment password, then the code the phone shows.",
    )
)
def submit(
    account: Account,
    kind: KindOption = Kind.REVOKE,
    device: Device = None,
    password: Annotated[
        str | None, typer.Option(help=say("支付密码;不填则询问", "Payment password; asked for if absent"))
    ] = None,
    code: Annotated[
        str | None, typer.Option(help=say("短信验证码;不填则询问", "SMS code; asked for if absent"))
    ] = None,
    prove_now: Annotated[bool, typer.Option("--prove/--no-prove", help=say("现在就验证", "Prove it now"))] = True,
    as_json: Json = False,
) -> None:
    """Submit and prove a case."""
    from jiebang.cli.cases.as_person import prove_case, submit_case

    number = account_number(account, as_json=as_json)

    async def work(app: App) -> dict[str, Any]:
        found = await submit_case(app, number, kind, device)
        if not as_json:
            console.print(say(f"已提交:{found['id']}", f"Submitted: {found['id']}"))
        return await prove_case(app, found["id"], password, code, device=device, quiet=as_json) if prove_now else found

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        console.print(
            say(f"用 jiebang case {found['id']} --follow 查看进度。", f"Follow it: jiebang case {found['id']} --follow")
        )


@cli.command(help=say("为已提交的申请补交验证。", "Prove a case that was submitted before."))
def prove(
    case: CaseArgument,
    device: Device = None,
    password: Annotated[str | None, typer.Option(help=say("支付密码", "Payment password"))] = None,
    code: Annotated[str | None, typer.Option(help=say("短信验证码", "SMS code"))] = None,
    as_json: Json = False,
) -> None:
    """Prove a case."""
    from jiebang.cli.cases.as_person import prove_case

    found = with_app(lambda app: prove_case(app, case, password, code, device=device, quiet=as_json), as_json=as_json)
    if as_json:
        print_json(found)


@cli.command(
    "case",
    help=say(
        "查看一个申请;--follow 实时跟随到结束。", "Show one case; --follow stays with it, live, until it has ended."
    ),
)
def show_case(
    case: CaseArgument,
    follow_it: Annotated[
        bool, typer.Option("--follow", "-f", help=say("跟随到结束", "Stay until it has ended"))
    ] = False,
    as_json: Json = False,
) -> None:
    """Show or follow one case."""
    from rich.live import Live

    from jiebang.cli.cases.as_person import follow

    async def work(app: App) -> list[dict[str, Any]]:
        with Live(console=console, auto_refresh=False) as live:
            rows = []
            async for view, row in follow(app, case, until_ended=follow_it):
                rows.append(row)
                if not as_json:
                    live.update(view, refresh=True)
            return rows

    rows = with_app(work, as_json=as_json)
    if as_json:
        print_json(rows)


@cli.command(
    help=say(
        "解释一个代码:我们的任何代码,或旧系统的代码,如 30007。",
        "Say what a code means: any of ours, or one of an older system, such as 30007.",
    )
)
def explain(
    code: Annotated[str, typer.Argument(help=say("代码,例如 PAY-BALANCE 或 30007", "Such as PAY-BALANCE or 30007"))],
    as_json: Json = False,
) -> None:
    """Explain a code under the policy in force; where nothing is installed yet, under the one a first start has."""
    from jiebang.api import problems  # noqa: F401 - the API's own errors have codes too
    from jiebang.app import POLICY, is_installed, load_settings
    from jiebang.cli.show import show_code
    from jiebang.policy import packs
    from jiebang.policy.codes import explain as explained
    from jiebang.policy.load import load_pack

    async def work(app: App) -> CodeExplained:
        return explained(app.context.pack(), code)

    with exit_on_error(as_json=as_json):
        settings = load_settings()
        installed = is_installed(settings)
        if not installed:
            found = explained(load_pack(*packs.text(POLICY), settings.declared), code)
    if installed:
        found = with_app(work, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        show_code(console, code, found)


@cli.command(help=say("显示版本。", "Print the version."))
def version(as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": __version__})
    else:
        console.print(__version__, highlight=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(__version__, highlight=False)
        raise typer.Exit


@cli.callback()
def show_version(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help=say("显示版本", "Print the version")),
    ] = False,
) -> None:
    """Take what stands before a command."""


class Shell(StrEnum):
    """A shell that can complete our commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_COMPLETED_BY: Final = "_JIEBANG_COMPLETE"


@cli.command(
    help=say(
        "输出命令补全脚本。例如 bash:jiebang completion bash > ~/.local/share/bash-completion/completions/jiebang",
        "Print the script that completes commands in a shell, such as bash: "
        "jiebang completion bash > ~/.local/share/bash-completion/completions/jiebang",
    )
)
def completion(shell: Annotated[Shell, typer.Argument(help=say("所用的 shell", "Your shell"))]) -> None:
    """Print a shell's completion script."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="jiebang", complete_var=_COMPLETED_BY, shell=shell.value)
    sys.stdout.write(script + "\n")


serve.register(cli)
cli.add_typer(stuck.commands, name="cases")
cli.add_typer(tasks.commands, name="tasks")
cli.add_typer(workers.commands, name="workers")
cli.add_typer(outages.commands, name="participants")
cli.add_typer(participant.commands, name="participant")
cli.add_typer(report.commands, name="report")
recover.register(cli)
remedy.register(cli)
limits.register(cli)


@cli.command(
    help=say(
        "主要用途的演示:生成一万人,启动全部系统(接口、工作进程、清算机构、手机、超级应用),讲四个人的故事,审计,"
        "然后保持运行。数据放在 JIEBANG_HOME(默认 .jiebang),每次重新生成。",
        "The main job, shown: makes 10,000 people, starts everything (API, worker, clearing networks, phone, "
        "super-app), tells four people's stories as live timelines, audits, then stays up. Its data live in "
        "JIEBANG_HOME (default .jiebang), made anew each time.",
    )
)
def demo(
    people: Annotated[int, typer.Option(help=say("生成多少人", "How many people to make"))] = 10_000,
    once: Annotated[bool, typer.Option("--once", help=say("讲完即退出", "Exit after the stories"))] = False,
    as_json: Json = False,
) -> None:
    """Run the demo."""
    from jiebang.app import load_settings
    from jiebang.cli.sandbox.demo import perform

    screen = errors if as_json else console

    async def work() -> dict[str, Any]:
        settings = msgspec.structs.replace(load_settings(), sandbox=True)
        return await perform(settings, screen, people=people, once=once)

    summary = run(work(), as_json=as_json)
    if as_json:
        print_json(summary)
    if not all(story["ok"] for story in summary["stories"]) or summary["verify"]["violations"]:
        raise typer.Exit(REFUSED)


def main() -> None:
    """Run the command line."""
    # Typer keeps its own headings in English, in constants.
    rich_utils.ARGUMENTS_PANEL_TITLE = say("参数", "Arguments")
    rich_utils.OPTIONS_PANEL_TITLE = say("选项", "Options")
    rich_utils.COMMANDS_PANEL_TITLE = say("命令", "Commands")
    rich_utils.ERRORS_PANEL_TITLE = say("用法有误", "Error")
    rich_utils.ABORTED_TEXT = say("已中止。", "Aborted.")
    rich_utils.DEFAULT_STRING = say("[默认:{}]", "[default: {}]")
    rich_utils.REQUIRED_LONG_STRING = say("[必填]", "[required]")
    rich_utils.rich_format_error = partial(
        _print_wrong_usage, rich_utils.rich_format_error
    )  # typer offers no other place
    if _COMPLETED_BY in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    cli()


def _print_wrong_usage(in_english: Callable[[Any], None], error: Any) -> None:
    """Tell wrong usage: as JSON where that was asked for, and in Chinese, for which typer has no sentences."""
    if "--json" in sys.argv[1:] and type(error).__name__ != "NoArgsIsHelpError":
        print_error(WrongUsageError(reason=error.format_message()), as_json=True)
        return
    if LANGUAGE != "zh" or type(error).__name__ == "NoArgsIsHelpError":
        in_english(error)
        return
    name = getattr(error, "option_name", None) or getattr(getattr(error, "param", None), "name", None)
    what = {
        "MissingParameter": "缺少参数",
        "NoSuchOption": "没有这个选项",
        "BadParameter": "参数的值有误",
        "BadOptionUsage": "选项用法有误",
    }.get(type(error).__name__, "命令用法有误")
    errors.print(f"{what}{f':{name}' if name else ''}", style="bold red", markup=False)
    errors.print(f"  {error.format_message()}", style="red", markup=False)
    if error.ctx is not None:
        errors.print(f"→ {error.ctx.command_path} --help 列出用法", markup=False)
