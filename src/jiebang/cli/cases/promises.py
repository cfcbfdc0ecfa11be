"""Show the promises of one case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text as Styled

from jiebang.api.cases.promise_shapes import PromisesAnswer, promises_shape
from jiebang.cli.arguments import case_key
from jiebang.cli.language import read, say
from jiebang.model.promises import PromiseState
from jiebang.policy.calendar import ZONE
from jiebang.usecases.promises.read import read_promises

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rich.console import Console

    from jiebang.api.cases.promise_shapes import PromiseAnswer
    from jiebang.app import App

_STATES: Final[Mapping[PromiseState, tuple[str, str, str]]] = {
    PromiseState.KEPT: ("已兑现", "kept", "green"),
    PromiseState.DUE: ("待兑现", "due", "yellow"),
    PromiseState.BROKEN: ("未兑现", "broken", "bold red"),
    PromiseState.ENDED: ("已由后来的申请取代", "ended by a later case", "cyan"),
    PromiseState.UNKNOWN: ("无法得知", "unknown", "magenta"),
}


async def read_case_promises(app: App, case_id: str) -> PromisesAnswer:
    """Return the promises of a case as the API tells them. Raises what `read_promises` raises."""
    return promises_shape(await read_promises(app.context, case_key(app.case_ids, case_id)), app.case_ids)


def show_promises(console: Console, found: PromisesAnswer) -> None:
    """Draw the promises of a case, each with its state and who keeps it."""
    if not found.recorded:
        console.print(say("当时告知内容的记录已丢失。", "The record of what was told is lost."), style="yellow")
        return
    if not found.promises:
        console.print(say("此申请未办成,一切照旧,没有承诺。", "This case was not done: everything is as before."))
        return
    table = Table(box=None, pad_edge=False)
    for heading in (say("承诺", "promise"), say("状态", "state"), say("时间", "when"), say("由何兑现", "kept by")):
        table.add_column(heading, overflow="fold")
    for one in found.promises:
        zh, en, style = _STATES[one.state]
        kept_by = ", ".join(dict.fromkeys(each.keeper for each in one.kept_by)) or "—"
        table.add_row(Styled(read(one.title)), Styled(say(zh, en), style=style), _tell_when(one), Styled(kept_by))
    console.print(table)


def _tell_when(one: PromiseAnswer) -> str:
    since = None if one.since is None else say(f"自 {_at(one.since)}", f"since {_at(one.since)}")
    until = None if one.until is None else say(f"至 {_at(one.until)}", f"until {_at(one.until)}")
    return " ".join(each for each in (since, until) if each is not None)


def _at(when: datetime) -> str:
    return f"{when.astimezone(ZONE):%Y-%m-%d %H:%M:%S}"
