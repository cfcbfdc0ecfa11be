"""The list of properties, and a run over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from jiebang.model.check import Text
from jiebang.participants.base import SILENCE
from jiebang.participants.conformance.crossing import CROSSING_PROPERTIES
from jiebang.participants.conformance.fence import FENCE_PROPERTIES
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.signed_http import SIGNED_PROPERTIES
from jiebang.participants.conformance.subject import (
    DeviationError,
    NotApplicableError,
    Subject,
    show_silence,
)

if TYPE_CHECKING:
    from jiebang.participants.conformance.listening import Exchange

PROPERTIES: Final = (*SIGNED_PROPERTIES, *FENCE_PROPERTIES, *CROSSING_PROPERTIES)
_WANTED: Final = Text("限时内签名的 200 应答", "a signed answer with status 200, in time")


class FindingResult(StrEnum):
    """What came of a property."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one property. Of a failed one: what was sent, answered and wanted, and the last exchange as it was.

    `reason`: why it was not examined.
    """

    property: str
    result: FindingResult
    holds: Text
    breaks: Text
    sent: str | None = None
    answered: Text | None = None
    wanted: Text | None = None
    exchange: Exchange | None = None
    reason: Text | None = None


async def examine(subject: Subject, properties: Sequence[Property], progress: Callable[[int], None]) -> list[Finding]:
    """Examine a participant for `properties`, one after the other. `progress` is told how many are done."""
    findings = list[Finding]()
    for each in properties:
        findings.append(await _examine_one(subject, each))
        progress(len(findings))
    return findings


async def _examine_one(subject: Subject, each: Property) -> Finding:
    finding = Finding(property=each.name, result=FindingResult.PASSED, holds=each.holds, breaks=each.breaks)
    try:
        await each.examine(subject)
    except NotApplicableError as error:
        return msgspec.structs.replace(finding, result=FindingResult.NOT_APPLICABLE, reason=error.reason)
    except DeviationError as error:
        told = (error.sent, error.answered, error.wanted)
    except SILENCE as error:
        exchange = _last_exchange(subject)
        told = (exchange.sent if exchange else "", show_silence(error), _WANTED)
    else:
        return finding
    sent, answered, wanted = told
    return msgspec.structs.replace(
        finding,
        result=FindingResult.FAILED,
        sent=sent,
        answered=answered,
        wanted=wanted,
        exchange=_last_exchange(subject),
    )


def _last_exchange(subject: Subject) -> Exchange | None:
    return subject.listening.last if subject.listening is not None else None


def select(names: Collection[str]) -> list[Property]:
    """Return the properties of these names, in the order of the list; all where none is named. Raises KeyError."""
    known = {each.name: each for each in PROPERTIES}
    return [each for each in PROPERTIES if each.name in {known[name].name for name in names} or not names]
