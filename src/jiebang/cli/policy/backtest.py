"""`jiebang policy backtest` and `jiebang accounts export-facts`: a policy evaluated on all accounts."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jiebang.cli.arguments import pack_file
from jiebang.cli.language import read, say
from jiebang.cli.progress import progress_over_accounts
from jiebang.cli.runner import Json, console, errors, exit_on_error, print_json, with_app
from jiebang.clock import utc_now
from jiebang.model.case import Kind
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError, KindNotOfferedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jiebang.app import App
    from jiebang.policy.backtest import BacktestReport
    from jiebang.policy.pack import Pack
    from jiebang.usecases.policy.export_facts import ExportSummary

_PAGE_LIMIT: Final = timedelta(seconds=60)
"""How long reading one page of facts may take; no person waits for it."""
_SHOWN: Final = 12


def _export(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help=say("写到哪个文件", "The file to write"))],
    as_json: Json = False,
) -> None:
    """Export the facts of every account."""
    with exit_on_error(as_json=as_json):
        if not file.parent.is_dir():
            raise InvalidInputError(field="file", reason=Text("目录不存在", "there is no such folder"))
    found = with_app(lambda app: _export_facts(app, file), as_json=as_json)
    if as_json:
        print_json({"file": str(file), "accounts": found.accounts, "unread": found.unread})
        return
    console.print(
        say(f"已写出 {found.accounts:,} 个账户的事实:{file}", f"Wrote the facts of {found.accounts:,} accounts: {file}")
    )
    console.print(
        say("文件含个人数据,仅您可读。", "The file holds personal data; only you can read it."), style="yellow"
    )
    _tell_unread(found)


def _tell_unread(found: ExportSummary) -> None:
    for owner, count in found.unread.items():
        errors.print(
            say(f"{owner} 有 {count:,} 个账户未读到", f"{owner}: {count:,} accounts could not be read"), style="red"
        )


async def _export_facts(app: App, file: Path) -> ExportSummary:
    from jiebang.usecases.checks.check import Checker
    from jiebang.usecases.policy.export_facts import export_facts

    checker = Checker(
        registry=app.declared,
        pack=app.context.pack,
        participants=app.participants,
        platform=app.pools["platform"],
        case_ids=app.case_ids,
        clock=app.clock,
        limit=_PAGE_LIMIT,
        window=None,
    )
    async with progress_over_accounts(app, say("读取", "Reading")) as progress:
        try:
            return await export_facts(checker, app.pools["platform"], file, progress=progress)
        except OSError as error:
            reason = Text(f"无法写入:{error.strerror}", f"it cannot be written: {error.strerror}")
            raise InvalidInputError(field=str(file), reason=reason) from error


def _backtest(
    pack: Annotated[
        str,
        typer.Argument(
            metavar="PACK",
            help=say(
                "策略包:文件、自带的名称(wechat)或已加入的版本(wechat/3)",
                "The pack: a file, the name of one that we ship (wechat), or a version that was added (wechat/3)",
            ),
        ),
    ],
    population: Annotated[
        Path | None,
        typer.Option(
            help=say(
                "accounts export-facts 写出的文件;不填则读取现有数据库",
                "A file of `accounts export-facts`; without it, the live databases",
            )
        ),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help=say("申请种类", "What everybody asks for"))] = Kind.REVOKE,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="P=VALUE",
            help=say("改动一个参数再比较;可重复", "Change a parameter and compare; may be repeated"),
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help=say("把漏斗与组合图写成网页", "Write the funnel and the combinations as a page"))
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help=say("以哪天(UTC)为今天;默认现在", "Which day (UTC) is today; default: now")
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a pack over a population."""
    from jiebang.app import load_settings
    from jiebang.policy.load import load_pack

    now = utc_now() if as_of is None else as_of.replace(tzinfo=UTC)
    text, name = _text(pack, as_json=as_json)
    with exit_on_error(as_json=as_json):
        changed = _changes(changes or [])
        declared = load_settings().declared
        loaded = load_pack(text, name, declared)
        if kind not in loaded.kinds:
            raise KindNotOfferedError(kind=kind.value, offered=loaded.offered)
        other = load_pack(text, name, declared, changed) if changed else None
        if html is not None and not html.parent.is_dir():
            raise InvalidInputError(field="html", reason=Text("目录不存在", "there is no such folder"))
        if html is not None and html.is_dir():
            raise InvalidInputError(field="html", reason=Text("这是一个目录,不是文件", "this is a folder, no file"))
    if population is None:
        with tempfile.TemporaryDirectory(prefix="jiebang-backtest-") as folder:
            live = Path(folder) / "live.parquet"
            _tell_unread(with_app(lambda app: _export_facts(app, live), as_json=as_json))
            report = _run(loaded, other, live, kind, now, as_json=as_json)
    else:
        report = _run(loaded, other, population, kind, now, as_json=as_json)
    if html is not None:
        from jiebang.cli.policy.backtest_page import page

        with exit_on_error(as_json=as_json):
            try:
                html.write_text(page(report, loaded.kinds[kind], changed), encoding="utf-8")
            except OSError as error:
                reason = Text(f"无法写入 {html}", f"{html} cannot be written")
                raise InvalidInputError(field="html", reason=reason) from error
    if as_json:
        print_json({"report": report, "set": changed})
    else:
        _show(report, changed)
        if html is not None:
            console.print(say(f"图:{html}", f"Picture: {html}"))


