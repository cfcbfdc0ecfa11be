"""The record of processing and the impact assessment (PIPL 55, 56) as a document in one language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.cli.policy.document import Block, Grid, Heading, Paragraph, Points

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiebang.cli.language import Language
    from jiebang.model.check import Text
    from jiebang.usecases.policy.describe_processing import ProcessingReport, RecordedParty, RecordedTable

    Say = Callable[[str, str], str]

TITLE: Final = (
    "个人信息处理情况记录与保护影响评估",
    "Record of processing and personal information protection impact assessment",
)


class _Writer:
    """Writes in one language."""

    def __init__(self, report: ProcessingReport, language: Language) -> None:
        self._report, self._zh = report, language == "zh"

    def say(self, zh: str, en: str) -> str:
        return zh if self._zh else en

    def read(self, text: Text | None) -> str | None:
        return None if text is None else self.say(text.zh, text.en)

    def either(self, both: str | None) -> str | None:
        """Return one language's half of what a pack or declaration writes as `中文 / English`."""
        if both is None or " / " not in both:
            return both
        return both.split(" / ")[0 if self._zh else 1]

    def tell(self, *, flag: bool | None) -> str | None:
        return None if flag is None else self.say("是", "yes") if flag else self.say("否", "no")

    def write(self) -> list[Block]:
        return [*self._open_with(), *self._record(), *self._facts(), *self._assess(), *self._list_open()]

    def _open_with(self) -> list[Block]:
        report, say = self._report, self.say
        handler = report.handler
        kinds = say("、", ", ").join(say(kind.zh, kind.en) for kind in report.kinds)
        return [
            Heading(1, say(*TITLE)),
            Paragraph(
                say(
                    "依据《个人信息保护法》第五十五条、第五十六条,"
                    "由策略包、参与方的声明与数据库表自动生成。"
                    "未申明的内容不作推测,列于文末。",
                    "Under articles 55 and 56 of the Personal Information Protection Law, generated from the policy "
                    "pack, "
                    "the declarations of participants and the tables of their databases. Nothing is supposed: what "
                    "nobody has declared is listed at the end.",
                )
            ),
            Grid(
                [say("项目", "item"), say("内容", "content")],
                [
                    [say("个人信息处理者", "handler"), self.read(handler.name)],
                    [say("联系方式", "contact"), handler.contact],
                    [say("策略", "policy"), f"{report.pack} {self.read(report.pack_title)}"],
                    [say("可申请的种类", "what can be asked for"), kinds],
                    [say("生成时间", "written"), f"{report.written_at:%Y-%m-%d %H:%M} UTC"],
                    [say("未申明的事项", "open points"), str(len(report.open_points))],
                ],
            ),
            Paragraph(
                say(
                    "第五十六条第二款:评估报告和处理情况记录应当至少保存三年。",
                    "Article 56, paragraph 2: the assessment and the record are kept for at least three years.",
                )
            ),
        ]

    def _record(self) -> list[Block]:
        say, found = self.say, list[Block]()
        found.append(Heading(2, say("一、处理情况记录", "1. Record of processing")))
        for party in self._report.parties:
            found += self._record_party(party)
        return found

    def _record_party(self, party: RecordedParty) -> list[Block]:
        say = self.say
        called = self.read(party.title)
        title = Heading(3, party.owner if called == party.owner else f"{party.owner} · {called}")
        if party.remote:
            sent = ", ".join(party.sent)
            told = (
                say(
                    f"经网络的参与方。平台向其发送:{sent}。",
                    f"A participant across the network. The platform sends it: {sent}.",
                )
                if party.sent
                else say(
                    "经网络的参与方。此策略不向其发送任何内容。",
                    "A participant across the network. This policy sends it nothing.",
                )
            )
            return [title, Paragraph(told)]
        heads = [
            say("表与列", "table and columns"),
            say("内容", "what it holds"),
            say("目的", "purpose"),
            say("合法性基础", "legal basis"),
            say("保存期限", "kept for"),
            say("敏感", "sensitive"),
            say("保护措施", "protection"),
        ]
        where = say(f"数据库:{'、'.join(party.databases)}", f"Databases: {', '.join(party.databases)}")
        blocks: list[Block] = [title, Paragraph(where)]
        if party.tables:
            blocks.append(Grid(heads, [self._record_row(each) for each in party.tables]))
        else:
            blocks.append(Paragraph(say("无任何申明。", "Nothing is declared.")))
        return blocks

    def _record_row(self, each: RecordedTable) -> list[str | None]:
        entry, period = each.entry, self.read(each.period)
        if period is not None and each.period_source is not None:
            period = f"{period} ({self.either(each.period_source)})"
        return [
            f"{entry.table}: {', '.join(each.columns)}",
            self.read(entry.what),
            self.read(entry.purpose),
            self.either(entry.basis),
            period,
            self.tell(flag=entry.sensitive),
            self.read(entry.protection),
        ]

    def _facts(self) -> list[Block]:
        say, report = self.say, self._report
        rows = [[used.fact.owner, say(used.fact.zh, used.fact.en), ", ".join(used.rules)] for used in report.facts]
        return [
            Heading(2, say("二、策略据以决定的事实", "2. Facts that policy decides by")),
            Paragraph(
                say(
                    f"策略有 {report.rules} 条规则,其中 {report.blocking} 条阻止申请,"
                    f"{report.appealable} 条写明申诉途径。",
                    f"The policy has {report.rules} rules; {report.blocking} of them block a case, and "
                    f"{report.appealable} name a way to appeal.",
                )
            ),
            Grid([say("参与方", "participant"), say("事实", "fact"), say("所用的规则", "rules that use it")], rows),
        ]

    def _assess(self) -> list[Block]:
        say = self.say
        return [
            Heading(2, say("三、保护影响评估", "3. Impact assessment")),
            Heading(3, say("须评估的情形(第五十五条)", "Why an assessment is needed (article 55)")),
            Grid([say("情形", "case"), say("依据申明", "by what is declared")], self._list_grounds()),
            Heading(
                3,
                say(
                    "(一)目的、方式是否合法、正当、必要",
                    "(1) Whether purpose and means are lawful, legitimate and necessary",
                ),
            ),
            Paragraph(self._count_grounds()),
            Heading(3, say("(二)对个人权益的影响", "(2) Effect on people's rights and interests")),
            Paragraph(say("策略向本人告知的后果:", "The consequences that the policy tells people:")),
            Grid(
                [say("代码", "code"), say("后果", "consequence"), say("说明", "explanation"), say("依据", "basis")],
                [
                    [one.code, self.read(one.title), self.read(one.explanation), self._name_basis(one.basis)]
                    for one in self._report.effects_on_people
                ],
            ),
            Heading(3, say("(三)保护措施", "(3) Measures of protection")),
            *self._list_measures(),
            Paragraph(
                say(
                    "措施是否与风险程度相适应,须由个人信息处理者判断;本报告只列出已申明的事实。",
                    "Whether they suit the risk is for the handler to judge; this report lists what is declared.",
                )
            ),
        ]

    def _name_basis(self, basis: str) -> str | None:
        return self.say("平台规则", "a rule of the platform") if basis == "platform" else self.either(basis)

    def _list_grounds(self) -> list[list[str | None]]:
        report, say = self._report, self.say
        tables = [f"{each.entry.owner}.{each.entry.table}" for each in report.sensitive]
        remote = [party.owner for party in report.parties if party.remote and party.sent]
        return [
            [say("处理敏感个人信息", "sensitive personal information"), ", ".join(dict.fromkeys(tables)) or None],
            [
                say("利用个人信息进行自动化决策", "automated decisions"),
                say(
                    f"是:{report.blocking} 条规则自动阻止申请",
                    f"yes: {report.blocking} rules block a case by themselves",
                ),
            ],
            [
                say("委托处理、向他人提供、公开", "entrusted, provided to others, or made public"),
                self.read(report.handler.entrusted)
                or (
                    say(f"发送给远程参与方:{'、'.join(remote)}", f"sent to remote participants: {', '.join(remote)}")
                    if remote
                    else None
                ),
            ],
            [say("向境外提供", "provided abroad"), self.read(report.handler.abroad)],
            [say("其他对个人权益有重大影响的活动", "other processing of great effect on people"), None],
        ]

    def _count_grounds(self) -> str:
        entries = [each.entry for party in self._report.parties for each in party.tables]
        whole, purposes = len(entries), sum(entry.purpose is not None for entry in entries)
        bases = sum(entry.basis is not None for entry in entries)
        return self.say(
            f"记录中的 {whole} 项,{purposes} 项已申明目的,{bases} 项已申明合法性基础;其余见文末。",
            f"Of {whole} entries of the record {purposes} declare a purpose and {bases} a legal basis; the others are "
            "listed at the end.",
        )

    def _list_measures(self) -> list[Block]:
        found = [
            f"{each.entry.owner}.{each.entry.table}: {self.read(each.entry.what)}: {self.read(each.entry.protection)}"
            for party in self._report.parties
            for each in party.tables
            if each.entry.protection is not None
        ]
        return [Points(found)] if found else [Paragraph(self.say("未申明任何措施。", "None is declared."))]

    def _list_open(self) -> list[Block]:
        say, by_place = self.say, dict[str, list[str]]()
        for point in self._report.open_points:
            by_place.setdefault(point.where, []).append(say(point.what.zh, point.what.en))
        handler = by_place.pop("handler", [])
        places = [(say("个人信息处理者", "handler"), handler)] if handler else []
        places += list(by_place.items())
        rows = [[where, say(";", "; ").join(what)] for where, what in places]
        head = Heading(2, say("四、未申明的事项", "4. Open points"))
        if not rows:
            return [head, Paragraph(say("无。", "None."))]
        return [
            head,
            Paragraph(
                say(
                    "以下事项尚无人申明,须由个人信息处理者补齐(--declarations)。",
                    "Nobody has declared these; the handler must complete them (--declarations).",
                )
            ),
            Grid([say("何处", "where"), say("尚缺", "what is missing")], rows),
        ]


def build_document(report: ProcessingReport, language: Language) -> list[Block]:
    """Return the report as blocks in one language."""
    return _Writer(report, language).write()
