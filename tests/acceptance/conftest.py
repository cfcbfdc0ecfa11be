"""What holds for all tests of whole processes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from jiebang.settings import HttpSettings


@pytest.fixture(scope="session", autouse=True)
def the_usual_port_is_taken() -> Iterator[None]:
    """Hold the product's usual port, as a running `make demo` does, so that no test can depend on finding it free."""
    with ExitStack() as held:
        with suppress(OSError):  # where a demo, or another session, holds it already
            held.enter_context(socket.create_server(("127.0.0.1", HttpSettings().port)))
        yield