def _changes(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise InvalidInputError(
                field="set", reason=Text("须为 参数=值,每个一次", "must be PARAMETER=VALUE, each once")
            )
        found[name] = value
    return found


def _text(pack: str, *, as_json: bool) -> tuple[str, str]:
    """Return the text of a pack and the name of its file: a file, one that we ship, or one in the store."""
    from jiebang.policy import packs
    from jiebang.usecases.policy.lifecycle import read_pack_text

    path = Path(pack)
    if path.is_file():
        return pack_file(path, as_json=as_json)
    if pack.isidentifier():
        try:
            return packs.text(pack)
        except FileNotFoundError:
            pass

    async def stored(app: App) -> str:
        return await read_pack_text(app.pools["platform"], pack)

    return with_app(stored, as_json=as_json), f"{pack}.yaml"


def _run(loaded: Pack, other: Pack | None, file: Path, kind: Kind, now: datetime, *, as_json: bool) -> BacktestReport:
    import polars as pl

    from jiebang.policy.backtest import PopulationError, backtest

    with exit_on_error(as_json=as_json):
        try:
            with console.status(say("运行中……", "Running …")):
                (report,) = backtest(loaded, pl.scan_parquet(file), [kind], now, changed=other)
        except PopulationError as error:
            names = ", ".join(error.columns)
            reason = Text(f"缺少列或类型不符:{names}", f"columns are missing or of another type: {names}")
            raise InvalidInputError(field="population", reason=reason) from error
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = Text(f"不是可读的 Parquet 文件:{file}", f"not a Parquet file that can be read: {file}")
            raise InvalidInputError(field="population", reason=reason) from error
    return report


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"


def _show(report: BacktestReport, changed: Mapping[str, str]) -> None:
    from rich.table import Table

    before, after = report.outcome, report.changed
    every = before.accounts
    console.print(
        say(f"{before.pack},{every:,} 个账户", f"{before.pack}, {every:,} accounts"), style="bold", highlight=False
    )
    console.print(say("可直接通过:", "Pass: ") + _share(before.passes, every), highlight=False)
    console.print(
        say("本人同意后可通过:", "Pass with their consent: ") + _share(before.with_consent, every), highlight=False
    )
    if after is not None and report.difference is not None:
        console.print(
            say("改动:", "With ") + ", ".join(f"{name}={value}" for name, value in changed.items()), style="bold"
        )
        console.print(
            say("可直接通过:", "Pass: ")
            + _share(after.passes, every)
            + say(
                f",新通过 {report.difference.gained:,},不再通过 {report.difference.lost:,}",
                f"; {report.difference.gained:,} more, {report.difference.lost:,} no longer",
            ),
            highlight=False,
        )
    table = Table(
        say("代码", "code"),
        say("事项", "what"),
        say("涉及", "accounts"),
        say("仅此一项", "alone"),
        box=None,
        highlight=False,
    )
    late = {} if after is None else {stop.code: stop.accounts for stop in after.stops}
    if after is not None:
        table.add_column(say("改动后", "changed"))
    for stop in before.stops:
        row = [stop.code, read(stop.title), _share(stop.accounts, every), f"{stop.alone:,}"]
        table.add_row(*row, *([] if after is None else [f"{late.get(stop.code, 0):,}"]))
    console.print(table)
    console.print(say("最常见的组合:", "Most frequent together:"), style="bold")
    for one in before.combinations[:_SHOWN]:
        console.print(f"  {_share(one.accounts, every)}  {' + '.join(one.codes)}", highlight=False)


def register(accounts: typer.Typer, policy: typer.Typer) -> None:
    """Add these commands to the groups they belong to."""
    accounts.command(
        "export-facts",
        help=say(
            "把所有账户的事实写成一个 Parquet 文件,供 policy backtest 使用。内存占用恒定;明细列表不写出。",
            "Write the facts of every account into one Parquet file, for `policy backtest`. Constant memory; lists of "
            "items stay behind.",
        ),
    )(_export)
    policy.command(
        "backtest",
        help=say(
            "回测:假如所有人现在都来申请,有多少人能通过,哪些阻碍拦下多少人(单独与共同),改动一个阈值会怎样。\n\n"
            "例:jiebang policy backtest wechat --population people.parquet --set identity_change_days=60 "
            "--html out.html",
            "Backtest: if everybody asked now, how many would pass, which blockers stop how many alone and together, "
            "and what one changed threshold does.\n\n"
            "Example: jiebang policy backtest wechat --population people.parquet "
            "--set identity_change_days=60 --html out.html",
        ),
    )(_backtest)
