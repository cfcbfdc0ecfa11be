"""How every command runs: an event loop, an opened installation, and errors printed in the person's language."""

from __future__ import annotations

import errno
import json
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import typer

from jiebang.cli.language import read, say
from jiebang.cli.plain_console import PlainConsole
from jiebang.model.check import Text
from jiebang.model.errors import (
    BlockedError,
    CallerError,
    DiskFullError,
    HomeUnusableError,
    JiebangError,
    NotInstalledError,
    ParticipantUnavailableError,
    PolicyRefusalError,
)
from jiebang.model.plain import escape_json

if TYPE_CHECKING:
    from jiebang.app import App
    from jiebang.model.check import CheckAnswer

T = TypeVar("T")

REFUSED: Final = 1
"""Exit code: the answer is no (a check with blockers, an audit with violations, a case that did not end as asked)."""
WRONG: Final = 2
"""Exit code: the command cannot be carried out as given."""
FAILED: Final = 3
"""Exit code: the product or a system that it needs failed."""

Json = Annotated[bool, typer.Option("--json", help=say("以 JSON 输出", "Answer in JSON, for programs"))]

console: Final = PlainConsole()
errors: Final = PlainConsole(stderr=True)


@contextmanager
def exit_on_error(*, as_json: bool) -> Iterator[None]:
    """Print an error raised inside the block, and end the command with its exit code."""
    try:
        yield
    except JiebangError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(WRONG if isinstance(error, CallerError | PolicyRefusalError) else FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        print_error(_as_own_error(error), as_json=as_json)
        raise typer.Exit(FAILED) from error


def _as_own_error(error: Exception) -> JiebangError:
    """Return an unexpected error as a JiebangError: its type and where it was raised, never its values."""
    from jiebang.participants.base import Fault, fault_of

    kind = type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(path=str(error.filename))
        reason = Text(f"系统报告:{error.strerror}", f"the system says: {error.strerror}")
        return HomeUnusableError(path=str(error.filename), reason=reason)
    if fault_of(error) is Fault.SILENCE:
        return ParticipantUnavailableError(error=kind)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
    return JiebangError(error=kind, places=" ← ".join(reversed(places)))


def run(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Run a command to its end; an error is printed and becomes the exit code."""
    import uvloop

    from jiebang.api.logs import configure_logs

    configure_logs(sys.stderr, level=logging.ERROR)  # a person reads this terminal; errors are printed below
    with exit_on_error(as_json=as_json):
        return uvloop.run(work)


def with_app(
    work: Callable[[App], Awaitable[T]],
    *,
    as_json: bool = False,
    pool_size: int = 8,
    patient: bool = False,
    makes_home: bool = False,
) -> T:
    """Open the installation, do the work, close it. `patient`: without the platform's database too (`open_app`).

    `makes_home`: embedded databases are made where there are none; otherwise NotInstalledError is printed.
    """
    from jiebang.app import is_installed, load_settings, open_app

    async def opened() -> T:
        settings = load_settings()
        if not makes_home and not is_installed(settings):
            raise NotInstalledError(home=str(settings.home))
        async with open_app(settings, pool_size=pool_size, patient=patient) as app:
            return await work(app)

    return run(opened(), as_json=as_json)


def print_error(error: JiebangError, *, as_json: bool) -> None:
    """Print an error: what is wrong, what to do, and its fields; of a refused case, the whole check."""
    check = error.check if isinstance(error, BlockedError) else None
    if as_json:
        body = {"code": error.code, "title": error.title, "action": error.action, "fields": error.fields}
        print_json({"error": body if check is None else {**body, "check": check_to_json(check)}})
        return
    errors.print(f"[bold red]{error.code}[/]  {read(error.title)}", highlight=False)
    for name, value in error.fields.items():
        for shown in _format_field(value):
            errors.print(f"  {name}: {shown}", style="red", markup=False, highlight=False, soft_wrap=True)
    if check is not None:
        from jiebang.cli.show import show_check

        show_check(errors, check)
    errors.print(f"→ {read(error.action)}", markup=False, soft_wrap=True)


def check_to_json(check: CheckAnswer) -> Any:
    """Return a check as `--json` prints it: as the API answers it."""
    from jiebang.api.shapes import check_shape

    return check_shape(check)


def _format_field(value: Any) -> list[str]:
    """Return a field of an error as lines, one per item of a list; texts in the person's language."""
    plain = msgspec.to_builtins(value, enc_hook=str)
    if isinstance(plain, list | tuple):
        return [line for each in plain for line in _format_field(each)]
    if isinstance(plain, dict) and {"zh", "en"} <= plain.keys():
        # `file:line:column`, as compilers write it and editors read it.
        place = ":".join(str(part) for name, part in plain.items() if name not in ("zh", "en"))
        text = say(plain["zh"], plain["en"])
        return [f"{place}: {text}" if place else text]
    return [plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)]


def print_json(value: Any) -> None:
    """Print a value as one JSON document on standard output; ids are strings, as in the API."""
    plain = _write_ids(msgspec.to_builtins(value, builtin_types=(), str_keys=True, enc_hook=str))
    sys.stdout.write(escape_json(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()) + "\n")


def _write_ids(value: Any) -> Any:
    """Write ids as strings: a program that reads numbers as floats changes those above 2^53."""
    if isinstance(value, dict):
        return {name: _write_id(one) if _is_id(name) else _write_ids(one) for name, one in value.items()}
    return [_write_ids(one) for one in value] if isinstance(value, list | tuple) else value


def _write_id(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_write_id(one) for one in value]
    return str(value) if type(value) is int else _write_ids(value)


def _is_id(name: str) -> bool:
    return name in ("id", "account", "money_wrong") or name.endswith("_id")
