"""What the command line draws: checks, timelines, audits. Only drawing; nothing here decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text as Styled

from jiebang.cli.language import read, say

if TYPE_CHECKING:
    from jiebang.model.check import Alternative, Blocker, CheckAnswer, Consequence, Remedy
    from jiebang.policy.codes import CodeExplained
    from jiebang.usecases.operations.verify import VerificationReport
    from jiebang.usecases.timelines.verify import TimelineReport

STATES: Final[Mapping[str, tuple[str, str, str]]] = {
    "open": ("待验证", "open", "cyan"),
    "in_review": ("审核中", "in review", "cyan"),
    "ready": ("已验证", "ready", "cyan"),
    "trying": ("预留中", "trying", "yellow"),
    "confirming": ("已提交,落实中", "confirming", "yellow"),
    "cancelling": ("回滚中", "cancelling", "magenta"),
    "done": ("已完成", "done", "bold green"),
    "aborted": ("已全部回滚", "aborted, rolled back everywhere", "bold magenta"),
    "rejected": ("未受理", "rejected", "bold red"),
    "withdrawn": ("已撤回", "withdrawn", "bold cyan"),
    "expired": ("已过期", "expired", "bold red"),
}
_ANSWERS: Final[Mapping[str, str]] = {
    "granted": "green",
    "done": "green",
    "refused": "red",
    "pending": "yellow",
    "stale": "red",
    "error": "red",
}
_OPS: Final[Mapping[str, tuple[str, str]]] = {
    "try": ("尝试", "Try"),
    "confirm": ("确认", "Confirm"),
    "cancel": ("取消", "Cancel"),
}


def state_text(state: str) -> Styled:
    """Return a case's state in the person's language, coloured."""
    zh, en, style = STATES[state]
    return Styled(say(zh, en), style=style)


def show_blockers(console: Console, answer: CheckAnswer) -> None:
    """Draw what stands in the way: every blocker with its remedy."""
    if not answer.blockers:
        console.print(say("没有任何阻碍,可以办理。", "Nothing stands in the way."), style="green")
    else:
        console.print(
            say("没有阻碍;以下仅供知悉:", "Nothing blocks; for your information:")
            if answer.passes
            else say("以下事项阻碍此申请:", "These stand in the way:")
        )
    for blocker in answer.blockers:
        console.print(_blocker(blocker, ZoneInfo(answer.time_zone)))


def show_check(console: Console, answer: CheckAnswer) -> None:
    """Draw one check: every blocker with its remedy, everything that follows, every alternative with its cost."""
    show_blockers(console, answer)
    if not answer.offered:
        console.print(
            say("此类申请目前只能检查,尚不能提交。", "This kind can be checked, but not be submitted yet."),
            style="yellow",
        )
    if answer.consequences:
        console.print(say("办理完成后会发生:", "What will happen when it is done:"))
        console.print(_consequences(answer.consequences))
    if answer.alternatives:
        console.print(say("其他办法与代价:", "What else could do, and what it costs:"))
        for alternative in answer.alternatives:
            console.print(_alternative(alternative))


def show_outcome_briefly(console: Console, answer: CheckAnswer) -> None:
    """Draw what follows from a case in one line each, and the names of the alternatives; `show_check` says all."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for one in answer.consequences:
        table.add_row(Styled(one.participant, style="dim"), Styled(read(one.title)), Styled(read(one.lasts)))
    console.print(say("办理完成后会发生:", "What will happen when it is done:"))
    console.print(table)
    names = say("、", "; ").join(read(one.title) for one in answer.alternatives)
    console.print(Styled(say(f"其他办法:{names}。", f"What else could do: {names}.")))


def show_audit_briefly(console: Console, report: VerificationReport) -> None:
    """Draw an audit without violations in a few words, any other in full."""
    if not report.clean:
        show_audit(console, report)
        return
    states = ", ".join(f"{count:,} {say(*STATES[state][:2])}" for state, count in sorted(report.cases_by_state.items()))
    parties = len(report.fence_marks)
    console.print(
        say(
            f"审计:{report.accounts:,} 个账户、{report.cases:,} 个申请({states}),{parties} 个参与方一致,"
            f"全部余额 ¥{report.balance_fen / 100:,.2f} 与账目相符:0 处违例。",
            f"Audited: {report.accounts:,} accounts, {report.cases:,} cases ({states}); {parties} participants agree, "
            f"all balances, ¥{report.balance_fen / 100:,.2f}, match their ledger: 0 violations.",
        ),
        style="green",
        highlight=False,
    )


