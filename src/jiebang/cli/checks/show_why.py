"""What `jiebang check --why` draws: every rule with its facts, its condition with values, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.panel import Panel
from rich.text import Text as Styled

from jiebang.cli.language import read, say

if TYPE_CHECKING:
    from rich.console import Console

    from jiebang.model.facts import FactSpec
    from jiebang.policy.why import Reason

_VERDICTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "raised": ("✗ 成立", "✗ holds", "red"),
    "passed": ("✓ 不成立", "✓ does not hold", "green"),
    "agreed": ("✓ 成立,本人已同意", "✓ holds, and the person has consented", "green"),
    "unknown": ("? 未知:有事实未读到", "? unknown: a fact could not be read", "yellow"),
}
_SEVERITIES: Final[Mapping[str, tuple[str, str]]] = {
    "blocks": ("阻止", "blocks"),
    "needs_consent": ("须本人同意", "needs consent"),
    "informs": ("仅告知", "informs"),
}


def show_reasons(console: Console, reasons: Sequence[Reason], facts: Mapping[str, FactSpec]) -> None:
    """Draw every rule, those that passed too; `facts`: what their names mean."""
    for one in reasons:
        zh, en, style = _VERDICTS[one.verdict]
        lines = Styled()
        lines.append(say(zh, en), style=f"bold {style}")
        lines.append(f"  ({say(*_SEVERITIES[one.severity])})\n")
        lines.append(f"{say('条件', 'condition')}: {one.condition}\n")
        lines.append(f"{say('代入后', 'with values')}: {one.filled}\n", style=style)
        for name, shown in one.shown.items():
            meaning = f" — {say(facts[name].zh, facts[name].en)}" if name in facts else ""
            lines.append(f"  {name} = {read(shown)}{meaning}\n")
        for name, value in one.params.items():
            lines.append(f"  :{name} = {value}\n")
        if one.unread:
            lines.append(f"{say('未读到', 'unread')}: {', '.join(one.unread)}\n", style="yellow")
        lines.append(f"{say('依据', 'source')}: {one.source}, {one.legal_basis}", style="dim")
        title = Styled(f"{one.code}  {read(one.title)}")
        console.print(Panel(lines, title=title, title_align="left", border_style=style))
