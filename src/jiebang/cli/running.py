"""How every command runs: an event loop, an opened installation, and errors told in the person's language."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console

from jiebang.api.logs import configure_logs
from jiebang.app import App, configured, open_app
from jiebang.cli.words import read, say
from jiebang.model.errors import CallerError, JiebangError, PolicyRefusalError

T = TypeVar("T")

REFUSED: Final = 1
"""Exit code: the answer is no (a check with blockers, an audit with violations, a case that did not end as asked)."""
WRONG: Final = 2
"""Exit code: the command cannot be carried out as given."""
FAILED: Final = 3
"""Exit code: a system that it needs, or we, failed."""

Json = Annotated[bool, typer.Option("--json", help=say("以 JSON 输出", "Answer in JSON, for programs"))]

console: Final = Console()
errors: Final = Console(stderr=True)


def run(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Run a command to its end; an error of ours is told and becomes the exit code."""
    configure_logs(sys.stderr, level=logging.ERROR)  # a person reads this terminal; what matters is told as an error
    try:
        return uvloop.run(work)
    except JiebangError as error:
        tell(error, as_json=as_json)
        raise typer.Exit(WRONG if isinstance(error, CallerError | PolicyRefusalError) else FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def with_app(work: Callable[[App], Awaitable[T]], *, as_json: bool = False, pool_size: int = 8) -> T:
    """Open the installation, do the work, close it."""

    async def opened() -> T:
        async with open_app(configured(), pool_size=pool_size) as app:
            return await work(app)

    return run(opened(), as_json=as_json)


def tell(error: JiebangError, *, as_json: bool) -> None:
    """Tell an error: what is wrong, what to do, and its particulars."""
    if as_json:
        told = {"code": error.code, "title": error.title, "action": error.action, "fields": error.fields}
        print_json({"error": told})
        return
    errors.print(f"[bold red]{error.code}[/]  {read(error.title)}", highlight=False)
    for name, value in error.fields.items():
        shown = msgspec.to_builtins(value, enc_hook=str)
        text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
        errors.print(f"  {name}: {text}", style="red", markup=False, highlight=False)
    errors.print(f"→ {read(error.action)}", markup=False)


def print_json(value: Any) -> None:
    """Print a value as one JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode() + "\n")
