"""Describe the processing of personal data: the record and the impact assessment of PIPL, articles 55 and 56.

Everything in it follows from a policy pack, the declarations of participants and the tables that migrations make. What
nobody has declared is listed as open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.check import Severity, Text
from jiebang.model.facts import FactSpec
from jiebang.model.personal_data import DataHandler, HeldData
from jiebang.store.postgres.columns import list_columns
from jiebang.store.postgres.migrate import list_owners, load_migrations

if TYPE_CHECKING:
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.pack import Pack
    from jiebang.policy.wording import Wording

_PLATFORM: Final = Text("平台自己的数据库", "the platform's own store")
_NAMES: Final[Mapping[str, Text]] = {"platform": _PLATFORM, "keys": Text("数据密钥库", "the store of data keys")}


class RecordedTable(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the record: an entry as declared, with the columns it stands for and its period from the pack."""

    entry: HeldData
    columns: Sequence[str]
    period: Text | None
    period_source: str | None


class RecordedParty(msgspec.Struct, frozen=True, kw_only=True):
    """One participant in the record. `undeclared`: columns by table that no entry is about.

    `remote`: it is across the network, and what it holds is its own to declare; `sent`: what it is sent.
    """

    owner: str
    title: Text
    databases: Sequence[str]
    remote: bool
    tables: Sequence[RecordedTable]
    undeclared: Mapping[str, Sequence[str]]
    sent: Sequence[str] = ()


class UsedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that rules decide by, and the rules."""

    fact: FactSpec
    rules: Sequence[str]


class OpenPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Something that nobody has declared."""

    where: str
    what: Text


class AffectedPeople(msgspec.Struct, frozen=True, kw_only=True):
    """What a case does to a person, as the pack tells them; `basis` as the pack has it."""

    code: str
    title: Text
    explanation: Text
    basis: str


class ProcessingReport(msgspec.Struct, frozen=True, kw_only=True):
    """The record of processing and the assessment, as data."""

    pack: str
    pack_title: Text
    kinds: Sequence[Text]
    written_at: datetime
    handler: DataHandler
    parties: Sequence[RecordedParty]
    facts: Sequence[UsedFact]
    rules: int
    blocking: int
    appealable: int
    effects_on_people: Sequence[AffectedPeople]
    open_points: Sequence[OpenPoint]

    @property
    def sensitive(self) -> list[RecordedTable]:
        """The lines that are declared to hold sensitive personal information."""
        return [each for party in self.parties for each in party.tables if each.entry.sensitive]


def describe_processing(
    pack: Pack, registry: ParticipantRegistry, declared: Sequence[HeldData], handler: DataHandler, now: datetime
) -> ProcessingReport:
    """Return the report on an installation of `registry` under `pack`."""
    parties = [_record(owner, pack, registry, declared) for owner in sorted(list_owners(registry))]
    parties += [_record_remote(name, pack) for name in registry.networks]
    texts = [rule.words for rule in pack.rules]
    return ProcessingReport(
        pack=pack.id,
        pack_title=pack.title,
        kinds=[pack.kinds[kind] for kind in sorted(pack.plans)],
        written_at=now,
        handler=handler,
        parties=parties,
        facts=_list_facts(pack, registry),
        rules=len(pack.rules),
        blocking=sum(rule.severity is Severity.BLOCKS for rule in pack.rules),
        appealable=sum(bool(words.appeal.zh and words.appeal.en) for words in texts),
        effects_on_people=_list_effects(pack),
        open_points=[*_list_open_of_handler(handler), *(point for party in parties for point in _list_open(party))],
    )


def _record(owner: str, pack: Pack, registry: ParticipantRegistry, declared: Sequence[HeldData]) -> RecordedParty:
    tables = list_columns(load_migrations(owner, registry))
    entries = [entry for entry in declared if entry.owner == owner]
    named = {(entry.table, column) for entry in entries for column in entry.columns}
    recorded, told = list[RecordedTable](), set[tuple[str, str]]()
    for entry in entries:
        there = tables.get(entry.table, [])
        columns = [
            column
            for column in there
            if (column in entry.columns if entry.columns else (entry.table, column) not in named)
        ]
        told |= {(entry.table, column) for column in columns}
        recorded.append(_record_table(entry, columns, pack))
    undeclared = {
        table: [column for column in columns if (table, column) not in told] for table, columns in tables.items()
    }
    of = registry.of_owner(owner)
    return RecordedParty(
        owner=owner,
        title=pack.owners.get(owner) or _NAMES.get(owner) or Text(owner, owner),
        databases=(owner,) if of is None else tuple(of.databases),
        remote=False,
        tables=recorded,
        undeclared={table: columns for table, columns in undeclared.items() if columns},
    )


