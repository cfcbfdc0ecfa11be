"""Writes docs/pack-reference.md: every key of a pack, the language of conditions, every fact, and every operation.

Run `python docs/write_pack_reference.py`; a test fails when the page is older than the schema (`policy/shape.py`), the
language (`policy/condition.py`) or the participants' declarations, and writing fails where a key has no words here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import inspect as types

from jiebang.model.case import Kind
from jiebang.model.check import Severity, Text
from jiebang.model.facts import FactType
from jiebang.model.promises import EFFECT, KEEPER_TYPES, PLATFORM_KEEPERS
from jiebang.participants import PARTICIPANTS
from jiebang.policy import condition
from jiebang.policy.calendar import NEXT_YEAR, NOW, TODAY, full_years, local_dates
from jiebang.policy.devices import DeviceRule
from jiebang.policy.pack import REMEDIES
from jiebang.policy.shape import PackShape, Unit

_PAGE: Final = Path(__file__).with_name("pack-reference.md")

_WORDS: Final[Any] = yaml.safe_load(Path(__file__).with_name("pack-reference.words.yaml").read_text("utf-8"))


def page() -> str:
    """Return the page. Raises KeyError for a key of the schema without words, ValueError for words without a key."""
    heads = (
        "participant 参与方",
        "operation 操作",
        "effects 效果",
        "a case must bring 申请须带来",
        "refused with 拒绝代码",
    )
    parts = [
        "# Reference of policy packs 策略包参考",
        _prose("above"),
        "## Keys 字段",
        _prose("keys"),
        *_keys(),
        "## Words that keys take 字段的取值",
        *_words(),
        "## Conditions 条件",
        _prose("conditions"),
        _table(("form 形式", "中文", "English"), _forms()),
        "## Facts 事实",
        _prose("facts"),
        *_facts(),
        "### Days 日期",
        _prose("days"),
        _table(("name 名称", "type 类型", "meaning 含义"), _days()),
        "## Operations and effects 操作与效果",
        _table(heads, _operations()),
        "## What keeps a consequence 由何兑现",
        _prose("keepers"),
        _table(("type 方式", "meaning 含义", "names 名称"), _keepers()),
    ]
    return "\n\n".join(parts) + "\n"


def _prose(name: str) -> str:
    return f"{_WORDS['prose'][name]['en']}\n\n{_WORDS['prose'][name]['zh']}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    shown = [list(heads)]
    lines = [shown[0], ["---"] * len(shown[0]), *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") or "—" for cell in line) + " |" for line in lines)


def _structs(kind: types.Type, found: dict[str, types.StructType]) -> dict[str, types.StructType]:
    """Return every struct of ours within a type, by the name of its class."""
    if isinstance(kind, types.StructType):
        if kind.cls is Text or kind.cls.__name__ in found:
            return found
        found[kind.cls.__name__] = kind
        within: list[Any] = [field.type for field in kind.fields]
    elif isinstance(kind, types.UnionType):
        within = list(kind.types)
    elif isinstance(kind, types.DictType):
        within = [kind.value_type]
    elif isinstance(kind, types.VarTupleType | types.ListType):
        within = [kind.item_type]
    else:
        within = []
    for each in within:
        _structs(each, found)
    return found


def _keys() -> Iterator[str]:
    found = _structs(types.type_info(PackShape), {})
    if unknown := _WORDS["keys"].keys() - found.keys():
        raise ValueError(f"not in the schema: {', '.join(sorted(unknown))}")
    for name, heading in _WORDS["parts"].items():
        struct, words, above = found[name], _WORDS["keys"][name], set[str]()
        if name == "RuleShape":
            above = set(_WORDS["keys"]["RaisedShape"])
        keys = [field for field in struct.fields if field.encode_name not in above]
        if unknown := words.keys() - {field.encode_name for field in keys}:
            raise ValueError(f"{name} has no key {', '.join(sorted(unknown))}")
        yield f"### {heading}"
        yield _table(
            ("key 字段", "type 类型", "中文", "English"),
            (
                (
                    f"`{field.encode_name}`{'' if field.required else ' *'}",
                    _type(field.type),
                    words[field.encode_name]["zh"],
                    words[field.encode_name]["en"],
                )
                for field in keys
            ),
        )
    if missing := found.keys() - _WORDS["parts"].keys():
        raise KeyError(f"no part of the page: {', '.join(sorted(missing))}")


def _type(kind: types.Type) -> str:
    """Return what a key takes, in few words."""
    told = "string 字符串"
    match kind:
        case types.StructType():
            told = "text 文本" if kind.cls is Text else "keys 字段"
        case types.UnionType():
            told = " / ".join(_type(each) for each in kind.types if not isinstance(each, types.NoneType))
        case types.DictType():
            told = f"by name 按名称: {_type(kind.value_type)}"
        case types.VarTupleType() | types.ListType():
            told = f"list 列表: {_type(kind.item_type)}"
        case types.EnumType():
            told = f"`{kind.cls.__name__.removesuffix('Rule').lower()}`"
        case types.IntType():
            told = (
                "number 整数"
                + ("" if kind.ge is None else f" ≥ {kind.ge}")
                + ("" if kind.le is None else f", ≤ {kind.le}")
            )
        case types.BoolType():
            told = "true / false 真假"
        case types.StrType() if kind.pattern:
            told = f"`{kind.pattern}`"
        case _:
            pass
    return told


def _forms() -> Iterator[tuple[str, str, str]]:
    """Return every form of the language with its words. Raises ValueError where these are not those of the code."""
    known = [node.__name__ for node in condition._NODES]  # noqa: SLF001 - the language is this table
    if differing := _WORDS["forms"].keys() ^ set(known):
        raise ValueError(f"the forms of the language differ: {', '.join(sorted(differing))}")
    for form in (_WORDS["forms"][name] for name in known):
        yield f"`{form['form']}`", form["zh"], form["en"]


def _words() -> Iterator[str]:
    rows = (
        ("`kind`", ", ".join(f"`{each}`" for each in Kind)),
        ("`severity`", ", ".join(f"`{each}`" for each in Severity)),
        ("`unit`", ", ".join(f"`{each}`" for each in Unit)),
        ("`device`", ", ".join(f"`{each}`" for each in DeviceRule)),
        ("`remedies`", ", ".join(f"`{each}`" for each in REMEDIES)),
    )
    yield _table(("key 字段", "values 取值"), rows)


def _facts() -> Iterator[str]:
    for owner, names in PARTICIPANTS.owned.items():
        yield f"### {_WORDS['owners'].get(owner, f'`{owner}`')}"
        specs = [PARTICIPANTS.facts[name] for name in names]
        fields = {one.name: ", ".join(f"`{name}` {kind}" for name, kind in one.fields.items()) for one in specs}
        yield _table(
            ("fact 事实", "type 类型", "中文", "English"),
            (
                (
                    f"`{spec.name}`",
                    f"`{spec.type}`: {fields[spec.name]}" if spec.fields else f"`{spec.type}`",
                    spec.zh,
                    spec.en,
                )
                for spec in specs
            ),
        )


def _days() -> Iterator[tuple[str, str, str]]:
    yield f"`{NOW}`", f"`{FactType.TIME}`", "the time of the check 检查的时刻"
    yield f"`{TODAY}`", f"`{FactType.DATE}`", "its day 当日"
    yield f"`{NEXT_YEAR}`", f"`{FactType.DATE}`", "the first day of the next year 次年第一天"
    for name, fact in local_dates(PARTICIPANTS).items():
        yield f"`{name}`", f"`{FactType.DATE}`", f"the day of `{fact}` 的日期"
    for name, fact in full_years(PARTICIPANTS).items():
        yield f"`{name}`", f"`{FactType.INT}`", f"full years since `{fact}` 至今的周年数"


def _operations() -> Iterator[tuple[str, str, str, str, str]]:
    for declared in PARTICIPANTS.declarations:
        for name, operation in declared.operations.items():
            if operation.effects is None:
                effects = "any: sent to it as written 任意,原样发送"
            else:
                effects = ", ".join(f"`{each}` ({kind.kind.__name__})" for each, kind in operation.effects.items())
            given = ", ".join(f"`{each}` ({kind.kind.__name__})" for each, kind in operation.given.items())
            refusals = ", ".join(
                f"`{each}`" for each in dict.fromkeys([*operation.refusals, operation.missing]) if each
            )
            yield ", ".join(f"`{each}`" for each in declared.names), f"`{name}`", effects, given, refusals


def _keepers() -> Iterator[tuple[str, str, str]]:
    for kind, words in KEEPER_TYPES.items():
        names = [
            f"`{declared.owner}.{name}`"
            for declared in PARTICIPANTS.declarations
            for name in declared.probes.get(kind, {})
        ]
        remote = [f"`{declared.owner}.…`" for declared in PARTICIPANTS.declarations if not declared.databases]
        ours = PLATFORM_KEEPERS.get(kind, frozenset())
        own = [f"`{name}`" for name in ours] if ours is not None else ["the pack's `messages` 本策略包的 `messages`"]
        yield f"`{kind}`", f"{words.en} {words.zh}", ", ".join(names + own + (remote if kind == EFFECT else []))


if __name__ == "__main__":
    _PAGE.write_text(page(), encoding="utf-8")
