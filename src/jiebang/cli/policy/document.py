"""A document of headings, paragraphs, lists and tables as Markdown, or as one HTML page that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import msgspec

from jiebang.cli.language import Language
from jiebang.model.plain import make_plain

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2129;--soft:#5c6370;--line:#dfe3ea;--paper:#fff;--open:#a2400a;--row:#f6f7f9}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#a0a7b4;--line:#363b45;--paper:#15181d;--open:#f0995b;
--row:#1c2027}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.6 "PingFang SC","Noto Sans SC","Noto Sans CJK SC","Microsoft YaHei",system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 56px}
h1{font-size:23px;margin:0 0 8px;line-height:1.35}h2{font-size:18px;margin:40px 0 8px}
h3{font-size:15.5px;margin:26px 0 6px}
p{margin:8px 0}ul{margin:8px 0;padding-left:22px}li{margin:3px 0;overflow-wrap:anywhere}
.open{color:var(--open)}
.open,th{white-space:nowrap}
table{border-collapse:collapse;width:100%;margin:8px 0 4px;font-size:14px}
th,td{text-align:left;padding:7px 10px;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}
tbody tr:nth-child(odd){background:var(--row)}
@media (max-width:720px){table,tbody,tr,td{display:block;width:100%}thead{position:absolute;left:-9999px}
tr{border-bottom:1px solid var(--line);padding:8px 0}td{border:0;padding:3px 10px}
td::before{content:attr(data-label) " ";color:var(--soft);font-size:12.5px;display:block}}
@media print{@page{size:A4;margin:16mm}body{font-size:11px}main{max-width:none;padding:0}tr{break-inside:avoid}}
"""


class Heading(msgspec.Struct, frozen=True):
    """A heading of level 1 to 3."""

    level: int
    text: str


class Paragraph(msgspec.Struct, frozen=True):
    """A paragraph."""

    text: str


class Points(msgspec.Struct, frozen=True):
    """A list."""

    items: Sequence[str]


class Grid(msgspec.Struct, frozen=True):
    """A table. A cell that is None is open: nobody has declared it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | None]]


Block = Heading | Paragraph | Points | Grid
_OPEN: Final = {"zh": "未申明", "en": "open"}


def write_markdown(blocks: Sequence[Block], language: Language) -> str:
    """Return the document as Markdown."""
    return make_plain("\n\n".join(_to_markdown(block, language) for block in blocks) + "\n")


def _to_markdown(block: Block, language: Language) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_plain(block.text)}"
        case Paragraph():
            return _plain(block.text)
        case Points():
            return "\n".join(f"- {_plain(item)}" for item in block.items)
        case Grid():
            rows = [
                [_plain(cell) if cell is not None else f"**{_OPEN[language]}**" for cell in row] for row in block.rows
            ]
            lines = [list(map(_plain, block.heads)), ["---"] * len(block.heads), *rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return a text on one line in which nothing acts as Markdown or HTML."""
    marked = "".join(f"\\{one}" if one in "\\`*_{}[]<>#|" else one for one in " ".join(text.split()))
    return marked.replace("&", "&amp;")


def write_html(blocks: Sequence[Block], language: Language, title: str) -> str:
    """Return the document as an HTML page: light and dark, on a phone and on paper."""
    tongue = "zh-CN" if language == "zh" else "en"
    return make_plain(
        f'<!doctype html><html lang="{tongue}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(_to_html(block, language) for block in blocks)}</main></body></html>\n"
    )


def _to_html(block: Block, language: Language) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{escape(block.text)}</p>"
        case Points():
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"
        case Grid():
            heads = "".join(f"<th scope=col>{escape(head)}</th>" for head in block.heads)
            rows = "".join(f"<tr>{_to_cells(block.heads, row, language)}</tr>" for row in block.rows)
            return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _to_cells(heads: Sequence[str], row: Sequence[str | None], language: Language) -> str:
    return "".join(
        f'<td data-label="{escape(head)}"'
        + (f" class=open>{_OPEN[language]}" if cell is None else f">{escape(cell)}")
        + "</td>"
        for head, cell in zip(heads, row, strict=True)
    )
