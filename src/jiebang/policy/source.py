"""Read YAML strictly: all mistakes at once, each with line and column, in both languages.

The shape of a document is declared as msgspec structs; `read` walks the YAML nodes, which have line and column, along
the structs' types. Anchors, aliases, tags and repeated keys are refused: people must be able to read a pack literally.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
import yaml
from msgspec import inspect as types

from jiebang.model.plain import find_acting

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

T = TypeVar("T")

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH_LIMIT: Final = 20
_SHOWN: Final = 40
_BYTE_ORDER_MARK: Final = "\ufeff"
_SIZE_LIMIT: Final = 1 << 20
_TAG: Final = "tag:yaml.org,2002:"

Path = tuple[str | int, ...]


class PackProblem(msgspec.Struct, frozen=True, order=True):
    """One mistake: its file, line and column (from 1), and what is wrong."""

    file: str
    line: int
    column: int
    zh: str
    en: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.zh} / {self.en}"


class Source:
    """One YAML document, with the place of every value and the problems found so far.

    `shortfalls`: problems that keep it from being admitted now, though an earlier version may have admitted it.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.text = text
        self.lines = text.split("\n")
        self.problems: list[PackProblem] = []
        self.shortfalls: list[PackProblem] = []
        self.nodes: dict[Path, yaml.Node] = {}

    def read(self, shape: type[T]) -> T | None:
        """Read the document as the struct `shape`; None, with `problems` filled, where there are any."""
        root = self._compose()
        if root is None:
            return None
        value = self._value(root, _shape_of(cast("Hashable", shape)), ())
        return None if self.problems else msgspec.convert(value, shape)

    def problem(self, path: Path, zh: str, en: str, token: str = "", before: str = "") -> None:
        """Note a problem at `path`; `token` narrows it to that word, after the text `before`, inside the value."""
        node = self._find_node(path)
        line, column = (node.start_mark.line, node.start_mark.column) if node is not None else (0, 0)
        if node is not None and token:
            line, column = self._token(node, token, sum(1 for _ in _occurrences(before, token, 0)))
        self._note(line, column, zh, en)

    def shortfall(self, path: Path, zh: str, en: str) -> None:
        """Note at `path` that the document falls short of what is admitted now."""
        node = self._find_node(path)
        line, column = (node.start_mark.line, node.start_mark.column) if node is not None else (0, 0)
        self.shortfalls.append(PackProblem(self.file, line + 1, column + 1, zh, en))

    def _find_node(self, path: Path) -> yaml.Node | None:
        """Return the node at `path`, else the nearest around it."""
        while path and path not in self.nodes:
            path = path[:-1]
        return self.nodes.get(path)

    def _note_at(self, mark: Any, zh: str, en: str) -> None:
        """Note a problem at a mark; Any, because the C and the Python parser each have their own class of marks."""
        self._note(mark.line if mark else 0, mark.column if mark else 0, zh, en)

    def _note(self, line: int, column: int, zh: str, en: str) -> None:
        self.problems.append(PackProblem(self.file, line + 1, column + 1, zh, en))

    def _token(self, node: yaml.Node, token: str, nth: int) -> tuple[int, int]:
        """Find the `nth` occurrence of a word in the raw text of a node, in any YAML style."""
        first, last = node.start_mark, node.end_mark
        for line in range(first.line, min(last.line, len(self.lines) - 1) + 1):
            start = first.column if line == first.line else 0
            stop = last.column if line == last.line else len(self.lines[line])
            for found in _occurrences(self.lines[line][:stop], token, start):
                if nth == 0:
                    return line, found
                nth -= 1
        return first.line, first.column

    def _compose(self) -> yaml.Node | None:
        if len(self.text) > _SIZE_LIMIT:
            self._note(0, 0, "文件超过 1 MiB", "the file is over 1 MiB")
            return None
        odd = yaml.reader.Reader.NON_PRINTABLE.search(self.text)
        if odd:
            before = self.text[: odd.start()]
            line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
            self._note(line, column, "含有 YAML 不允许的字符", "holds a character that YAML does not allow")
            return None
        acting = find_acting(self.text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n"))
        if acting is not None:
            self._note_acting(acting)
            return None
        try:
            root = yaml.compose(self.text, _LOADER) if self._check_events() else None
        except yaml.MarkedYAMLError as failed:
            what = failed.problem or failed.context or "unreadable"
            mark = failed.problem_mark or failed.context_mark
            self._note_at(mark, f"不是有效的 YAML:{what}", f"not valid YAML: {what}")
            return None
        if root is None and not self.problems:
            self._note(0, 0, "文件为空", "the file is empty")
        return root

    def _note_acting(self, acting: str) -> None:
        """Note a character that would make an approver read something else than what is stored."""
        before = self.text[: self.text.find(chr(int(acting.removeprefix("U+"), base=16)), len(_BYTE_ORDER_MARK))]
        self._note(
            before.count("\n"),
            len(before) - before.rfind("\n") - 1,
            f"含有控制字符 {acting},会使看到的与实际内容不同",
            f"holds the control character {acting}, which makes text look otherwise than it is",
        )

    def _check_events(self) -> bool:
        """Check the events before building a tree: no anchors, aliases, tags, or depth that exhausts the stack.

        Nor may a text hold an acting character that it writes as an escape.
        """
        depth = 0
        for event in yaml.parse(self.text, _LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                self._note_at(
                    event.start_mark, "不允许使用锚点、别名与标签", "anchors, aliases and tags are not allowed"
                )
                return False
            acting = find_acting(event.value) if isinstance(event, yaml.ScalarEvent) else None
            if acting is not None:
                self._note_at(
                    event.start_mark,
                    f"含有控制字符 {acting},会使看到的与实际内容不同",
                    f"holds the control character {acting}, which makes text look otherwise than it is",
                )
                return False
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_LIMIT:
                self._note_at(event.start_mark, "嵌套过深", "nested too deeply")
                return False
        return True

    # The walk. Each method returns the plain value, or None after noting a problem.

    def _value(self, node: yaml.Node, shape: types.Type, path: Path) -> Any:
        self.nodes[path] = node
        if isinstance(shape, types.UnionType) and shape.includes_none:
            present = tuple(one for one in shape.types if not isinstance(one, types.NoneType))
            shape = present[0] if len(present) == 1 else types.UnionType(present)
        match shape:
            case types.StructType():
                return self._struct(node, shape, path)
            case types.DictType():
                return self._mapping(node, shape, path)
            case types.VarTupleType():
                return self._list(node, shape, path)
            case _:
                return self._leaf(node, shape, path)

    def _pairs(self, node: yaml.Node, path: Path) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        seen: set[str] = set()
        if not isinstance(node, yaml.MappingNode):
            self.problem(path, "此处应为若干“键：值”", "a mapping of keys to values must stand here")
            return
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str) or key.tag not in (_TAG + "str", _TAG + "bool", _TAG + "null"):
                self._note_at(key.start_mark, "键应为文本", "a key must be text")
            elif name in seen:
                self._note_at(key.start_mark, f"键“{name}”重复", f"the key '{name}' is repeated")
            else:
                seen.add(name)
                yield name, key, value

    def _struct(self, node: yaml.Node, shape: types.StructType, path: Path) -> dict[str, Any] | None:
        fields = _fields(shape.cls)
        value: dict[str, Any] = {}
        for name, key, inner in self._pairs(node, path):
            if name in fields:
                value[name] = self._value(inner, fields[name].type, (*path, name))
            else:
                known = ", ".join(fields)
                self._note_at(
                    key.start_mark,
                    f"未知的键“{name}”；可用：{known}",
                    f"unknown key '{name}'; known are {known}",
                )
        if isinstance(node, yaml.MappingNode):
            for name, field in fields.items():
                if field.required and name not in value and not any(key.value == name for key, _ in node.value):
                    self.problem(path, f"缺少“{name}”", f"'{name}' is missing")
        return value

    def _mapping(self, node: yaml.Node, shape: types.DictType, path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, key, inner in self._pairs(node, path):
            self.nodes[(*path, name)] = inner
            if not _fits(name, shape.key_type):
                zh, en = _describe_expected(shape.key_type)
                self._note_at(
                    key.start_mark,
                    f"键“{name}”不符合要求：应为{zh}",
                    f"the key '{name}' does not fit: it must be {en}",
                )
            value[name] = self._value(inner, shape.value_type, (*path, name))
        return value

    def _list(self, node: yaml.Node, shape: types.VarTupleType, path: Path) -> list[Any] | None:
        if not isinstance(node, yaml.SequenceNode):
            self.problem(path, "此处应为列表", "a list must stand here")
            return None
        if len(node.value) < (shape.min_length or 0):
            self.problem(path, "列表不能为空", "the list must not be empty")
        return [self._value(inner, shape.item_type, (*path, at)) for at, inner in enumerate(node.value)]

    def _leaf(self, node: yaml.Node, shape: types.Type, path: Path) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            zh, en = _describe_expected(shape)
            self.problem(path, f"此处应为{zh}", f"{en} must stand here")
            return None
        value = _scalar(node)
        if not _fits(value, shape):
            zh, en = _describe_expected(shape)
            shown = node.value if len(node.value) <= _SHOWN else node.value[:_SHOWN] + "…"
            self.problem(path, f"“{shown}”不符合要求：应为{zh}", f"'{shown}' does not fit: it must be {en}")
        elif isinstance(value, str) and not value.strip():
            self.problem(path, "文本不能为空", "the text must not be empty")
        return value


@cache
def _shape_of(struct: Hashable) -> types.Type:
    """Return msgspec's type information, cached: computing it takes longer than reading a small pack."""
    return types.type_info(struct)


@cache
def _fields(struct: type) -> dict[str, types.Field]:
    """Return the fields of a struct, by the name they have in YAML."""
    shape = cast("types.StructType", _shape_of(struct))
    return {field.encode_name: field for field in shape.fields}


def _scalar(node: yaml.ScalarNode) -> int | bool | str | None:
    """Resolve a scalar: whole numbers, true, false, and text. YAML 1.1's yes, on, octals and dates are text."""
    if node.tag == _TAG + "int" and re.fullmatch(r"-?(0|[1-9][0-9]*)", node.value):
        return int(node.value)
    if node.tag == _TAG + "bool" and node.value in ("true", "false"):
        return bool(node.value == "true")
    return None if node.tag in (_TAG + "null", _TAG + "float") else str(node.value)


def _fits(value: int | bool | str | None, shape: types.Type) -> bool:
    """Whether a scalar is of a leaf's type and within its limits."""
    match shape:
        case types.StrType(pattern=pattern, max_length=most):
            return (
                isinstance(value, str)
                and (pattern is None or re.search(pattern, value) is not None)
                and (most is None or len(value) <= most)
            )
        case types.IntType(ge=least, le=most):
            return (
                isinstance(value, int)
                and not isinstance(value, bool)
                and (least is None or value >= least)
                and (most is None or value <= most)
            )
        case types.BoolType():
            return isinstance(value, bool)
        case types.EnumType(cls=cls):
            return value in [member.value for member in cls]
        case types.UnionType():
            return any(_fits(value, one) for one in shape.types)
        case _:
            raise TypeError(shape)


def _describe_expected(shape: types.Type) -> tuple[str, str]:  # noqa: PLR0911 - a table of shapes, one line each
    """Describe what a leaf must be, in Chinese and English."""
    match shape:
        case types.StrType(pattern=str(pattern)):
            return f"符合 {pattern} 的文本", f"text like {pattern}"
        case types.StrType(max_length=int(most)):
            return f"至多 {most} 字的文本", f"text of at most {most} characters"
        case types.StrType():
            return "文本", "text"
        case types.IntType(ge=least, le=most):
            span = f" {least if least is not None else ''}..{most if most is not None else ''}"
            return f"整数{span}", f"a whole number{span}"
        case types.BoolType():
            return "true 或 false", "true or false"
        case types.EnumType(cls=cls):
            known = ", ".join(str(member.value) for member in cls)
            return f"以下之一：{known}", f"one of {known}"
        case types.UnionType():
            parts = [_describe_expected(one) for one in shape.types]
            return "或".join(part[0] for part in parts), " or ".join(part[1] for part in parts)
        case _:
            raise TypeError(shape)


def _occurrences(line: str, token: str, start: int) -> Iterator[int]:
    """Yield the columns of whole-word occurrences of `token` in `line` from `start`."""
    before = r"(?<![A-Za-z0-9_])" if token[:1].isalnum() else ""
    after = r"(?![A-Za-z0-9_])" if token[-1:].isalnum() else ""
    return (found.start() for found in re.compile(before + re.escape(token) + after).finditer(line, start))
