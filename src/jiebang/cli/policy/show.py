"""What the commands of policy draw. Only drawing; nothing here decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from jiebang.cli.language import read, say
from jiebang.cli.runner import console, print_json
from jiebang.model.check import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from jiebang.policy.analyse import RuleFinding
    from jiebang.policy.difference import Difference
    from jiebang.policy.pack import Pack
    from jiebang.policy.weakening import Weakening
    from jiebang.store.policy.packs import Activation, ShadowCount
    from jiebang.usecases.policy.lifecycle import ActivationStatus, PolicyOverview, Replay
    from jiebang.usecases.policy.preview import ActivationPreview

_SHOWN: Final = 60


def _moment(at: datetime) -> str:
    from jiebang.policy.calendar import ZONE

    return f"{at.astimezone(ZONE):%Y-%m-%d %H:%M:%S}"


def replay_to_json(one: Replay, *, facts: bool) -> dict[str, Any]:
    """Return a replay as `--json` prints it; personal facts only with `facts`."""
    told: dict[str, Any] = {
        "step": one.step,
        "at": one.at,
        "pack": one.pack,
        "outcome": one.outcome,
        "same": not one.differences,
        "differences": one.differences,
    }
    return told | ({"facts": one.facts, "unread": one.unread, "answer": one.answer} if facts else {})


def show_replays(found: Sequence[Replay], *, facts: bool) -> None:
    """Draw the checks of a case, answered again."""
    for one in found:
        step = say("提交", "submit") if one.step == "submit" else say("办理前复查", "before it was carried out")
        console.print(f"[bold]{step}[/]  {_moment(one.at)}  {one.pack}  → {one.outcome}", highlight=False)
        if facts:
            for name, value in one.facts.items():
                console.print(f"  {name}: {_short(value)}", markup=False, highlight=False)
            if one.unread:
                console.print(f"  {say('未读到', 'unread')}: {', '.join(one.unread)}", markup=False)
        if not one.differences:
            console.print(say("  重新回答,一字不差。", "  Answered again: the same to the letter."), style="green")
        else:
            console.print(say("  重新回答有不同:", "  Answered again, it differs:"), style="bold red")
            show_differences(one.differences)


def show_pack(
    pack: Pack,
    findings: Sequence[RuleFinding],
    *,
    as_json: bool,
    added: bool = False,
    weakenings: Sequence[Weakening] = (),
) -> None:
    """Draw a pack that was validated or added, with its warnings, and where it weakens the one in force."""
    if as_json:
        warnings = [finding.problem for finding in findings]
        told = {"pack": pack.id, "rules": len(pack.rules), "added": added, "warnings": warnings}
        print_json(told | ({"weakenings": weakenings} if added else {}))
        return
    what = say("已加入", "added") if added else say("有效", "valid")
    console.print(f"[green]{pack.id}[/]: {what}, {len(pack.rules)} {say('条规则', 'rules')}", highlight=False)
    for finding in findings:
        place = f"{finding.problem.file}:{finding.problem.line}:{finding.problem.column}"
        said = read(Text(finding.problem.zh, finding.problem.en))
        console.print(f"  {say('提醒', 'warning')} {place}: {said}", style="yellow", markup=False, soft_wrap=True)
    show_weakenings(weakenings)


def show_weakenings(found: Sequence[Weakening]) -> None:
    """Draw where protection weakens, a line each."""
    for one in found:
        line = f"{say('保护减弱', 'weaker protection')} {one.path}: {read(one.what)}"
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)


def show_activation(done: ActivationStatus, *, as_json: bool) -> None:
    """Draw the result of an activation or a rollback."""
    if as_json:
        print_json(done)
        return
    show_weakenings(done.weakenings)
    if done.in_force_since is None:
        console.print(
            say(
                f"{done.pack} 已由 {done.proposed_by} 提出。请另一位同事执行:"
                f"jiebang policy activate {done.pack} --by 姓名",
                f"{done.pack} was proposed by {done.proposed_by}. Now a colleague runs: "
                f"jiebang policy activate {done.pack} --by NAME",
            ),
            markup=False,
            soft_wrap=True,
        )
    else:
        console.print(
            say(
                f"{done.pack} 即刻生效,取代 {done.replaces}。", f"{done.pack} is in force, in place of {done.replaces}."
            ),
            style="green",
            markup=False,
        )


def show_differences(found: Sequence[Difference]) -> None:
    """Draw differences: what was added or removed whole and in both languages, what was changed before and after."""
    if not found:
        console.print(say("没有不同。", "No differences."))
    for one in found:
        if one.what == "reordered":
            lines = [("cyan", f"↕ {one.path}: {', '.join(map(str, one.before))} → {', '.join(map(str, one.after))}")]
        elif (
            one.what == "changed" and not isinstance(one.before, dict | list) and not isinstance(one.after, dict | list)
        ):
            lines = [
                ("yellow", f"~ {one.path}:"),
                ("red", f"  - {_plain(one.before)}"),
                ("green", f"  + {_plain(one.after)}"),
            ]
        else:
            sides = (("-", "red", one.before), ("+", "green", one.after))
            lines = [
                (style, line)
                for sign, style, value in sides
                if value is not None
                for line in (f"{sign} {one.path}:", *(f"{sign}   {each}" for each in entry_lines(value)))
            ]
        for style, line in lines:
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def show_preview(preview: ActivationPreview) -> None:
    """Draw what approving a proposal would change."""
    told = say(
        f"{preview.pack} 由 {preview.proposed_by} 提出,将取代 {preview.replaces};全部不同如下:",
        f"{preview.pack}, proposed by {preview.proposed_by}, would replace {preview.replaces}. All that differs:",
    )
    console.print(told, markup=False, highlight=False, soft_wrap=True)
    show_differences(preview.differences)
    show_weakenings(preview.weakenings)


def show_entry(value: Any) -> None:
    """Draw a part of a pack whole, in both languages."""
    for line in entry_lines(value):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def entry_lines(value: Any) -> list[str]:
    """Return a part of a pack as lines, nothing cut, laid out as in its file. What it leaves out has no line."""
    if isinstance(value, dict):
        members = [(f"{name}:", each) for name, each in value.items() if each is not None]
    elif isinstance(value, list):
        members = [("-", each) for each in value]
    else:
        return [_plain(value)]
    lines = []
    for head, each in members:
        inner = entry_lines(each)
        if not isinstance(each, dict | list):
            lines.append(f"{head} {inner[0]}")
        elif head == "-" and inner:
            lines += [f"- {inner[0]}", *(f"  {line}" for line in inner[1:])]
        else:
            lines += [head if inner else f"{head} {'{}' if isinstance(each, dict) else '[]'}"]
            lines += [f"  {line}" for line in inner]
    return lines


def _plain(value: Any) -> str:
    """Return a number, text or truth value as it stands in a pack's file, on one line."""
    return value.replace("\n", "⏎") if isinstance(value, str) else json.dumps(value)


