"""Commands of the compliance officer: the life of a policy pack, and replaying decisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.arguments import case_key, pack_file
from jiebang.cli.language import say
from jiebang.cli.policy.show import (
    replay_to_json,
    show_activation,
    show_differences,
    show_overview,
    show_pack,
    show_replays,
    show_shadow,
)
from jiebang.cli.runner import REFUSED, Json, console, exit_on_error, print_json, with_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.app import App
    from jiebang.policy.analyse import RuleFinding
    from jiebang.policy.pack import Pack
    from jiebang.store.policy.packs import ShadowCount
    from jiebang.usecases.policy.lifecycle import Replay

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "策略包的一生:校验、比较、加入、影子运行、两人启用、退回,以及重现任一决定。\n\n"
        "通常的次序:validate FILE → diff wechat/1 FILE → add FILE --by 张三 → shadow wechat/2 --by 张三 → "
        "activate wechat/2 --by 张三 → activate wechat/2 --by 李四。详见 docs/policy-packs.md。",
        "The life of a policy pack: validate, compare, add, run in shadow, activate with two people, roll back, and "
        "replay any decision.\n\nThe usual order: validate FILE → diff "
        "wechat/1 FILE → add FILE --by ANN → shadow wechat/2 "
        "--by ANN → activate wechat/2 --by ANN → activate wechat/2 --by BEN. See docs/policy-packs.md.",
    ),
)


PackFile = Annotated[Path, typer.Argument(metavar="FILE", help=say("策略包文件(YAML)", "The pack's file (YAML)"))]
PackName = Annotated[
    str, typer.Argument(metavar="PACK", help=say("名称与版本,例如 wechat/2", "Name and version, such as wechat/2"))
]
Either = Annotated[
    str,
    typer.Argument(help=say("文件,或已加入的版本如 wechat/1", "A file, or a version that was added, such as wechat/1")),
]
By = Annotated[str, typer.Option("--by", help=say("您的姓名,记入变更历史", "Your name, kept in the history"))]


@commands.command(
    help=say(
        "校验一个策略包文件,不改动任何东西:YAML、条件与事实的类型、两种语言的文本、重复的代码、永不或恒成立的条件(错误)"
        "、"
        "总是同时成立的规则(提醒)。每一处都给出行列。有错误时退出码为 2。",
        "Check a pack's file and change nothing: YAML, conditions "
        "typed against the facts, texts in both languages, codes "
        "used twice, conditions never or always true (errors), rules "
        "raised only together (warnings). Everything with its "
        "line and column. Exits 2 on an error.",
    )
)
def validate(file: PackFile, as_json: Json = False) -> None:
    """Validate a file."""
    from jiebang.participants import PARTICIPANTS
    from jiebang.usecases.policy.lifecycle import admit

    text, name = pack_file(file, as_json=as_json)
    with exit_on_error(as_json=as_json):
        pack, findings = admit(text, name, PARTICIPANTS)
    show_pack(pack, findings, as_json=as_json)


@commands.command(
    help=say(
        "比较两个版本:增加、删除、改动的规则与文本,参数的旧值与新值。每个版本可以是文件,也可以是已加入的版本。",
        "Compare two versions: rules added, removed and changed, "
        "parameters old and new, texts. Each may be a file or a "
        "version that was added.",
    )
)
def diff(before: Either, after: Either, as_json: Json = False) -> None:
    """Compare two versions."""
    from jiebang.participants import PARTICIPANTS
    from jiebang.policy.difference import compare_packs
    from jiebang.usecases.policy.lifecycle import read_pack_text

    sides = {name: pack_file(Path(name), as_json=as_json) for name in (before, after) if Path(name).is_file()}
    if missing := [name for name in (before, after) if name not in sides]:

        async def work(app: App) -> dict[str, tuple[str, str]]:
            return {name: (await read_pack_text(app.pools["platform"], name), f"{name}.yaml") for name in missing}

        sides |= with_app(work, as_json=as_json)
    with exit_on_error(as_json=as_json):
        found = compare_packs(sides[before], sides[after], PARTICIPANTS)
    if as_json:
        print_json({"before": before, "after": after, "differences": found})
        return
    show_differences(found)


@commands.command(
    help=say(
        "校验并加入一个版本。加入不等于生效;同一名称与版本的内容一经加入即不可更改。",
        "Validate a version and add it. It is not in force by that; and what was added under a name and version never "
        "changes.",
    )
)
def add(file: PackFile, by: By, as_json: Json = False) -> None:
    """Add a version."""
    from jiebang.clock import utc_now
    from jiebang.usecases.policy import lifecycle

    text, name = pack_file(file, as_json=as_json)

    async def work(app: App) -> tuple[Pack, list[RuleFinding]]:
        return await lifecycle.add(app.pools["platform"], app.declared, text, name, by, utc_now())

    pack, findings = with_app(work, as_json=as_json)
    show_pack(pack, findings, as_json=as_json, added=True)


@commands.command(
    help=say(
        "启用一个版本。须由两位不同的人先后执行:第一次提出,第二次批准,随即在所有进程同时生效,无需重启。",
        "Put a version in force. Two different people run it: the "
        "first proposes, the second approves; with that it comes "
        "into force in every process at the same moment, without a restart.",
    )
)
def activate(pack: PackName, by: By, as_json: Json = False) -> None:
    """Propose or approve a version."""
    from jiebang.clock import utc_now
    from jiebang.usecases.policy import lifecycle

    done = with_app(
        lambda app: lifecycle.activate(app.pools["platform"], app.declared, pack, by, utc_now()), as_json=as_json
    )
    show_activation(done, as_json=as_json)


@commands.command(
    help=say(
        "退回到现行版本之前的版本。一人即可:那个版本曾由两人同意。进行中的申请仍按各自的版本办完。",
        "Go back to the version before the one in force. One person is enough: two agreed to that one before. Running "
        "cases go on under their own versions.",
    )
)
def rollback(by: By, as_json: Json = False) -> None:
    """Go back to the version before."""
    from jiebang.clock import utc_now
    from jiebang.usecases.policy import lifecycle

    done = with_app(
        lambda app: lifecycle.roll_back(app.pools["platform"], app.declared, by, utc_now()), as_json=as_json
    )
    show_activation(done, as_json=as_json)


@commands.command(
    help=say(
        "影子运行:让一个版本在现行版本旁边看每一次真实的检查,并统计二者何处不同,按代码与人群。答复不受影响,也不会变慢。"
        "不给版本时显示报告;--stop 停止。",
        "Run a version in shadow: it sees every live check beside the "
        "version in force, and where they differ is counted by "
        "code and by segment. Answers are neither changed nor delayed. Without PACK: the report. --stop ends it.",
    )
)
def shadow(
    pack: Annotated[str | None, typer.Argument(metavar="[PACK]", help=say("例如 wechat/2", "Such as wechat/2"))] = None,
    by: Annotated[
        str | None, typer.Option("--by", help=say("您的姓名;开始时必填", "Your name; needed to start"))
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help=say("停止影子运行", "End it"))] = False,
    as_json: Json = False,
) -> None:
    """Start, stop or report a version in shadow."""
    from jiebang.clock import utc_now
    from jiebang.usecases.policy import lifecycle

    async def work(app: App) -> Sequence[ShadowCount]:
        db = app.pools["platform"]
        if stop:
            await lifecycle.stop_shadow(db)
        elif pack is not None and by is not None:
            await lifecycle.start_shadow(db, app.declared, pack, by, utc_now())
        return await lifecycle.read_shadow_report(db, pack)

    counts = with_app(work, as_json=as_json)
    if as_json:
        print_json({"shadow": pack, "counts": counts})
        return
    if stop:
        console.print(say("影子运行已停止。", "Nothing runs in shadow."))
    elif pack is not None and by is not None:
        console.print(
            say(f"{pack} 已开始影子运行。稍后执行 jiebang policy shadow 查看。",
                f"{pack} runs in shadow. See the report later: jiebang policy shadow")
        )  # fmt: skip
    else:
        show_shadow(counts)


@commands.command(
    "list",
    help=say(
        "列出所有版本、现行版本、待批准的提议与变更历史。",
        "List every version, the one in force, what waits for approval, and the history.",
    ),
)
def list_versions(as_json: Json = False) -> None:
    """List versions and history."""
    from jiebang.usecases.policy.lifecycle import read_overview

    found = with_app(lambda app: read_overview(app.pools["platform"]), as_json=as_json)
    if as_json:
        print_json(found)
        return
    show_overview(found)


@commands.command(
    help=say(
        "用当时的事实与当时的版本,把一个申请所依据的检查重新回答一遍,"
        "并说明与当时的答复有何不同(应当没有)。不同时退出码为 1。"
        "--facts 显示当时的事实:其中有个人信息。",
        "Answer the checks that a case rests on again, from the facts and under the version of that time, and say what "
        "differs from the answer given then (nothing should). Exits "
        "1 if something does. --facts shows the facts of that "
        "time, which are personal.",
    )
)
def replay(
    case: Annotated[str, typer.Argument(metavar="CASE", help=say("申请编号,形如 case_…", "Case id, such as case_…"))],
    facts: Annotated[bool, typer.Option("--facts", help=say("显示事实", "Show the facts"))] = False,
    as_json: Json = False,
) -> None:
    """Replay the decisions of a case."""
    from jiebang.usecases.policy import lifecycle

    async def work(app: App) -> list[Replay]:
        key = case_key(app.case_ids, case)
        return await lifecycle.replay(app.pools["platform"], app.context.records, app.registry, key)

    found = with_app(work, as_json=as_json)
    if as_json:
        print_json([replay_to_json(one, facts=facts) for one in found])
    else:
        show_replays(found, facts=facts)
    if any(one.differences for one in found):
        raise typer.Exit(REFUSED)
