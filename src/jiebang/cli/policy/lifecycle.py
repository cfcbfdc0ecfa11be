"""Commands of the compliance officer: the life of a policy pack, and replaying decisions."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.arguments import case_key, pack_file
from jiebang.cli.language import say
from jiebang.cli.policy.show import (
    replay_to_json,
    show_activation,
    show_differences,
    show_entry,
    show_overview,
    show_pack,
    show_preview,
    show_replays,
    show_shadow,
    show_weakenings,
)
from jiebang.cli.runner import REFUSED, Json, console, exit_on_error, print_json, with_app
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.app import App
    from jiebang.policy.analyse import RuleFinding
    from jiebang.policy.pack import Pack
    from jiebang.policy.weakening import Weakening
    from jiebang.store.policy.packs import ShadowCount
    from jiebang.usecases.policy.lifecycle import ActivationStatus, Replay

commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say(
        "策略包的一生:校验、比较、加入、影子运行、两人启用、退回,以及重现任一决定。\n\n"
        "通常的次序:validate FILE → diff wechat/2 FILE → add FILE --by 张三 → shadow wechat/3 --by 张三 → "
        "activate wechat/3 --by 张三 → activate wechat/3 --by 李四。详见 docs/policy-packs.md。",
        "The life of a policy pack: validate, compare, add, run in shadow, activate with two people, roll back, and "
        "replay any decision.\n\nThe usual order: validate FILE → diff "
        "wechat/2 FILE → add FILE --by ANN → shadow wechat/3 "
        "--by ANN → activate wechat/3 --by ANN → activate wechat/3 --by BEN. See docs/policy-packs.md.",
    ),
)


PackFile = Annotated[Path, typer.Argument(metavar="FILE", help=say("策略包文件(YAML)", "The pack's file (YAML)"))]
PackName = Annotated[
    str, typer.Argument(metavar="PACK", help=say("名称与版本,例如 wechat/3", "Name and version, such as wechat/3"))
]
Either = Annotated[
    str,
    typer.Argument(help=say("文件,或已加入的版本如 wechat/2", "A file, or a version that was added, such as wechat/2")),
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
    from jiebang.app import load_settings
    from jiebang.usecases.policy.lifecycle import admit

    text, name = pack_file(file, as_json=as_json)
    with exit_on_error(as_json=as_json):
        pack, findings = admit(text, name, load_settings().declared)
    show_pack(pack, findings, as_json=as_json)


@commands.command(
    help=say(
        "比较两个版本:增加、删除、改动的规则与文本,参数的旧值与新值,以及保护在何处减弱;"
        "增删的规则完整显示,中英文都有。每个版本可以是文件,也可以是已加入的版本。",
        "Compare two versions: rules added, removed and changed, "
        "parameters old and new, texts, and where protection weakens; what is added or removed is shown whole, in both "
        "languages. Each may be a file or a version that was added.",
    )
)
def diff(before: Either, after: Either, as_json: Json = False) -> None:
    """Compare two versions."""
    from jiebang.app import load_settings
    from jiebang.policy.difference import compare_packs
    from jiebang.usecases.policy.lifecycle import read_pack_text

    sides = {name: pack_file(Path(name), as_json=as_json) for name in (before, after) if Path(name).is_file()}
    if missing := [name for name in (before, after) if name not in sides]:

        async def work(app: App) -> dict[str, tuple[str, str]]:
            return {name: (await read_pack_text(app.pools["platform"], name), f"{name}.yaml") for name in missing}

        sides |= with_app(work, as_json=as_json)
    with exit_on_error(as_json=as_json):
        found, weakenings = compare_packs(sides[before], sides[after], load_settings().declared)
    if as_json:
        print_json({"before": before, "after": after, "differences": found, "weakenings": weakenings})
        return
    show_differences(found)
    show_weakenings(weakenings)


@commands.command(
    help=say(
        "校验并加入一个版本,并说明与现行版本相比保护在何处减弱。"
        "加入不等于生效;同一名称与版本的内容一经加入即不可更改。",
        "Validate a version, add it, and say where it protects people less than the one in force. It is not in force "
        "by that; and what was added under a name and version never changes.",
    )
)
def add(file: PackFile, by: By, as_json: Json = False) -> None:
    """Add a version."""
    from jiebang.usecases.policy import lifecycle

    text, name = pack_file(file, as_json=as_json)

    async def work(app: App) -> tuple[Pack, list[RuleFinding], list[Weakening]]:
        db = app.pools["platform"]
        pack, findings = await lifecycle.add(db, app.declared, text, name, by, app.clock())
        return pack, findings, await lifecycle.compare_with_force(db, app.declared, pack)

    pack, findings, weakenings = with_app(work, as_json=as_json)
    show_pack(pack, findings, as_json=as_json, added=True, weakenings=weakenings)


@commands.command(
    help=say(
        "启用一个版本。须由两位不同的人先后执行:第一次提出,第二次批准,随即在所有进程同时生效,无需重启。"
        "批准者先看到与现行版本的全部不同,然后被问是否批准;--yes 不问,供程序使用。"
        "两次都会说明保护在何处减弱;形近的姓名视为同一人。",
        "Put a version in force. Two different people run it: the "
        "first proposes, the second approves; with that it comes "
        "into force in every process at the same moment, without a restart. Whoever approves is shown every difference "
        "from the version in force and is asked; --yes does not ask, for programs. Both are told where protection "
        "weakens; names that look alike are one person.",
    )
)
def activate(
    pack: PackName,
    by: By,
    yes: Annotated[bool, typer.Option("--yes", help=say("批准而不询问", "Approve without being asked"))] = False,
    as_json: Json = False,
) -> None:
    """Propose or approve a version."""
    from jiebang.usecases.policy import lifecycle
    from jiebang.usecases.policy.preview import preview_activation

    async def work(app: App) -> ActivationStatus | None:
        db = app.pools["platform"]
        if not yes and (preview := await preview_activation(db, app.declared, pack)):
            lifecycle.require_second_person(preview.pack, preview.proposed_by, by)
            if as_json or not sys.stdin.isatty():
                reason = Text(
                    "批准者须先看到改动:请在终端执行,或加上 --yes 表示已看过(jiebang policy diff)",
                    "whoever approves must see the changes first: run it in a terminal, or add --yes to say that you "
                    "have seen them (jiebang policy diff)",
                )
                raise InvalidInputError(field="--yes", reason=reason)
            show_preview(preview)
            asked = say(f"批准 {pack}?", f"Approve {pack}?")
            if not await asyncio.to_thread(typer.confirm, asked):
                return None
        return await lifecycle.activate(db, app.declared, pack, by, app.clock())

    done = with_app(work, as_json=as_json)
    if done is None:
        console.print(say("未批准,未改动任何内容。", "Not approved; nothing was changed."))
        raise typer.Exit(REFUSED)
    show_activation(done, as_json=as_json)


@commands.command(
    help=say(
        "完整显示一个版本:参数、规则、后果、方案与全部文本,中英文都显示。"
        "不给版本时为现行版本;--code 只显示一条规则、后果或办法。",
        "Show a version whole: parameters, rules, consequences, plans and every text, in both languages. Without PACK: "
        "the version in force. --code shows one rule, consequence or alternative alone.",
    )
)
def show(
    pack: Annotated[
        str | None,
        typer.Argument(metavar="[PACK]", help=say("文件,或版本如 wechat/2", "A file, or a version such as wechat/2")),
    ] = None,
    code: Annotated[str | None, typer.Option("--code", help=say("只显示此代码", "This code alone"))] = None,
    as_json: Json = False,
) -> None:
    """Show a version whole."""
    from jiebang.participants import PARTICIPANTS
    from jiebang.policy.difference import read_plain

    text, source = _read_version(pack, as_json=as_json)
    with exit_on_error(as_json=as_json):
        whole = read_plain(text, source, PARTICIPANTS)
        entries = [one for each in whole.values() if isinstance(each, list) for one in each if "code" in one]
        shown = whole if code is None else next((one for one in entries if one["code"] == code.upper()), None)
        if shown is None:
            raise InvalidInputError(
                field="--code", reason=Text(f"{source} 中没有 {code}", f"there is no {code} in {source}")
            )
    if as_json:
        print_json(shown)
    else:
        show_entry(shown)


@commands.command(
    help=say(
        "把一个版本的文件原样输出,一字不差,供修改为下一版本:jiebang policy export wechat/2 > next.yaml。"
        "不给版本时为现行版本。",
        "Print the file of a version as it was added, to the letter, for the next one to be made of: jiebang policy "
        "export wechat/2 > next.yaml. Without PACK: the version in force.",
    )
)
def export(
    pack: Annotated[str | None, typer.Argument(metavar="[PACK]", help=say("例如 wechat/2", "Such as wechat/2"))] = None,
    as_json: Json = False,
) -> None:
    """Print the file of a version."""
    text, source = _read_version(pack, as_json=as_json)
    if as_json:
        print_json({"pack": source.removesuffix(".yaml"), "text": text})
    else:
        sys.stdout.write(text)


def _read_version(pack: str | None, *, as_json: bool) -> tuple[str, str]:
    """Return the text of a file, of a version that was added, or (None) of the one in force, and what it is called."""
    from jiebang.usecases.policy.lifecycle import read_overview, read_pack_text

    if pack is not None and Path(pack).is_file():
        return pack_file(Path(pack), as_json=as_json)

    async def work(app: App) -> tuple[str, str]:
        db = app.pools["platform"]
        name = pack or (await read_overview(db)).state.pack
        return await read_pack_text(db, name), f"{name}.yaml"

    return with_app(work, as_json=as_json)


@commands.command(
    help=say(
        "退回到现行版本之前的版本。一人即可:那个版本曾由两人同意。进行中的申请仍按各自的版本办完。",
        "Go back to the version before the one in force. One person is enough: two agreed to that one before. Running "
        "cases go on under their own versions.",
    )
)
def rollback(by: By, as_json: Json = False) -> None:
    """Go back to the version before."""
    from jiebang.usecases.policy import lifecycle

    done = with_app(
        lambda app: lifecycle.roll_back(app.pools["platform"], app.declared, by, app.clock()), as_json=as_json
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
    pack: Annotated[str | None, typer.Argument(metavar="[PACK]", help=say("例如 wechat/3", "Such as wechat/3"))] = None,
    by: Annotated[
        str | None, typer.Option("--by", help=say("您的姓名;开始时必填", "Your name; needed to start"))
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help=say("停止影子运行", "End it"))] = False,
    as_json: Json = False,
) -> None:
    """Start, stop or report a version in shadow."""
    from jiebang.usecases.policy import lifecycle

    async def work(app: App) -> Sequence[ShadowCount]:
        db = app.pools["platform"]
        if stop:
            await lifecycle.stop_shadow(db)
        elif pack is not None and by is not None:
            await lifecycle.start_shadow(db, app.declared, pack, by, app.clock())
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
