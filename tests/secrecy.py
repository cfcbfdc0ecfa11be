"""Looks for secrets in every error and every line of a log that the suite brings about.

Secrets are learned where they are first read: keys of installations, passwords of databases and of embedded servers,
private keys of links, tokens. Codes and payment passwords have six digits, which numbers in a log have by chance: tests
of their own look for those.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import structlog
from typer.testing import CliRunner

from jiebang import keys
from jiebang.model.errors import JiebangError
from jiebang.remote import signing
from jiebang.sandbox.issuer import SandboxIssuer
from jiebang.sandbox.processes import SandboxProcess
from jiebang.settings import _SettingsReader
from jiebang.store.postgres.data_directory import Home

_SHORTEST = 6


class SecretWatch:
    """What is secret by now, and where it was seen."""

    def __init__(self) -> None:
        self._secrets = dict[str, str]()
        self.leaks = list[str]()

    def learn(self, secret: str | bytes, what: str) -> None:
        """Take something as secret, in every form in which it could be written."""
        if isinstance(secret, str):
            forms = [secret]
        else:
            forms = [secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1]]
        forms += [json.dumps(form)[1:-1] for form in forms]
        for form in forms:
            if len(form) >= _SHORTEST:
                self._secrets[form] = what

    def look(self, text: str, where: str) -> None:
        """Note which secrets a text holds."""
        self.leaks += [f"{what} in {where}" for form, what in self._secrets.items() if form in text]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Learn secrets where they are read, and look wherever errors and log lines come by."""
        self._install_sources(patch)
        self._install_exits(patch)

    def _install_sources(self, patch: pytest.MonkeyPatch) -> None:
        read_key, password = keys._read_key, vars(Home)["password"].fget
        databases, build_signer, sign = _SettingsReader._read_databases, signing._build_signer, SandboxIssuer._mint

        def learn_key(folder: Any, name: str) -> bytes:
            found = read_key(folder, name)
            self.learn(found, f"{name}.key")
            return found

        def learn_password(home: Home) -> str:
            found = str(password(home))
            self.learn(found, "an embedded server's password")
            return found

        def learn_databases(reader: Any, raw: object) -> dict[str, str]:
            for dsn in raw.values() if isinstance(raw, dict) else ():
                try:
                    self.learn(unquote(urlsplit(str(dsn)).password or ""), "a database's password")
                except ValueError:
                    continue
            return databases(reader, raw)

        def learn_link(key_id: str, pem: bytes) -> Any:
            self.learn("".join(pem.decode("ascii", "replace").split("-----")[2:3]).strip(), f"the private key {key_id}")
            return build_signer(key_id, pem)

        def learn_token(issuer: SandboxIssuer, *args: Any, **named: Any) -> str:
            found = sign(issuer, *args, **named)
            self.learn(found.rpartition(".")[2], "a token's signature")
            return found

        patch.setattr(keys, "_read_key", learn_key)
        patch.setattr(Home, "password", property(learn_password))
        patch.setattr(_SettingsReader, "_read_databases", learn_databases)
        patch.setattr(signing, "_build_signer", learn_link)
        patch.setattr(SandboxIssuer, "_mint", learn_token)

    def _install_exits(self, patch: pytest.MonkeyPatch) -> None:
        render, init, stop = structlog.processors.JSONRenderer.__call__, JiebangError.__init__, SandboxProcess.stop
        communicate, invoke = asyncio.subprocess.Process.communicate, CliRunner.invoke

        def look_at_line(renderer: Any, logger: Any, name: str, event: Any) -> str | bytes:
            line = render(renderer, logger, name, event)
            self.look(str(line), "a log line")
            return line

        def look_at_error(error: JiebangError, /, **fields: Any) -> None:
            init(error, **fields)
            self.look(repr(fields), f"the error {error.code}")

        async def look_at_log(process: SandboxProcess) -> None:
            await stop(process)
            if process._log.exists():
                self.look(process._log.read_text("utf-8", "replace"), f"the log of {process.name}")

        async def look_at_output(process: Any, data: bytes | None = None) -> tuple[bytes, bytes]:
            answered = await communicate(process, data)
            for part in answered:
                self.look((part or b"").decode("utf-8", "replace"), "what a command printed")
            return answered

        def look_at_command(runner: CliRunner, *args: Any, **named: Any) -> Any:
            ran = invoke(runner, *args, **named)
            self.look(ran.output, "what a command printed")
            return ran

        patches: dict[tuple[type, str], Callable[..., Any]] = {
            (structlog.processors.JSONRenderer, "__call__"): look_at_line,
            (JiebangError, "__init__"): look_at_error,
            (SandboxProcess, "stop"): look_at_log,
            (asyncio.subprocess.Process, "communicate"): look_at_output,
            (CliRunner, "invoke"): look_at_command,
        }
        for (owner, name), looks in patches.items():
            patch.setattr(owner, name, looks)
