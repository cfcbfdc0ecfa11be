"""The verifier of identity documents as a process of its own: what a public register would say.

`python -m jiebang.sandbox.verifier --data FILE --keys FOLDER`. It plays a register in which every number that can have
been issued is somebody's: the first name told of a number is its holder's, and any other name is not confirmed. It
keeps hashes alone. Faults can be switched on while it runs (`PUT /sandbox/faults`): slow, silent, lying, answering
twice, contradicting itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from contextlib import nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.verification import DocumentAnswer, DocumentAnswers, DocumentQuestions, VerificationOutcome
from jiebang.remote.link_keys import read_other_end
from jiebang.remote.signing import Responder
from jiebang.remote.verifier import VERIFIER
from jiebang.remote.wire import parse
from jiebang.sandbox.service import Arguments, HttpAnswer, HttpCall, Service, ok, serve

if TYPE_CHECKING:
    from pathlib import Path

    from jiebang.model.verification import DocumentQuestion

_LEVEL: Final = 2
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS holder (document BLOB PRIMARY KEY, name BLOB NOT NULL) WITHOUT ROWID"


class VerifierFaultKind(StrEnum):
    """What a verifier may do wrong."""

    SLOW = "slow"
    SILENT = "silent"
    LIE = "lie"
    """It answers another question, and confirms."""
    TWICE = "twice"
    CONTRADICT = "contradict"


class VerifierFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault switched on. `ms`: how slow. `count`: how many requests it hits (None: all)."""

    kind: VerifierFaultKind
    ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    count: Annotated[int, Meta(ge=1)] | None = None


class VerifierFaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /sandbox/faults`: all faults from now on; an empty list switches all off."""

    faults: Annotated[tuple[VerifierFault, ...], Meta(max_length=20)]


class Register:
    """Who holds which document, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it where it is missing. Raises sqlite3.Error."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute(_SCHEMA)

    def holds(self, question: DocumentQuestion) -> bool:
        """Return whether the document is the person's; the first name told of a document is its holder's."""
        document = _hash(question.document_type, question.number)
        self._db.execute("INSERT OR IGNORE INTO holder VALUES (?, ?)", (document, _hash(question.name)))
        [name] = self._db.execute("SELECT name FROM holder WHERE document = ?", (document,)).fetchone()
        return bool(name == _hash(question.name))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class VerifierDesk:
    """The verifier's routes."""

    def __init__(self, register: Register) -> None:
        """Answer from `register`."""
        self._register = register
        self._faults: tuple[VerifierFault, ...] = ()

    def service(self, responder: Responder) -> Service:
        """Return the verifier as an ASGI application."""
        return Service(
            responder,
            {("POST", "/verifications"): self.verify, ("PUT", "/sandbox/faults"): self.set_faults},
            {("GET", "/health"): self.health},
        )

    async def health(self, call: HttpCall) -> HttpAnswer:
        """Answer that the process is alive."""
        del call
        return ok({"name": VERIFIER, "pid": os.getpid()})

    async def verify(self, call: HttpCall) -> HttpAnswer | None:
        """Answer a batch of questions, or do wrong as the faults say."""
        asked = parse(call.body, DocumentQuestions).questions
        suffered = self._suffer()
        if slow := max((fault.ms for fault in suffered if fault.kind is VerifierFaultKind.SLOW), default=0):
            await asyncio.sleep(slow / 1000)
        kinds = {fault.kind for fault in suffered}
        if VerifierFaultKind.SILENT in kinds:
            await call.hung_up()
            return None
        answers = [self._answer(one) for one in asked]
        if VerifierFaultKind.LIE in kinds:
            answers = [_confirm(UUID(int=one.question_id.int ^ 1)) for one in asked]
        if VerifierFaultKind.TWICE in kinds:
            answers = [*answers, *answers]
        if VerifierFaultKind.CONTRADICT in kinds:
            answers = [
                *map(_confirm, (one.question_id for one in asked)),
                *map(_deny, (one.question_id for one in asked)),
            ]
        return ok(DocumentAnswers(answers))

    async def set_faults(self, call: HttpCall) -> HttpAnswer:
        """Replace all faults."""
        self._faults = parse(call.body, VerifierFaults).faults
        return ok(VerifierFaults(self._faults))

    def _answer(self, question: DocumentQuestion) -> DocumentAnswer:
        return _confirm(question.question_id) if self._register.holds(question) else _deny(question.question_id)

    def _suffer(self) -> tuple[VerifierFault, ...]:
        suffered = self._faults
        self._faults = tuple(
            fault if fault.count is None else msgspec.structs.replace(fault, count=fault.count - 1)
            for fault in suffered
            if fault.count != 1
        )
        return suffered


def _confirm(question_id: UUID) -> DocumentAnswer:
    return DocumentAnswer(question_id=question_id, outcome=VerificationOutcome.CONFIRMED, level=_LEVEL)


def _deny(question_id: UUID) -> DocumentAnswer:
    return DocumentAnswer(question_id=question_id, outcome=VerificationOutcome.NOT_CONFIRMED)


def _hash(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode()).digest()


def main() -> None:
    """Run the verifier until told to stop."""
    given = Arguments("模拟证件核验方 / the sandbox's verifier of documents").parse_args()
    given.data.parent.mkdir(parents=True, exist_ok=True)
    desk = VerifierDesk(Register(given.data))
    service = desk.service(Responder(read_other_end(given.keys, VERIFIER, "")))
    serve(nullcontext(service), given.port, with_parent=given.with_parent)


if __name__ == "__main__":
    main()
