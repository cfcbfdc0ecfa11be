"""Arguments that operators' commands share: their name, case ids, participants, how many to list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from jiebang.cli.language import say
from jiebang.cli.runner import exit_on_error
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.model.case import Key


def require_text(value: str) -> str:
    """Refuse an empty text where one is kept on record."""
    if not value.strip():
        raise typer.BadParameter(say("不可为空", "it must not be empty"))
    return value


By = Annotated[
    str, typer.Option("--by", callback=require_text, help=say("您的姓名,记录在案", "Your name, kept on record"))
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help=say("最多列出多少", "How many at most"))]
CaseIds = Annotated[list[str], typer.Argument(metavar="CASE…", help=say("申请编号", "Case ids, such as case_…"))]


def decode_cases(app: App, ids: Sequence[str]) -> dict[str, Key]:
    """Return the key of each public case id. Raises InvalidInputError for one that cannot be decoded."""
    found = {each: app.case_ids.decode(each) for each in ids}
    for each, key in found.items():
        if key is None:
            raise InvalidInputError(field=each, reason=Text("不是申请编号", "this is no case id"))
    return {each: key for each, key in found.items() if key is not None}


def check_participants(names: Sequence[str], *, also: Sequence[str] = (), as_json: bool) -> None:
    """Refuse an unknown name before any server is started: print the error and exit. `also`: further known names."""
    from jiebang.app import load_settings
    from jiebang.usecases.operations.outages import check_names

    with exit_on_error(as_json=as_json):
        check_names(names, also=also, declared=load_settings().declared)
