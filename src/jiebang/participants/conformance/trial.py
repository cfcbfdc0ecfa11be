"""A trial: the suite against one remote participant, at an address, with the accounts that its team names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jiebang.model.check import Text
from jiebang.model.errors import LinkUnusableError, ParticipantSilentError
from jiebang.model.ids import MAX_ACCOUNT
from jiebang.model.plan import PlannedOperation
from jiebang.participants.base import SILENCE
from jiebang.participants.conformance.listening import ListeningParticipant
from jiebang.participants.conformance.property import Property
from jiebang.participants.conformance.subject import NotApplicableError, Subject, show_silence
from jiebang.participants.conformance.suite import Finding, FindingResult, examine
from jiebang.remote.link_keys import read_our_end
from jiebang.saga.orders import Order

if TYPE_CHECKING:
    from jiebang.remote.signing import Link

NEEDED_ACCOUNTS: Final = 2_000
"""More accounts than one run of all properties takes."""
FIRST_ACCOUNTS: Final = range(1 << 52, MAX_ACCOUNT - NEEDED_ACCOUNTS)
"""Where a trial's accounts begin when its team names none: in the upper half, far from those of people."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What to test, and with which accounts.

    `operation`, `effects`: what a plan names. `unfit`: effects that it cannot apply. `accounts`: those whose Try is
    granted (None: any, from `first_account` on). `refused`: those whose Try is refused, with the code. `spent`: the
    code that refuses an account once a case of it was confirmed. `limit`: seconds for an answer.
    """

    name: str
    url: str
    keys: Path
    operation: str = ""
    effects: Mapping[str, Any] = {}
    unfit: Mapping[str, Any] | None = None
    accounts: Sequence[int] | None = None
    first_account: int
    refused: Sequence[tuple[int, str]] | None = None
    spent: str | None = None
    seed: int
    limit: float = 2.0


class TrialReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial found. `ignored`: results that were not believed, by reason."""

    name: str
    url: str
    operation: str
    seed: int
    first_account: int
    passed: int
    failed: int
    not_applicable: int
    ignored: Mapping[str, int]
    findings: Sequence[Finding]

    @property
    def conforms(self) -> bool:
        """Whether no property failed."""
        return self.failed == 0


async def run_trial(trial: Trial, properties: Sequence[Property], progress: Callable[[int], None]) -> TrialReport:
    """Run the suite. Raises LinkUnusableError before anything is sent, ParticipantSilentError where nothing answers."""
    link = _open_link(trial)
    try:
        participant = ListeningParticipant(link, limit=trial.limit)
    except ValueError as error:
        raise _build_unusable(trial, str(error)) from error
    try:
        await _reach(trial, participant)
        subject = _build_subject(trial, link, participant)
        findings = await examine(subject, properties, progress)
    finally:
        await participant.aclose()
    counts = {result: sum(each.result is result for each in findings) for result in FindingResult}
    return TrialReport(
        name=trial.name,
        url=trial.url,
        operation=trial.operation,
        seed=trial.seed,
        first_account=trial.first_account,
        passed=counts[FindingResult.PASSED],
        failed=counts[FindingResult.FAILED],
        not_applicable=counts[FindingResult.NOT_APPLICABLE],
        ignored={reason.value: count for reason, count in participant.ignored.items()},
        findings=findings,
    )


def _open_link(trial: Trial) -> Link:
    try:
        return read_our_end(trial.keys, trial.name, trial.url)
    except OSError as error:
        name = Path(error.filename).name if error.filename else str(trial.keys)
        raise LinkUnusableError(
            name=trial.name, reason=Text(f"无法读取密钥文件 {name}", f"the key file {name} cannot be read")
        ) from error


def _build_unusable(trial: Trial, what: str) -> LinkUnusableError:
    return LinkUnusableError(name=trial.name, reason=Text(f"地址或密钥不可用:{what}", what))


async def _reach(trial: Trial, participant: ListeningParticipant) -> None:
    """Raise ParticipantSilentError where no HTTP answer comes at all; a wrong one is for the suite to tell."""
    try:
        await participant.look([trial.first_account])
    except SILENCE as error:
        if getattr(error, "status", None) is None:
            raise ParticipantSilentError(name=trial.name, url=trial.url, reason=show_silence(error)) from error


def _build_subject(trial: Trial, link: Link, participant: ListeningParticipant) -> Subject:
    numbers = iter(trial.accounts if trial.accounts is not None else range(trial.first_account, MAX_ACCOUNT))
    barred = iter(trial.refused or ())

    async def take_accounts(count: int) -> list[int]:
        found = list(islice(numbers, count))
        if len(found) < count:
            zh = f"所给账户(--accounts)不足:此项还需 {count - len(found)} 个"
            en = f"too few accounts were given (--accounts): this needs {count - len(found)} more"
            raise NotApplicableError(Text(zh, en))
        return found

    async def take_refused(count: int) -> tuple[list[Order], str]:
        found = list(islice(barred, count))
        codes = {code for _, code in found}
        if len(found) < count or len(codes) != 1:
            raise NotApplicableError(
                Text(
                    f"需要 {count} 个以同一代码被拒绝的账户(--refused)",
                    f"it needs {count} accounts that are refused with one code (--refused)",
                )
            )
        return [Order(account, 1) for account, _ in found], codes.pop()

    return Subject(
        participant,
        take_accounts,
        None if trial.refused is None else take_refused,
        PlannedOperation(trial.operation, dict(trial.effects)),
        trial.spent,
        unfit=None if trial.unfit is None else PlannedOperation(trial.operation, dict(trial.unfit)),
        link=link,
        listening=participant,
        seed=trial.seed,
    )