def _record_table(entry: HeldData, columns: Sequence[str], pack: Pack) -> RecordedTable:
    param = pack.params.get(entry.retention_param or "")
    if param is None:
        return RecordedTable(entry=entry, columns=columns, period=entry.retention, period_source=None)
    told = Text(f"{param.meaning.zh}:{param.value}", f"{param.meaning.en}: {param.value}")
    return RecordedTable(entry=entry, columns=columns, period=told, period_source=param.source)


def _record_remote(name: str, pack: Pack) -> RecordedParty:
    """Record what a remote participant is sent: account, case number, operation, and the effects of plans."""
    planned = [plan.operations[name] for plan in pack.plans.values() if name in plan.participants]
    effects = sorted({effect for one in planned for effect in one.effects})
    return RecordedParty(
        owner=name,
        title=pack.owners.get(name) or Text(name, name),
        databases=(),
        remote=True,
        tables=(),
        undeclared={},
        sent=["account", "case_no", "operation", *(f"effects.{effect}" for effect in effects)] if planned else (),
    )


def _list_facts(pack: Pack, registry: ParticipantRegistry) -> list[UsedFact]:
    used = dict[str, list[str]]()
    for rule in pack.rules:
        for name in rule.shown:
            used.setdefault(name, []).append(rule.code)
    return [
        UsedFact(fact=registry.facts[name], rules=codes)
        for name, codes in sorted(used.items())
        if name in registry.facts
    ]


def _list_effects(pack: Pack) -> list[AffectedPeople]:
    return [
        AffectedPeople(
            code=one.code,
            title=_tell(one.title, pack),
            explanation=_tell(one.explanation, pack),
            basis=one.legal_basis,
        )
        for one in pack.consequences
        if any(kind in pack.plans for kind in one.kinds)
    ]


def _tell(wording: Wording, pack: Pack) -> Text:
    """Return a text with the numbers of policy in their places; what differs from person to person is named."""
    return Text(
        *("".join(_tell_part(at, part, pack) for at, part in enumerate(parts)) for parts in (wording.zh, wording.en))
    )


def _tell_part(at: int, part: str, pack: Pack) -> str:
    if at % 2 == 0:
        return part
    param = pack.params.get(part)
    return f"‹{part}›" if param is None else str(param.value)


def _list_open_of_handler(handler: DataHandler) -> list[OpenPoint]:
    asked = (
        (handler.name, Text("个人信息处理者的名称", "the name of the personal information handler")),
        (handler.contact, Text("联系方式", "how to reach them")),
        (handler.abroad, Text("是否向境外提供", "whether anything is provided abroad")),
        (handler.entrusted, Text("委托处理与向他人提供", "who processes for them, and who else receives it")),
    )
    return [OpenPoint(where="handler", what=what) for said, what in asked if said is None]


def _list_open(party: RecordedParty) -> list[OpenPoint]:
    found = list[OpenPoint]()
    for each in party.tables:
        where = f"{party.owner}.{each.entry.table}" + (
            f" ({', '.join(each.entry.columns)})" if each.entry.columns else ""
        )
        asked = (
            (each.entry.purpose, Text("处理目的", "purpose")),
            (each.entry.basis, Text("合法性基础", "legal basis")),
            (each.period, Text("保存期限", "how long it is kept")),
            (each.entry.sensitive, Text("是否为敏感个人信息", "whether it is sensitive")),
            (each.entry.protection, Text("保护措施", "how it is protected")),
        )
        found += [OpenPoint(where=where, what=what) for said, what in asked if said is None]
    found += [
        OpenPoint(
            where=f"{party.owner}.{table}",
            what=Text(f"尚无说明的列:{'、'.join(columns)}", f"columns of which nothing is said: {', '.join(columns)}"),
        )
        for table, columns in party.undeclared.items()
    ]
    if party.remote:
        what = Text("该方所持有的内容,由其自行说明", "what it holds is its own to declare")
        found.append(OpenPoint(where=party.owner, what=what))
    return found
