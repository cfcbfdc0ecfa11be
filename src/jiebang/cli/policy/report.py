"""`jiebang report`: what an installation must be able to show about itself."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from jiebang.cli.arguments import pack_file
from jiebang.cli.language import LANGUAGE, say
from jiebang.cli.runner import Json, console, exit_on_error, print_json
from jiebang.model.check import Text
from jiebang.model.errors import DeclarationsInvalidError, InvalidInputError


class ReportFormat(StrEnum):
    """How a report is written."""

    MARKDOWN = "markdown"
    HTML = "html"


class ReportLanguage(StrEnum):
    """The language of a report."""

    ZH = "zh"
    EN = "en"


_OURS: Final = ReportLanguage(LANGUAGE)
commands: Final = typer.Typer(
    no_args_is_help=True,
    help=say("生成须能出示的报告。", "Reports that must be at hand to be shown."),
)


@commands.command(
    "pipl",
    help=say(
        "个人信息处理情况记录与保护影响评估(个人信息保护法第五十五、五十六条),由策略包与声明生成;未申明的列为未申明。不需要数据库。",
        "Record of processing and impact assessment (Personal Information Protection Law, articles 55 and 56), from a "
        "pack and the declarations; what is not declared is listed as open. Needs no database.",
    ),
)
def report_processing(
    pack: Annotated[
        str, typer.Option(help=say("策略:产品自带的名称,或策略文件", "A pack: the name of a shipped one, or a file"))
    ] = "",
    declarations: Annotated[
        Path | None,
        typer.Option(
            help=say(
                "处理者补充的申明(YAML),见 docs/zh/privacy-report.md",
                "What the handler adds (YAML); see docs/privacy-report.md",
            )
        ),
    ] = None,
    form: Annotated[
        ReportFormat, typer.Option("--format", help=say("格式", "How it is written"))
    ] = ReportFormat.MARKDOWN,
    language: Annotated[ReportLanguage, typer.Option(help=say("语言", "Its language"))] = _OURS,
    out: Annotated[
        Path | None, typer.Option(help=say("写入此文件,否则输出", "File to write; else it is printed"))
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the report."""
    from jiebang.app import POLICY, load_settings
    from jiebang.cli.policy.document import write_html, write_markdown
    from jiebang.cli.policy.processing_document import TITLE, build_document
    from jiebang.files import write
    from jiebang.model.personal_data import DataHandler
    from jiebang.participants.personal_data import complete, read_declared
    from jiebang.policy import packs
    from jiebang.policy.load import load_pack
    from jiebang.usecases.policy.describe_processing import describe_processing

    name = pack or POLICY
    text, source = packs.text(name) if name in packs.NAMES else pack_file(Path(name), as_json=as_json)
    added = None if declarations is None else pack_file(declarations, as_json=as_json)
    with exit_on_error(as_json=as_json):
        registry = load_settings().declared
        entries, handler = read_declared(registry), DataHandler()
        if added is not None:
            owners = [each.owner for each in registry.declarations]
            completed, entries, problems = complete(entries, *added, (*owners, "platform", "keys"))
            if completed is None:
                raise DeclarationsInvalidError(problems=[msgspec.to_builtins(each) for each in problems])
            handler = completed
        report = describe_processing(load_pack(text, source, registry), registry, entries, handler, datetime.now(UTC))
        blocks = build_document(report, language.value)
        written = (
            write_html(blocks, language.value, TITLE[0 if language is ReportLanguage.ZH else 1])
            if form is ReportFormat.HTML
            else write_markdown(blocks, language.value)
        )
        if out is not None:
            try:
                write(out, written.encode(), 0o644)
            except OSError as error:
                reason = Text("无法写入", "cannot be written")
                raise InvalidInputError(field=str(out), reason=reason) from error
    if as_json:
        print_json({"report": report, "open": len(report.open_points), "file": None if out is None else str(out)})
    elif out is None:
        typer.echo(written, nl=False)
    else:
        told = say(
            f"已写入 {out},{len(report.open_points)} 项未申明。", f"Wrote {out}: {len(report.open_points)} open points."
        )
        console.print(told, markup=False, soft_wrap=True)
