"""Times and tasks as operators' commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jiebang.cli.language import say
from jiebang.cli.runner import console

if TYPE_CHECKING:
    from datetime import datetime

    from jiebang.store.operations.tasks import Task


def format_age(at: datetime, now: datetime) -> str:
    """Return roughly how long before `now` a time was, in its largest unit with a count of two or more."""
    seconds = max(int((now - at).total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task as `--json` prints it."""
    return {
        "kind": task.kind,
        "participant": task.participant,
        "op": task.op,
        "why": task.why,
        "note": task.note,
        "raised_at": task.raised_at,
        "acknowledged_by": task.acknowledged_by,
        "closed_at": task.closed_at,
    }


def print_task(task: Task, name: str, now: datetime) -> None:
    """Print a task on one line. `name`: the public id of its case; `now`: by the database's clock."""
    by = task.acknowledged_by or say("无人认领", "nobody's yet")
    what = task.why or task.op
    closed = say("  已关闭", "  closed") if task.closed_at else ""
    age = format_age(task.raised_at, now)
    line = f"{name}  {task.kind}  {task.participant} {what}  {task.note or ''}  {age}  {by}{closed}"
    console.print(line, highlight=False, soft_wrap=True, markup=False)