def _short(value: Any) -> str:
    """Return a value cut to part of a line."""
    if isinstance(value, dict) and {"zh", "en"} <= value.keys():
        value = say(value["zh"], value["en"])
    if isinstance(value, dict) and "title" in value:
        value = say(value["title"]["zh"], value["title"]["en"])
    shown = str(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def show_overview(found: PolicyOverview) -> None:
    """Draw versions and history."""
    versions = Table(
        "", say("版本", "version"), say("加入者", "added by"), say("加入时间", "added"), "sha256", box=None
    )
    for one in found.versions:
        in_shadow = say("影子", "in shadow") if one["pack"] == found.state.shadow else ""
        # A version that came into force while in shadow is there no more, whatever the row still says.
        mark = say("现行", "in force") if one["pack"] == found.state.pack else in_shadow
        versions.add_row(mark, one["pack"], one["added_by"], _moment(one["added_at"]), one["sha256"][:12])
    console.print(versions)
    history = Table(say("序号", "no."), say("变更", "change"), say("版本", "version"), say("提出", "by"),
                    say("批准", "approved by"), say("生效", "since"), box=None)  # fmt: skip
    for change in found.history:
        history.add_row(
            str(change.activation_no), _action(change), change.pack, change.proposed_by, change.approved_by or "",
            _moment(change.in_force_since) if change.in_force_since else "",
        )  # fmt: skip
    console.print(history)


def _action(change: Activation) -> str:
    if change.lapsed_at is not None:
        return say("提议已失效", "proposal lapsed")
    if change.in_force_since is None:
        return say("待批准", "waits for approval")
    return {
        "install": say("首次安装", "installed"),
        "activate": say("启用", "activated"),
        "rollback": say("退回", "rolled back"),
    }[change.action]


def show_shadow(counts: Sequence[ShadowCount]) -> None:
    """Draw where a version in shadow differs."""
    if not counts:
        console.print(
            say(
                "尚无统计。开始影子运行:jiebang policy shadow PACK --by 姓名",
                "Nothing was counted yet. To start a version in shadow: jiebang policy shadow PACK --by NAME",
            ),
            soft_wrap=True,
        )
        return
    heads = (("申请", "kind"), ("人群", "segment"), ("代码", "code"), ("检查", "checks"), ("都有", "in both"),
             ("仅现行", "only live"), ("仅影子", "only shadow"))  # fmt: skip
    table = Table(*(say(*head) for head in heads), box=None)
    for one in counts:
        if one.code == "" or one.only_live or one.only_shadow:
            code = one.code or say("(被阻止)", "(blocked)")
            numbers = (one.checks, one.in_both, one.only_live, one.only_shadow)
            table.add_row(one.kind, one.segment, code, *map(str, numbers))
    console.print(f"{counts[0].shadow} {say('对照', 'beside')} {', '.join(sorted({one.live for one in counts}))}")
    console.print(table)
