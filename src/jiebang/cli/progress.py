"""Progress bars for commands that take longer than a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from jiebang.cli.runner import errors

if TYPE_CHECKING:
    from rich.console import Console

    from jiebang.app import App


@contextmanager
def progress(
    what: str, total: int | None, screen: Console = errors, *, counts: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a bar on the terminal while the block runs; yields a function that sets how much is done.

    `total`: None where it is unknown. `counts`: show `done/total`, else a percentage.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    reached = MofNCompleteColumn() if counts else TaskProgressColumn()
    with Progress(TextColumn(what), BarColumn(), reached, TimeRemainingColumn(), console=screen, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@asynccontextmanager
async def progress_over_accounts(app: App, what: str) -> AsyncIterator[Callable[[int], None]]:
    """Show a bar for work that goes through every account of the platform."""
    total = await app.pools["platform"].fetchval("SELECT count(*) FROM platform.account")
    with progress(what, total, counts=True) as done:
        yield done
