"""The watch over errors and logs of the whole suite does find what it looks for."""

from __future__ import annotations

from pathlib import Path

import structlog

from jiebang.keys import make_keys, read_keys
from jiebang.model.errors import HomeUnusableError
from tests.secrecy import SecretWatch


def test_a_secret_in_an_error_or_a_log_line_is_found(tmp_path: Path, secret_watch: SecretWatch) -> None:
    """A watch that sees nothing would let every leak pass, for ever."""
    make_keys(tmp_path)
    keys = read_keys(tmp_path)
    assert not secret_watch.leaks
    HomeUnusableError(path=keys.master.hex())
    structlog.get_logger().warning("said", what=repr(keys.passwords))
    found, secret_watch.leaks = secret_watch.leaks, []
    assert found == ["master.key in the error HOME-UNUSABLE", "passwords.key in a log line"]
