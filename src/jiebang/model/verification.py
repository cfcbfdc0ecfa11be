"""Verification of identity documents by somebody who knows: what is asked, and what is answered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

MAX_QUESTIONS: Final = 100
"""The most questions in one request."""
LEVELS: Final = (1, 3)
"""The lowest and the highest level of a real name (`identity.account.level`)."""


class VerificationOutcome(StrEnum):
    """What a verifier says of a document: it is that person's and in force, or not; it never says why not."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not_confirmed"


class DocumentQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a document is this person's. `question_id`: chosen by who asks; a repeat names the same question."""

    question_id: UUID
    document_type: Annotated[str, Meta(max_length=40)]
    number: Annotated[str, Meta(min_length=1, max_length=64)]
    name: Annotated[str, Meta(min_length=1, max_length=100)]

    def __repr__(self) -> str:
        """Show the question's id alone: the rest is personal."""
        return f"DocumentQuestion({self.question_id})"


class DocumentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question. `level`: how well the real name is known, 1 to 3; 0 where it is not confirmed."""

    question_id: UUID
    outcome: VerificationOutcome
    level: Annotated[int, Meta(ge=0, le=LEVELS[1])] = 0


class DocumentQuestions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a verifier's `POST /verifications`."""

    questions: Annotated[list[DocumentQuestion], Meta(min_length=1, max_length=MAX_QUESTIONS)]


class DocumentAnswers(msgspec.Struct, frozen=True):
    """Its answer, signed as every reply of a remote party is."""

    answers: Annotated[list[DocumentAnswer], Meta(max_length=2 * MAX_QUESTIONS)]
