"""The verifier of identity documents, across the network: one question is a batch of one.

A verifier that is late, lies or contradicts itself has not answered: nobody is bound to a name on a doubtful word, and
nobody is told that their document is wrong because a verifier was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

import msgspec

from jiebang.model.errors import JiebangError
from jiebang.model.verification import (
    LEVELS,
    MAX_QUESTIONS,
    DocumentAnswer,
    DocumentAnswers,
    DocumentQuestions,
    VerificationOutcome,
)
from jiebang.remote import wire
from jiebang.remote.client import RemoteError, SignedClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.model.verification import DocumentQuestion
    from jiebang.remote.signing import Link

VERIFIER: Final = "verifier"
"""The name of the link to the verifier: in its key files, its signatures and the addresses that the sandbox writes."""


class DocumentVerifier(Protocol):
    """Knows whether a document is a person's."""

    async def verify(self, questions: Sequence[DocumentQuestion]) -> list[DocumentAnswer]:
        """Answer in the order of `questions`. Raises OSError or TimeoutError where there is no trustworthy answer."""

    async def aclose(self) -> None:
        """Close the connections."""


class HttpVerifier:
    """A verifier reached by signed HTTP: `POST {base}/verifications` with a JSON batch."""

    def __init__(self, link: Link, *, limit: float = 5.0) -> None:
        """`limit`: seconds a request may take."""
        self._client = SignedClient(link, limit=limit)

    async def verify(self, questions: Sequence[DocumentQuestion]) -> list[DocumentAnswer]:
        """Answer in the order of `questions`, 100 a request. Raises RemoteError or TimeoutError (both OSError)."""
        found = list[DocumentAnswer]()
        for at in range(0, len(questions), MAX_QUESTIONS):
            found += await self._ask(list(questions[at : at + MAX_QUESTIONS]))
        return found

    async def _ask(self, questions: list[DocumentQuestion]) -> list[DocumentAnswer]:
        body = msgspec.json.encode(DocumentQuestions(questions))
        try:
            answers = wire.parse(await self._client.send("POST", "/verifications", body), DocumentAnswers).answers
        except JiebangError as error:
            raise RemoteError(VERIFIER, "an answer that cannot be read", 200, error.code) from error
        return match_answers([one.question_id for one in questions], answers)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def match_answers(asked: Sequence[UUID], answers: Sequence[DocumentAnswer]) -> list[DocumentAnswer]:
    """Return the answer to each question, in order; the same answer twice is one.

    Raises RemoteError for an answer to something that was not asked, for two that contradict each other, for one
    without a level where it confirms or with one where it does not, and for a question without an answer.
    """
    found = dict[UUID, DocumentAnswer]()
    for answer in answers:
        if answer.question_id not in asked:
            raise RemoteError(VERIFIER, "an answer to another question")
        if found.setdefault(answer.question_id, answer) != answer:
            raise RemoteError(VERIFIER, "two answers that contradict each other")
        if (answer.outcome is VerificationOutcome.CONFIRMED) != (answer.level >= LEVELS[0]):
            raise RemoteError(VERIFIER, "an outcome and a level that do not go together")
    if len(found) < len(set(asked)):
        raise RemoteError(VERIFIER, "a question without an answer")
    return [found[one] for one in asked]
