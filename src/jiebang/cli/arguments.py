"""Parses what a person types: account numbers, case ids, files of packs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jiebang.cli.runner import exit_on_error
from jiebang.model.check import Text
from jiebang.model.errors import InvalidInputError, UnknownCaseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jiebang.model.case import Key
    from jiebang.model.ids import CaseIds

_READ_LIMIT: Final = 1 << 21
_UNREADABLE: Final[Mapping[type[OSError], tuple[str, str]]] = {
    FileNotFoundError: ("没有这个文件", "there is no such file"),
    IsADirectoryError: ("这是一个目录,不是文件", "it is a folder, no file"),
    PermissionError: ("您无权读取", "you may not read it"),
}


def account_number(text: str, *, as_json: bool) -> int:
    """Return the account number typed; anything else is refused before any server is started: prints and exits."""
    from jiebang.model.ids import account_of

    with exit_on_error(as_json=as_json):
        account = account_of(text)
        if account is None:
            reason = Text("应为 1 至 16 位数字,不以 0 开头", "must be a number of 1 to 16 digits, not starting with 0")
            raise InvalidInputError(field="account", reason=reason)
        return account


def case_key(case_ids: CaseIds, public_id: str) -> Key:
    """Return the key of a public case id. Raises UnknownCaseError for one that cannot be decoded."""
    key = case_ids.decode(public_id)
    if key is None:
        raise UnknownCaseError(case=public_id)
    return key


def pack_file(path: Path, *, as_json: bool) -> tuple[str, str]:
    """Return the text and name of a pack's file; one that cannot be read is refused before anything is started."""
    with exit_on_error(as_json=as_json):
        try:
            if path.stat().st_size > _READ_LIMIT:
                raise InvalidInputError(field=str(path), reason=Text("文件过大", "the file is too large"))
            return path.read_text(encoding="utf-8-sig"), path.name
        except OSError as error:
            zh, en = _UNREADABLE.get(type(error), ("无法读取", "it cannot be read"))
            reason = Text(zh, en)
            raise InvalidInputError(field=str(path), reason=reason) from error
        except UnicodeDecodeError as error:
            reason = Text("不是 UTF-8 文本", "it is not text in UTF-8")
            raise InvalidInputError(field=str(path), reason=reason) from error