def _consequences(consequences: Sequence[Consequence]) -> Table:
    table = Table(show_header=True, header_style="bold", show_lines=True)
    for heading in (say("系统", "System"), say("后果", "What happens"), say("持续", "How long")):
        table.add_column(heading)
    for one in consequences:
        text = Styled(f"{read(one.title)}", style="bold")
        text.append(f"\n{read(one.explanation)}", "not bold")
        if one.consent is not None:
            text.append(say(f"\n您已同意({one.consent})", f"\nYou agreed to it ({one.consent})"), "not bold green")
        table.add_row(Styled(one.participant), text, Styled(read(one.lasts)))
    return table


def _alternative(alternative: Alternative) -> Panel:
    title = Styled(read(alternative.title))
    if alternative.recommended:
        title.append(say("  ★ 推荐", "  ★ recommended"), "bold green")
    if alternative.kind is not None and not alternative.offered:
        title.append(say("  (目前只能检查)", "  (can only be checked for now)"), "dim")
    lines = [
        say("能达到:", "Reaches: ") + read(alternative.reaches),
        say("代价:", "Costs: ") + read(alternative.costs),
    ]
    if alternative.kind is not None:
        lines.append(f"→ jiebang check … --kind {alternative.kind}")
    return Panel(Styled("\n".join(lines)), title=title, title_align="left", style="cyan")


def show_code(console: Console, asked: str, found: CodeExplained) -> None:
    """Draw what a code means, in full; the places of a person's values are named."""
    lines = [Styled(read(found.title), style="bold")]
    if asked.upper() != found.code:
        lines.append(Styled(say(f"旧代码 {asked} 即 {found.code}。", f"{asked} is an older code for {found.code}.")))
    for heading, text in (
        (say("说明", "What it means"), found.explanation),
        (say("怎么办", "What to do"), found.what),
        (say("在哪里", "Where"), found.where),
        (say("需多久", "How long"), found.takes or found.lasts),
        (say("能达到", "Reaches"), found.reaches),
        (say("代价", "Costs"), found.costs),
        (say("申诉", "Appeal"), found.appeal),
    ):
        if text is not None:
            lines.append(Styled(f"{heading}: {read(text)}"))
    if found.kinds:
        lines.append(Styled(say("适用于", "For") + ": " + ", ".join(found.kinds)))
    if found.condition is not None:
        params = ", ".join(f":{name} = {value}" for name, value in found.params.items())
        lines.append(Styled(say("条件", "Raised when") + f": {found.condition}" + (f"  ({params})" if params else "")))
    basis = ", ".join(part for part in (_basis(found.source, found.legal_basis), found.pack) if part)
    lines.append(Styled(say("依据", "Source") + f": {basis}", style="dim"))
    console.print(Panel(Group(*lines), title=Styled(found.code), title_align="left"))


def _blocker(blocker: Blocker, zone: ZoneInfo) -> Panel:
    remedy = blocker.remedy
    lines = [read(blocker.explanation), _remedy(remedy)]
    if remedy.earliest is not None:
        lines.append(say("最早可通过:", "Passes from: ") + f"{remedy.earliest.astimezone(zone):%Y-%m-%d %H:%M}")
    lines.append(
        say(
            f"依据:{_basis(blocker.source, blocker.legal_basis)}。申诉:{blocker.appeal.zh}",
            f"Source: {_basis(blocker.source, blocker.legal_basis)}. Appeal: {blocker.appeal.en}",
        )
    )
    style = "red" if blocker.severity == "blocks" else "yellow"
    # Styled text, because brackets in a text of policy are not markup.
    title = Styled(f"{blocker.code}  {read(blocker.title)}")
    return Panel(Styled("\n".join(lines)), title=title, title_align="left", style=style)


