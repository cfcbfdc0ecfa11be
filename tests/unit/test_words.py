"""The language of the command line follows the person's locale."""

from __future__ import annotations

import pytest

from jiebang.cli import language as cli_language
from jiebang.cli.language import language, read, say
from jiebang.model.check import Text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "ZH_tw"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "zha_CN"}, "en"),  # Zhuang is another language
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),  # an empty variable counts as absent
    ],
)
def test_the_locale_decides(environment: dict[str, str], expected: str) -> None:
    """Whoever set one language must not be answered in the other."""
    assert language(environment) == expected


@pytest.mark.parametrize(("chosen", "text"), [("zh", "已完成"), ("en", "done")])
def test_a_text_is_said_in_the_language_chosen(monkeypatch: pytest.MonkeyPatch, chosen: str, text: str) -> None:
    """Both helpers must choose alike."""
    monkeypatch.setattr(cli_language, "LANGUAGE", chosen)
    assert say("已完成", "done") == text
    assert read(Text("已完成", "done")) == text
