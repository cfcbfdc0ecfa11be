"""A backtest as one page: a funnel, an UpSet picture and a table, drawn as inline SVG; nothing is fetched.

Chinese and English stand side by side, and the page follows the reader's choice of light or dark. Every number in a
picture stands in the table too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Final

from jiebang.model.plain import make_plain

if TYPE_CHECKING:
    from jiebang.model.check import Text
    from jiebang.policy.backtest import BacktestOutcome, BacktestReport

_COMBINATIONS: Final = 24
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2129;--soft:#5c6370;--line:#dfe3ea;--paper:#fff;--bar:#2f6fde;--pass:#138a4b;
--late:#c2571a;--dim:#e6e9ef}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#a0a7b4;--line:#363b45;--paper:#15181d;--bar:#6ea3ff;
--pass:#4cc38a;--late:#f0995b;--dim:#2b3038}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 "PingFang SC","Noto Sans SC","Noto Sans CJK SC","Microsoft YaHei",system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}
.en,small{color:var(--soft);font-weight:400}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:16px}
.tiles div{border:1px solid var(--line);border-radius:8px;padding:10px 16px;min-width:150px}
.tiles b{display:block;font-size:24px;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
svg{display:block}svg text{fill:var(--ink);font-size:12px}svg .soft{fill:var(--soft)}
.bar{fill:var(--bar)}.pass{fill:var(--pass)}.late{fill:var(--late)}.dim{fill:var(--dim)}
.thread{stroke:var(--bar);stroke-width:2}.row{fill:var(--dim);opacity:.45}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child{white-space:nowrap}
th.n,td.n{text-align:right;white-space:nowrap}
"""


def page(report: BacktestReport, kind: Text, changed: Mapping[str, str]) -> str:
    """Return the page. `kind`: the kind of case, in words; `changed`: parameters set, by name."""
    before = report.outcome
    settings = ", ".join(f"{name} = {value}" for name, value in changed.items())
    parts = [
        f"<h1>{_both('策略回测', 'Policy backtest')}: {escape(before.pack)}</h1>",
        f"<p>{escape(kind.zh)} <span class=en>{escape(kind.en)}</span> · {report.as_of:%Y-%m-%d %H:%M} UTC"
        + (f" · {_both('改动', 'changed')}: <b>{escape(settings)}</b>" if settings else "")
        + "</p>",
        _tiles(report),
        f"<h2>{_both('漏斗:逐条规则之后还剩多少人', 'Funnel: who is left after each rule')}</h2>",
        f"<div class=scroll>{_funnel(before)}</div>",
        f"<h2>{_both('组合:哪些阻碍一起拦下多少人', 'Combinations: which blockers stop how many together')}</h2>",
        f"<div class=scroll>{_upset(before)}</div>",
        f"<h2>{_both('明细', 'Table')}</h2>",
        f"<div class=scroll>{_table(report)}</div>",
    ]
    return make_plain(
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(before.pack)} 回测 backtest</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _both(zh: str, en: str) -> str:
    return f"{escape(zh)} <span class=en>{escape(en)}</span>"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "—"


def _tiles(report: BacktestReport) -> str:
    before, after, difference = report.outcome, report.changed, report.difference
    every = before.accounts
    tiles = [
        ("账户", "accounts", f"{every:,}", ""),
        ("可直接通过", "pass", f"{before.passes:,}", _share(before.passes, every)),
        ("同意后可通过", "pass with consent", f"{before.with_consent:,}", _share(before.with_consent, every)),
    ]
    if after is not None and difference is not None:
        tiles += [
            ("改动后可通过", "pass when changed", f"{after.passes:,}", _share(after.passes, every)),
            ("新通过", "newly pass", f"+{difference.gained:,}" if difference.gained else "0", ""),
            ("不再通过", "no longer pass", f"−{difference.lost:,}" if difference.lost else "0", ""),
        ]
    return (
        "<div class=tiles>"
        + "".join(f"<div>{_both(zh, en)}<b>{number}</b><small>{share}</small></div>" for zh, en, number, share in tiles)
        + "</div>"
    )


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _funnel(outcome: BacktestOutcome) -> str:
    """One bar a rule: how many accounts pass it and all rules before it."""
    left, wide, high = 190.0, 620.0, 24.0
    titles = {stop.code: stop.title for stop in outcome.stops}
    steps = [("", outcome.accounts), *((step.code, step.left) for step in outcome.funnel)]
    parts = []
    for at, (code, count) in enumerate(steps):
        y = at * high
        last = "pass" if at == len(steps) - 1 else "bar"
        width = wide * count / outcome.accounts if outcome.accounts else 0
        told = f"{titles[code].zh} {titles[code].en}" if code else "全部 everybody"
        parts.append(
            f"<g><title>{escape(told)}: {count:,}</title>"
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(code) or "全部 all"}</text>'
            f'<rect class="{last}" x="{left}" y="{y + 3}" width="{max(width, 1):.1f}" height="{high - 6}" rx="2"/>'
            f'<text x="{left + width + 8:.1f}" y="{y + 16}">{count:,} '
            f'<tspan class="soft">{_share(count, outcome.accounts)}</tspan></text></g>'
        )
    return _svg(left + wide + 170, len(steps) * high, "漏斗 funnel", parts)


