"""The life cycle of a pack: add, activate with two people's agreement, roll back, run in shadow; replay a decision."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from jiebang.model.confusables import looks_alike
from jiebang.model.errors import (
    AlreadyInForceError,
    NameUnusableError,
    NoRecordError,
    NothingToRollBackError,
    PackExistsError,
    PackInvalidError,
    RecordUnreadableError,
    SamePersonError,
    TooSoonError,
    UnknownCaseError,
    UnknownPackError,
)
from jiebang.policy import record
from jiebang.policy.analyse import analyse_rules
from jiebang.policy.load import load_pack
from jiebang.policy.weakening import Weakening, find_weakenings
from jiebang.store.cases import cases
from jiebang.store.policy import packs as store
from jiebang.store.policy.packs import Activation, NewPack, PolicyState, ShadowCount, StoredPack
from jiebang.usecases.policy.registry import LEAD

if TYPE_CHECKING:
    from jiebang.model.case import Key
    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.analyse import RuleFinding
    from jiebang.policy.difference import Difference
    from jiebang.policy.pack import Pack
    from jiebang.store.checks.records import CheckRecordStore, CheckStep
    from jiebang.store.postgres.pool import Database, Pool
    from jiebang.usecases.policy.registry import PackRegistry

INSTALLATION: Final = "jiebang"
"""Who is recorded as adding the shipped packs and activating the first one. No person may have this name."""
_NAME_LIMIT: Final = 64
_HISTORY: Final = 100

_log = structlog.get_logger(__name__)


def normalize_name(name: str) -> str:
    """Return a person's name in its one normal form, as it is recorded. Raises NameUnusableError."""
    plain = " ".join(unicodedata.normalize("NFKC", name).split())
    if not 0 < len(plain) <= _NAME_LIMIT or not plain.isprintable() or looks_alike(plain, INSTALLATION):
        raise NameUnusableError(name=plain[:_NAME_LIMIT])
    return plain


def admit(text: str, source: str, declared: ParticipantRegistry) -> tuple[Pack, list[RuleFinding]]:
    """Load a pack against `declared`, and look for rules that can never or always be raised, or only together.

    Returns the pack and the findings to review. Raises PackInvalidError, also for findings that are errors.
    """
    pack = load_pack(text, source, declared)
    findings = analyse_rules(pack, text, source)
    wrong = [msgspec.to_builtins(finding.problem) for finding in findings if finding.error]
    if wrong:
        raise PackInvalidError(problems=wrong)
    return pack, findings


async def install(
    db: Pool,
    declared: ParticipantRegistry,
    shipped: Mapping[str, tuple[str, str]],
    first: str,
    now: datetime,
) -> list[str]:
    """Add the shipped packs, and on the very first start put `first` in force. Safe to run concurrently.

    `shipped`: text and file name, by name. A version that is already in the store stays as it is there. Returns the
    names of those whose file differs from the store: the edit has no effect.
    """
    loaded = {name: load_pack(*text, declared) for name, text in shipped.items()}
    texts = {pack.id: shipped[name][0] for name, pack in loaded.items()}
    kept = {one.pack: one for one in await store.load_others(db)}
    edited = sorted(name for name in texts.keys() & kept.keys() if kept[name].text != texts[name])
    for name in edited:
        _log.warning("shipped_pack_differs_from_store", pack=name)
    async with db.acquire() as connection, connection.transaction():
        await store.add(connection, _make_new_packs(texts.keys() - kept.keys(), texts), INSTALLATION, now)
        await store.install(connection, loaded[first].id, INSTALLATION, now)
    return edited


def _make_new_packs(names: Iterable[str], texts: Mapping[str, str]) -> list[NewPack]:
    found = []
    for pack in sorted(names):
        name, _, version = pack.partition("/")
        found.append(NewPack(name, int(version), texts[pack]))
    return found


async def add(
    db: Pool, declared: ParticipantRegistry, text: str, source: str, by: str, now: datetime
) -> tuple[Pack, list[RuleFinding]]:
    """Add a version of a policy. Adding the same text again changes nothing.

    Raises PackInvalidError, PackExistsError for another text under the same name and version, NameUnusableError.
    """
    who = normalize_name(by)
    pack, findings = admit(text, source, declared)
    async with db.acquire() as connection, connection.transaction():
        await _lock(connection)
        if not await store.add(connection, _make_new_packs([pack.id], {pack.id: text}), who, now):
            kept = await _find_stored(connection, pack.id)
            if kept.text != text:
                raise PackExistsError(pack=pack.id, added_by=kept.added_by, added_at=kept.added_at.isoformat())
    return pack, findings


