"""What the terminal shows of a trial: every property, and of a failed one what was sent, answered and wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from jiebang.cli.language import read, say
from jiebang.participants.conformance.suite import FindingResult

if TYPE_CHECKING:
    from rich.console import Console

    from jiebang.participants.conformance.suite import Finding
    from jiebang.participants.conformance.trial import TrialReport

_SIGNS: Final[Mapping[FindingResult, tuple[str, str]]] = {
    FindingResult.PASSED: ("✓", "green"),
    FindingResult.FAILED: ("✗", "bold red"),
    FindingResult.NOT_APPLICABLE: ("–", "yellow"),
}


def show_report(console: Console, report: TrialReport) -> None:
    """Print a report."""
    for each in report.findings:
        _show_finding(console, each)
    console.print()
    told = say(
        f"{report.name}:符合 {report.passed} 项,不符合 {report.failed} 项,未检验 {report.not_applicable} 项"
        f"(种子 {report.seed},账户自 {report.first_account})",
        f"{report.name}: {report.passed} hold, {report.failed} do not, {report.not_applicable} not examined "
        f"(seed {report.seed}, accounts from {report.first_account})",
    )
    console.print(told, style="bold green" if report.conforms else "bold red", markup=False, soft_wrap=True)
    if report.ignored:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(report.ignored.items()))
        console.print(say(f"不予采信的结果:{counts}", f"results not believed: {counts}"), markup=False)


def _show_finding(console: Console, each: Finding) -> None:
    sign, style = _SIGNS[each.result]
    console.print(f"{sign} {each.property}  {read(each.holds)}", style=style, markup=False, soft_wrap=True)
    if each.reason is not None:
        _line(console, say("未检验", "not examined"), read(each.reason))
    if each.result is not FindingResult.FAILED or each.answered is None or each.wanted is None:
        return
    _line(console, say("否则", "else"), read(each.breaks))
    _line(console, say("发送", "sent"), each.sent or "")
    _line(console, say("应答", "answered"), read(each.answered))
    _line(console, say("要求", "wanted"), read(each.wanted))
    if each.exchange is not None and each.exchange.sent != each.sent:
        _line(console, say("最后一次往来", "last exchange"), f"{each.exchange.sent}  →  {each.exchange.answered}")


def _line(console: Console, label: str, text: str) -> None:
    console.print(f"    {label}: {text}", markup=False, highlight=False, soft_wrap=True)
