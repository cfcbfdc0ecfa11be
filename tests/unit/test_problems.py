"""Errors at the edge: every error of ours has a status, both languages, and tells nothing it should not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from jiebang.api import problems
from jiebang.api.logs import configure_logs
from jiebang.model import errors
from jiebang.remote import tokens
from jiebang.remote.problem_details import prefers_english


def every(kind: type[errors.JiebangError]) -> Iterator[type[errors.JiebangError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


ALL = sorted(set(every(errors.JiebangError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_becomes_a_problem(kind: type[errors.JiebangError]) -> None:
    """Whoever adds an error gets a status by its branch of the tree, and both languages are there."""
    error = errors.JiebangError.__new__(kind)
    error.fields = {}
    if kind is errors.BlockedError:
        return  # carries a check; tested over real databases
    problem = problems.problem_of(error, None)
    assert 400 <= problem.status <= 599
    assert problem.zh.title != problem.en.title
    assert problem.zh.action
    assert problem.en.action
    if issubclass(kind, errors.CallerError | errors.PolicyRefusalError):
        assert problem.status < 500
    else:
        assert problem.status >= 500


def test_codes_are_told_apart() -> None:
    """A client that branches on `code` must not meet two meanings in one."""
    named = [kind for kind in ALL if "code" in vars(kind)]
    assert len({kind.code for kind in named}) == len(named)
    assert tokens.KeysUnavailableError in named


@given(st.text(max_size=400))
def test_any_accept_language_is_survived(header: str) -> None:
    """A header is the caller's: nothing in it may break the answer."""
    assert prefers_english(header) in (True, False)


@pytest.mark.parametrize(
    ("header", "english"),
    [
        (None, False), ("en", True), ("en-GB", True), ("zh", False), ("en,zh", False), ("zh;q=0.5,en;q=0.6", True),
        ("fr,en;q=0.1", True), ("en;q=0", False), ("*", False), ("EN-us;Q=0.9", True),
    ],
)  # fmt: skip
def test_language(header: str | None, *, english: bool) -> None:
    assert prefers_english(header) is english


def test_logs_withhold_what_is_personal() -> None:
    """Whoever logs a token, a code, an account or an error that quotes a row by mistake leaks nothing."""
    before, out = structlog.get_config(), io.StringIO()
    try:
        configure_logs(out)
        log = structlog.get_logger("jiebang.test")
        log.info("seen", token="secret-1", code="secret-2", account_id=77001, device="secret-3", cases=3)
        try:
            int("secret-4")
        except ValueError:
            log.exception("broken")
    finally:
        structlog.configure(**before)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["seen", "broken"]
    assert lines[0]["cases"] == 3
    assert lines[1]["error"] == "ValueError"
    assert lines[1]["places"][-1].startswith("test_problems.py:")
    assert "secret" not in out.getvalue()
    assert "77001" not in out.getvalue()