async def compare_with_force(db: Database, declared: ParticipantRegistry, pack: Pack) -> list[Weakening]:
    """Return where a version protects less than the one in force (that which comes into force next, if one does).

    Raises UnknownPackError before the first start.
    """
    state = await store.load_state(db)
    if state is None:
        raise UnknownPackError(pack="", known=[])
    return await _list_weakenings(db, declared, state.pack, pack)


async def _list_weakenings(db: Database, declared: ParticipantRegistry, before: str, pack: Pack) -> list[Weakening]:
    if before == pack.id:
        return []
    stored = await _find_stored(db, before)
    return find_weakenings(load_pack(stored.text, f"{before}.yaml", declared, stored=True), pack)


class ActivationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of an activation: in force from a time on, or waiting for a second person.

    `weakenings`: where it protects people less than the version that it replaces.
    """

    pack: str
    proposed_by: str
    approved_by: str | None
    in_force_since: datetime | None
    replaces: str
    weakenings: Sequence[Weakening] = ()


async def activate(db: Pool, declared: ParticipantRegistry, pack: str, by: str, now: datetime) -> ActivationStatus:
    """Propose a version, or approve what another person has proposed, which brings it into force everywhere.

    Raises UnknownPackError, PackInvalidError (the version in the store does not load here), SamePersonError,
    AlreadyInForceError, TooSoonError while another change is coming into force, NameUnusableError.
    """
    who = normalize_name(by)
    async with db.acquire() as connection, connection.transaction():
        state = await _lock(connection)
        stored = await _find_stored(connection, pack)
        admitted, _ = admit(stored.text, f"{pack}.yaml", declared)
        _require_in_force(state, now)
        if state.pack == pack:
            raise AlreadyInForceError(pack=pack)
        weakenings = await _list_weakenings(connection, declared, state.pack, admitted)
        proposed = await store.load_proposal(connection, pack)
        if proposed is None:
            await store.propose(connection, pack, who, now)
            return ActivationStatus(
                pack=pack,
                proposed_by=who,
                approved_by=None,
                in_force_since=None,
                replaces=state.pack,
                weakenings=weakenings,
            )
        require_second_person(pack, proposed.proposed_by, who)
        since = now + LEAD
        await store.approve(connection, proposed, who, now, since, state.activation_no)
        return ActivationStatus(
            pack=pack,
            proposed_by=proposed.proposed_by,
            approved_by=who,
            in_force_since=since,
            replaces=state.pack,
            weakenings=weakenings,
        )


def require_second_person(pack: str, proposed_by: str, by: str) -> None:
    """Raise SamePersonError where who proposed a version would approve it too, NameUnusableError for no name."""
    if looks_alike(proposed_by, normalize_name(by)):
        raise SamePersonError(pack=pack, proposed_by=proposed_by)


async def roll_back(db: Pool, declared: ParticipantRegistry, by: str, now: datetime) -> ActivationStatus:
    """Go back to the version in force before the current one. One person is enough: two have agreed to it before.

    Raises NothingToRollBackError, PackInvalidError, TooSoonError, NameUnusableError.
    """
    who = normalize_name(by)
    async with db.acquire() as connection, connection.transaction():
        state = await _lock(connection)
        _require_in_force(state, now)
        current = await store.load_activation(connection, state.activation_no)
        before = None if current is None or current.replaces is None else current.replaces
        to = None if before is None else await store.load_activation(connection, before)
        if to is None:
            raise NothingToRollBackError(pack=state.pack)
        pack = load_pack((await _find_stored(connection, to.pack)).text, f"{to.pack}.yaml", declared)
        weakenings = await _list_weakenings(connection, declared, state.pack, pack)
        since = now + LEAD
        await store.roll_back(connection, to, who, now, since)
        return ActivationStatus(
            pack=to.pack,
            proposed_by=who,
            approved_by=None,
            in_force_since=since,
            replaces=state.pack,
            weakenings=weakenings,
        )


async def start_shadow(db: Pool, declared: ParticipantRegistry, pack: str, by: str, now: datetime) -> PolicyState:
    """Run a version in shadow beside the live one, on live checks; its earlier counts are deleted.

    Raises UnknownPackError, PackInvalidError, AlreadyInForceError for the version in force, NameUnusableError.
    """
    who = normalize_name(by)
    async with db.acquire() as connection, connection.transaction():
        state = await _lock(connection)
        load_pack((await _find_stored(connection, pack)).text, f"{pack}.yaml", declared)
        if pack == state.pack:
            raise AlreadyInForceError(pack=pack)
        await store.set_shadow(connection, pack, who, now)
    return state


async def stop_shadow(db: Pool) -> None:
    """Stop the version in shadow; its counts stay until it is started again."""
    async with db.acquire() as connection, connection.transaction():
        await _lock(connection)
        await store.set_shadow(connection, None, None, None)


class PolicyOverview(msgspec.Struct, frozen=True, kw_only=True):
    """The state of policy at one moment: versions (without their texts) and history."""

    state: PolicyState
    versions: Sequence[Mapping[str, Any]]
    history: Sequence[Activation]


async def read_overview(db: Database) -> PolicyOverview:
    """Return every version, which is in force, which waits for approval, and the latest changes."""
    state = await store.load_state(db)
    if state is None:
        raise UnknownPackError(pack="", known=[])
    versions = [
        {"pack": one.pack, "sha256": one.sha256.hex(), "added_by": one.added_by, "added_at": one.added_at}
        for one in await store.load_others(db)
    ]
    return PolicyOverview(state=state, versions=versions, history=await store.load_history(db, _HISTORY))


async def read_pack_text(db: Database, pack: str) -> str:
    """Return the text of a version. Raises UnknownPackError."""
    return (await _find_stored(db, pack)).text


async def read_shadow_report(db: Database, pack: str | None = None) -> list[ShadowCount]:
    """Return the counts of a version in shadow; None: of the one that runs now.

    Raises UnknownPackError.
    """
    if pack is None:
        state = await store.load_state(db)
        pack = None if state is None else state.shadow
    else:
        await _find_stored(db, pack)
    return [] if pack is None else await store.load_counts(db, pack)


async def _lock(db: Database) -> PolicyState:
    """Lock and return the state, so that changes of policy are made one at a time."""
    state = await store.load_state(db, lock=True)
    if state is None:
        raise UnknownPackError(pack="", known=[])
    return state


def _require_in_force(state: PolicyState, now: datetime) -> None:
    if now < state.in_force_since:
        raise TooSoonError(retry_after_s=int((state.in_force_since - now).total_seconds()) + 1)


async def _find_stored(db: Database, pack: str) -> StoredPack:
    there = {one.pack: one for one in await store.load_others(db)}
    if pack not in there:
        raise UnknownPackError(pack=pack, known=sorted(there))
    return there[pack]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded check, answered again. No `differences`: the answer is identical."""

    step: CheckStep
    at: datetime
    pack: str
    outcome: str
    facts: Mapping[str, Any]
    unread: Sequence[str]
    answer: Mapping[str, Any]
    differences: Sequence[Difference]


async def replay(db: Database, records: CheckRecordStore, registry: PackRegistry, key: Key) -> list[Replay]:
    """Answer the recorded checks of a case again, each under its own version and from its own facts.

    Raises UnknownCaseError, NoRecordError, UnknownPackError, RecordUnreadableError.
    """
    if not await cases.load_many(db, [key]):
        raise UnknownCaseError
    found = (await records.of_cases(db, [key])).get(key)
    if not found:
        raise NoRecordError
    again: list[Replay] = []
    for kept in found:
        try:
            content = record.decode_record(kept.content)
            differences = record.replay_record(content, registry.pack(kept.pack))
        except ValueError as wrong:
            raise RecordUnreadableError(step=kept.step.value, at=kept.at.isoformat(), reason=str(wrong)) from wrong
        again.append(
            Replay(
                step=kept.step,
                at=kept.at,
                pack=kept.pack,
                outcome=kept.outcome,
                facts=content.facts,
                unread=content.unread,
                answer=content.answer,
                differences=differences,
            )
        )
    return again