def _upset(outcome: BacktestOutcome) -> str:
    """The most frequent combinations as columns over a matrix of dots, with each rule's own total beside its row."""
    shown = outcome.combinations[:_COMBINATIONS]
    if not shown:
        return "<p>—</p>"
    named = {code for one in shown for code in one.codes}
    stops = sorted((stop for stop in outcome.stops if stop.code in named), key=lambda stop: -stop.accounts)
    left, top, step, row, tall = 330.0, 30.0, 28.0, 24.0, 160.0
    below = top + tall + 14
    most, widest = shown[0].accounts, max(stop.accounts for stop in stops)
    rows = {stop.code: below + at * row + row / 2 for at, stop in enumerate(stops)}
    width = left + len(shown) * step + 20
    parts = []
    for at, stop in enumerate(stops):
        y = rows[stop.code]
        size = 110 * stop.accounts / widest if widest else 0
        if at % 2 == 0:
            parts.append(f'<rect class="row" x="0" y="{y - row / 2}" width="{width}" height="{row}"/>')
        parts.append(
            f"<g><title>{escape(stop.title.zh)} {escape(stop.title.en)}: {stop.accounts:,}</title>"
            f'<rect class="bar" x="{120 - size:.1f}" y="{y - 7}" width="{max(size, 1):.1f}" height="14" rx="2"/>'
            f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{escape(stop.code)} '
            f'<tspan class="soft">{stop.accounts:,}</tspan></text></g>'
        )
    for at, one in enumerate(shown):
        x = left + at * step + step / 2
        high = tall * one.accounts / most
        members = [rows[code] for code in one.codes]
        dots = "".join(
            f'<circle class="{"bar" if y in members else "dim"}" cx="{x}" cy="{y}" r="6"/>' for y in rows.values()
        )
        parts.append(
            f"<g><title>{escape(' + '.join(one.codes))}: {one.accounts:,}</title>"
            f'<rect class="bar" x="{x - 9}" y="{top + tall - high:.1f}" width="18" height="{max(high, 1):.1f}" rx="2"/>'
            f'<text class="soft" x="{x}" y="{top + tall - high - 6:.1f}" text-anchor="middle">'
            f"{_short(one.accounts)}</text>{dots}"
            f'<line class="thread" x1="{x}" x2="{x}" y1="{min(members)}" y2="{max(members)}"/></g>'
        )
    return _svg(width, below + len(stops) * row + 4, "阻碍的组合 combinations of blockers", parts)


def _short(count: int) -> str:
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            shown = f"{count / size:.1f}" if count < 10 * size else f"{count / size:.0f}"
            return shown + sign
    return str(count)


def _table(report: BacktestReport) -> str:
    before, after = report.outcome, report.changed
    late = {} if after is None else {stop.code: stop.accounts for stop in after.stops}
    heads = [("涉及", "accounts"), ("占比", "share"), ("仅此一项", "alone")]
    if after is not None:
        heads += [("改动后", "changed"), ("变化", "change")]
    rows = []
    for stop in before.stops:
        cells = [f"{stop.accounts:,}", _share(stop.accounts, before.accounts), f"{stop.alone:,}"]
        if after is not None:
            now = late.get(stop.code, 0)
            cells += [f"{now:,}", f"{now - stop.accounts:+,}" if now != stop.accounts else "—"]
        rows.append(
            f"<tr><td>{escape(stop.code)}</td><td>{_both(stop.title.zh, stop.title.en)}</td>"
            + "".join(f"<td class=n>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(f"<th class=n>{_both(*words)}</th>" for words in heads)
    return (
        f"<table><thead><tr><th>{_both('代码', 'code')}</th><th>{_both('事项', 'what')}</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
