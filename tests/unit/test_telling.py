"""Whatever ends a command is told in the person's language, with an exit code, and never as a stack trace."""

from __future__ import annotations

from io import StringIO

import msgspec
import pytest
import typer
from rich.console import Console

from jiebang.cli import language as cli_language
from jiebang.cli.runner import FAILED, WRONG, exit_on_error
from jiebang.cli.show import show_code
from jiebang.model.errors import InvalidInputError
from jiebang.policy.codes import explain
from tests.packs import pack


@pytest.mark.parametrize(
    ("raised", "code", "exits"),
    [
        (InvalidInputError(field="account", reason="?"), "INVALID-INPUT", WRONG),
        (ConnectionResetError("the database went away"), "PARTICIPANT-UNAVAILABLE", FAILED),
        (TimeoutError(), "PARTICIPANT-UNAVAILABLE", FAILED),
        (RuntimeError("secret 246810"), "INTERNAL", FAILED),
        (ExceptionGroup("loops", [ValueError("secret 246810")]), "INTERNAL", FAILED),
    ],
)
def test_every_end_of_a_command_is_told(
    raised: Exception, code: str, exits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stack trace helps nobody who asked for their name back, and shows what it must not."""
    with pytest.raises(typer.Exit) as ended, exit_on_error(as_json=True):
        raise raised
    told = capsys.readouterr().out
    error = msgspec.json.decode(told)["error"]
    assert (error["code"], ended.value.exit_code) == (code, exits)
    assert error["title"]["zh"]
    assert error["action"]["en"]
    assert "246810" not in told


@pytest.mark.parametrize(("chosen", "text"), [("zh", "系统内部错误"), ("en", "Something went wrong on our side")])
def test_what_nobody_expected_is_told_in_the_persons_language(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: str, text: str
) -> None:
    """Nor in one language alone; and its kind and place are there for whoever mends it."""
    monkeypatch.setattr(cli_language, "LANGUAGE", chosen)
    with pytest.raises(typer.Exit), exit_on_error(as_json=False):
        raise ZeroDivisionError
    told = capsys.readouterr().err
    assert text in told
    assert "ZeroDivisionError" in told
    assert "test_telling.py" in told


def test_the_person_leaving_is_no_error() -> None:
    """Ctrl-D at a question and a command's own exit code must pass untouched."""
    with pytest.raises(typer.Abort), exit_on_error(as_json=False):
        raise typer.Abort
    with pytest.raises(typer.Exit) as ended, exit_on_error(as_json=False):
        raise typer.Exit(7)
    assert ended.value.exit_code == 7


@pytest.mark.parametrize(
    ("language", "code", "basis"),
    [
        ("zh", "ID-NONE", "依据: 平台规则, wechat/2"),
        ("en", "PAY-BALANCE", "Source: A§一, platform policy, wechat/2"),
        ("zh", "LEGAL-HOLD", "依据: 反电信网络诈骗法第三十二条, wechat/2"),
        ("en", "LEGAL-HOLD", "Source: Anti-Telecom-Fraud Law art. 32, wechat/2"),
    ],
)
def test_the_basis_of_a_rule_is_told_in_the_persons_language(
    monkeypatch: pytest.MonkeyPatch, language: str, code: str, basis: str
) -> None:
    """What a pack writes, "—, platform", for the pack alone: it tells a person nothing."""
    monkeypatch.setattr(cli_language, "LANGUAGE", language)
    screen = Console(width=200, record=True, file=StringIO())
    show_code(screen, code, explain(pack("wechat"), code))
    assert basis in screen.export_text()