def _basis(source: str | None, law: str | None) -> str:
    """Say where a rule comes from: packs write `platform` for policy of the platform's own, and — for no source."""
    chinese, _, english = (law or "").partition(" / ")
    text = say("平台规则", "platform policy") if law == "platform" else say(chinese, english or chinese)
    return ", ".join(part for part in (None if source in ("—", "law") else source, text) if part)


def _remedy(remedy: Remedy) -> str:
    what, where, takes = remedy.what, remedy.where, remedy.takes
    return say(f"→ {what.zh}({where.zh};{takes.zh})", f"→ {what.en} ({where.en}; {takes.en})")


class _Turn(msgspec.Struct):
    """One participant's op: when it was sent last, when answered, what."""

    op: str
    sent: datetime
    attempt: int = 0
    answered: datetime | None = None
    answer: str | None = None
    code: str | None = None


class TimelineView:
    """A case's timeline as a table: a row a participant, what it was sent, when it answered and what."""

    def __init__(self, title: str | None = None, participants: Iterable[str] = ()) -> None:
        """Start empty; participants that the timeline names are added as they come."""
        self._title = title
        self._turns: dict[str, list[_Turn]] = {name: [] for name in participants}
        self._states: list[tuple[datetime, str, str | None]] = []

    def show_states(self) -> Styled:
        """Return the states that the case went through, with when, in one line."""
        return self._story(self._start())

    @property
    def state(self) -> str | None:
        """The case's state after the entries added so far."""
        return self._states[-1][1] if self._states else None

    def add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Take in the entries of one row of the timeline."""
        for entry in entries:
            at = entry["at"] if isinstance(entry["at"], datetime) else datetime.fromisoformat(entry["at"])
            match entry["what"]:
                case "state":
                    self._states.append((at, entry["state"], entry.get("reason")))
                case "send":
                    self._add_send(entry, at)
                case "answer":
                    self._add_answer(entry, at)
                case _:
                    continue

    def _add_send(self, entry: Mapping[str, Any], at: datetime) -> None:
        turns = self._turns.setdefault(entry["participant"], [])
        if turns and turns[-1].op == entry["op"]:
            turns[-1].attempt = entry["attempt"]
        else:
            turns.append(_Turn(entry["op"], at))

    def _add_answer(self, entry: Mapping[str, Any], at: datetime) -> None:
        for turn in self._turns.get(entry["participant"], []):
            if turn.op == entry["op"]:
                turn.answered, turn.answer, turn.code = at, entry["answer"], entry.get("code")

    def __rich__(self) -> RenderableType:
        """Draw what is known so far."""
        start = self._start()
        table = Table(title=self._title, title_justify="left", header_style="bold")
        for heading in (
            say("系统", "System"),
            say("第一阶段(+毫秒)", "First phase (+ms)"),
            say("第二阶段(+毫秒)", "Second phase (+ms)"),
        ):
            table.add_column(heading, no_wrap=True)
        for name, turns in self._turns.items():
            table.add_row(name, *(_turn(turns[at], start) if at < len(turns) else Styled("—", "dim") for at in (0, 1)))
        return Group(table, self._story(start))

    def _start(self) -> datetime | None:
        """Return when it was proven, from which all is counted; before that, when it began."""
        proven = next((at for at, state, _ in self._states if state == "ready"), None)
        return proven or (self._states[0][0] if self._states else None)

    def _story(self, start: datetime | None) -> Styled:
        text = Styled()
        for at, state, reason in self._states:
            if text:
                text.append("  →  ", "dim")
            text.append_text(state_text(state))
            text.append(f" {_offset(start, at)}", "dim")
            if reason:
                text.append(f" ({reason})", "yellow")
        return text


def _turn(turn: _Turn, start: datetime | None) -> Styled:
    text = Styled(f"{say(*_OPS[turn.op])} {_offset(start, turn.sent)}")
    if turn.attempt:
        text.append(f" ×{turn.attempt + 1}", "yellow")
    if turn.answer is None or turn.answered is None:
        return text.append(" …", "yellow")
    took = (turn.answered - turn.sent).total_seconds() * 1000
    text.append(f" {turn.code or turn.answer}", _ANSWERS.get(turn.answer, ""))
    return text.append(f" {took:.0f} ms", "dim")


def _offset(start: datetime | None, at: datetime) -> str:
    return f"+{(at - start).total_seconds() * 1000:.0f}" if start is not None and at >= start else ""


def show_audit(console: Console, report: VerificationReport) -> None:
    """Draw what an audit counted and found."""
    table = Table(title=say("审计", "Audit"), title_justify="left", show_header=False)
    table.add_row(say("账户", "Accounts"), f"{report.accounts:,}")
    table.add_row(say("申请", "Cases"), f"{report.cases:,}")
    for state, count in sorted(report.cases_by_state.items()):
        table.add_row(Styled("  ").append_text(state_text(state)), f"{count:,}")
    for name, count in report.fence_marks.items():
        table.add_row(say(f"{name} 的栅栏标记", f"Fence marks at {name}"), f"{count:,}")
    if report.quota_slots:
        table.add_row(say("证件年度名额", "Yearly slots of documents"), f"{report.quota_slots:,}")
    table.add_row(say("全部余额", "All balances"), f"¥{report.balance_fen / 100:,.2f}")
    _timelines(table, report.timelines)
    console.print(table)
    for name in report.unread:
        console.print(
            say(f"未能读取 {name}:无法证明其一致。", f"{name} could not be read: nothing is proven of it."), style="red"
        )
    for account in report.money_wrong:
        console.print(
            say(f"账户 {account} 的余额与账目不符", f"Account {account}: balance and ledger differ"), style="red"
        )
    if report.transfers_fen:
        console.print(say("转账两侧合计不为零", "The two sides of all transfers do not add up to zero"), style="red")
    for violation in report.violations:
        console.print(
            f"{violation.breach}: {violation.participant} account={violation.account_id} case_no={violation.case_no}",
            style="red",
        )
    for sitting in report.confirming:
        waits = ", ".join(sitting.waits_for) or "?"
        console.print(
            say(
                f"停在确认阶段:account={sitting.account_id} case_no={sitting.case_no} {sitting.plan} 等待 {waits}"
                "(见 jiebang cases confirming)",
                f"past its commit point, not ended: account={sitting.account_id} case_no={sitting.case_no} "
                f"{sitting.plan} waits for {waits} (see jiebang cases confirming)",
            ),
            style="red",
            soft_wrap=True,
        )
    _findings(console, report.timelines)
    if report.clean:
        console.print(say("0 处违例。", "0 violations."), style="green")


def _findings(console: Console, found: TimelineReport) -> None:
    for finding in found.findings:
        at = {name: value for name, value in msgspec.to_builtins(finding).items() if name != "fault"}
        console.print(" ".join([f"{finding.fault}:", *(f"{name}={value}" for name, value in at.items())]), style="red")
    if found.anchored is None:
        words = say(
            "没有外部锚点:无法证明封印链的末尾未被截去。",
            "There is no anchor outside: nothing proves that the chain of seals was not cut at its end.",
        )
        console.print(words, style="yellow")
    elif found.anchor_in_home:
        console.print(ANCHOR_IN_HOME, style="yellow")


ANCHOR_IN_HOME: Final = say(
    "锚点文件在数据目录之内:能改数据库的人多半也能改它。请用 JIEBANG_ANCHOR 指到别处。",
    "The anchor lies in the home: whoever can write the database can probably write it too. "
    "Set JIEBANG_ANCHOR elsewhere.",
)


def _timelines(table: Table, found: TimelineReport) -> None:
    table.add_row(say("时间线(行)", "Timelines (rows)"), f"{found.timelines:,} ({found.rows:,})")
    table.add_row(say("封印(所含时间线)", "Seals (timelines in them)"), f"{found.seals:,} ({found.sealed:,})")
    if found.unsealed:
        table.add_row(say("已结束、尚待封印", "Ended, waiting for their seal"), f"{found.unsealed:,}")
    if found.older:
        words = say("旧版封印(仅含时间线)", "Seals of an earlier version (timelines alone)")
        table.add_row(words, f"{found.older:,}")
    for lost in found.restored:
        words = say(f"因恢复备份而失去的封印({lost.by} 确认)", f"Seals lost in a restore, acknowledged by {lost.by}")
        table.add_row(words, f"{lost.first:,}-{lost.last:,}")
