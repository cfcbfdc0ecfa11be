"""`jiebang accounts`: make people, and load people made here or elsewhere (docs/population-format.md)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from jiebang.cli.language import read, say
from jiebang.cli.progress import progress
from jiebang.cli.runner import REFUSED, Json, errors, print_json, with_app
from jiebang.clock import utc_now

if TYPE_CHECKING:
    from rich.console import Console

    from jiebang.app import App
    from jiebang.sandbox.population.load import BindingTarget, LoadReport
    from jiebang.sandbox.processes import Sandbox

commands = typer.Typer(
    no_args_is_help=True,
    help=say("生成与载入人口数据。", "Make people, and load people made here or elsewhere."),
)

_SHOWN_FAULTS: Final = 20


def today() -> datetime:
    """Return the last midnight, UTC: what the days of made-up people count from."""
    return datetime.combine(utc_now().date(), time(), UTC)


@commands.command(
    "generate",
    help=say(
        "生成 N 个逼真的人,每人一行 JSON,输出到标准输出。同样的 N、种子与日期总得到同样的字节。",
        "Make N realistic people, a line of JSON each, on standard output. The same N, seed and date always give the "
        "same bytes.\n\nExample: jiebang accounts generate 10000 --seed 7 > people.jsonl",
    ),
)
def _generate(
    count: Annotated[int, typer.Argument(metavar="N", min=0, help=say("人数", "How many"))],
    seed: Annotated[int, typer.Option(help=say("随机种子", "Seed"))] = 7,
    first: Annotated[int, typer.Option(min=1, help=say("第一个账户号", "First account number"))] = 1,
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help=say("以哪天为今天(UTC);默认今天", "Which day is today (UTC)")),
    ] = None,
) -> None:
    """Make people."""
    from jiebang.sandbox.population.generate import generate_chunks

    now = today() if as_of is None else as_of.replace(tzinfo=UTC)
    try:
        with progress(say("生成", "Making"), count) as advance:
            done = 0
            for piece in generate_chunks(count, seed, first=first, now=now):
                sys.stdout.buffer.write(piece)
                done += piece.count(b"\n")
                advance(done)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        sys.stderr.close()  # whoever reads has gone; Python would complain once more
        raise typer.Exit(REFUSED) from None


@commands.command(
    "load",
    help=say(
        "把人口文件载入所有数据库。默认有一行有误则全部不载入;--skip-bad 跳过有误的行。",
        "Load a population file into all databases. One bad line, and nothing is loaded; with --skip-bad the rest is.",
    ),
)
def _load(
    file: Annotated[
        Path, typer.Argument(help=say("文件;- 为标准输入", "The file; - for standard input"), allow_dash=True)
    ],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help=say("跳过有误的行", "Leave bad lines out and load the rest"))
    ] = False,
    as_json: Json = False,
) -> None:
    """Load people."""
    from jiebang.model.check import Text
    from jiebang.model.errors import InvalidInputError

    async def work(app: App) -> LoadReport:
        try:
            source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        except OSError as error:
            reason = Text(f"无法读取 {file}", f"cannot read {file}: {error.strerror}")
            raise InvalidInputError(field="file", reason=reason) from error
        size = 0 if str(file) == "-" else file.stat().st_size
        with source, progress(say("载入", "Loading"), size or None) as advance:
            return await _load_from(
                app, source, skip_bad=skip_bad, progress=lambda read_bytes, _people: advance(read_bytes)
            )

    report = with_app(work, as_json=as_json)
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not report.loaded or report.bad_lines:
        raise typer.Exit(REFUSED)


async def load_people(app: App, outside: Sandbox, count: int, seed: int, screen: Console) -> LoadReport:
    """Make `count` people and load them, bindings at the networks included, with a progress bar."""
    from jiebang.participants import PARTICIPANTS
    from jiebang.sandbox.control import Control
    from jiebang.sandbox.population.generate import generate_chunks

    networks = {name: Control(outside.link(name)) for name in PARTICIPANTS.networks}
    source = io.BufferedReader(_Pieces(generate_chunks(count, seed, now=today())), 1 << 20)
    try:
        with progress(
            say(f"生成并载入 {count:,} 人", f"Making and loading {count:,} people"), count, screen
        ) as advance:
            report = await _load_from(app, source, networks=networks, progress=lambda _bytes, people: advance(people))
    finally:
        for network in networks.values():
            await network.aclose()
    counts = (f"{report.people:,}", f"{report.rows:,}", f"{len(app.databases)}")
    screen.print(
        say(
            f"已载入 {counts[0]} 人、{counts[1]} 行,分布在 {counts[2]} 个数据库",
            f"Loaded {counts[0]} people, {counts[1]} rows in {counts[2]} databases",
        )
    )
    return report


async def _load_from(
    app: App,
    source: BinaryIO,
    *,
    skip_bad: bool = False,
    networks: Mapping[str, BindingTarget] | None = None,
    progress: Callable[[int, int], None],
) -> LoadReport:
    from jiebang.sandbox.population.load import load
    from jiebang.sandbox.population.tables import LoadKeys

    keys = LoadKeys(app.locks, app.secrets.documents, app.secrets.passwords)
    # A file made today in an earlier time zone may lie some hours ahead.
    now = utc_now() + timedelta(days=1)
    return await load(source, app.databases, keys, now=now, skip_bad=skip_bad, networks=networks, progress=progress)


class _Pieces(io.RawIOBase):
    """Generated lines as a readable binary file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._rest = self._rest or next(self._pieces, b"")
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


def _show(report: LoadReport) -> None:
    for fault in report.faults[:_SHOWN_FAULTS]:
        where = say(f"第 {fault.line} 行", f"line {fault.line}")
        field = f"{fault.field}: " if fault.field else ""
        errors.print(f"{where}: {field}{read(fault.reason)}", style="red", markup=False)
    if len(report.faults) > _SHOWN_FAULTS or report.bad_lines > len(report.faults):
        errors.print(say(f"共 {report.bad_lines} 行有误", f"{report.bad_lines} lines are bad in all"), style="red")
    if not report.loaded:
        errors.print(
            say(
                "未载入任何内容。请改正以上各行,或用 --skip-bad 载入其余。",
                "Nothing was loaded. Correct these lines, or load the rest with --skip-bad.",
            )
        )
        return
    errors.print(
        say(
            f"已载入 {report.people:,} 人、{report.rows:,} 行。",
            f"Loaded {report.people:,} people, {report.rows:,} rows.",
        ),
        style="green",
    )
    for field, count in report.doubts.items():
        errors.print(
            say(
                f"其中 {count:,} 项 {field} 与其标准不符,已照实载入并标记存疑。",
                f"{count:,} of {field} depart from their standard: loaded as they are, and marked as in doubt.",
            ),
            markup=False,
        )
    if report.bindings_skipped:
        errors.print(
            say(
                f"{report.bindings_skipped:,} 条清算机构绑定未发送:未运行沙箱机构。",
                f"{report.bindings_skipped:,} bindings at clearing networks were not sent: no sandbox network runs.",
            )
        )
