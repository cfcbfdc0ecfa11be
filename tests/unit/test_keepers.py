"""Keepers: no pack promises what nothing keeps, none does what it does not tell, and older packs load as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import yaml

from jiebang.model.case import Kind
from jiebang.model.errors import PackInvalidError
from jiebang.model.participants import Declaration, Operation, ParticipantRegistry, ValueType
from jiebang.model.promises import Keeper, Observation, Probe, PromiseState, join_observations
from jiebang.participants import PARTICIPANTS
from jiebang.policy import packs
from jiebang.policy.keepers import list_promises
from jiebang.policy.load import load_pack

TEXT, FILE = packs.text("wechat")
AT: Final = datetime(2026, 4, 1, tzinfo=UTC)


def refused(text: str) -> list[dict[str, Any]]:
    with pytest.raises(PackInvalidError) as caught:
        load_pack(text, FILE, PARTICIPANTS)
    found: list[dict[str, Any]] = caught.value.fields["problems"]
    for problem in found:
        assert re.search(r"[\u4e00-\u9fff]", problem["zh"])
        assert not re.search(r"[\u4e00-\u9fff]", problem["en"])
    return found


def line_of(text: str, piece: str) -> int:
    return text[: text.index(piece)].count("\n") + 1


@pytest.mark.parametrize("name", packs.NAMES)
def test_our_packs_tell_of_all_that_they_do_and_do_all_that_they_tell(name: str) -> None:
    """By construction, since they load; here once by counting, lest the construction rots."""
    pack = load_pack(*packs.text(name), PARTICIPANTS)
    for kind, plan in pack.plans.items():
        told = {keeper for one in pack.consequences_of[kind] for keeper in one.kept_by if keeper.owner != "platform"}
        assert told == list_promises(plan, PARTICIPANTS).keys()
        given = {
            (PARTICIPANTS.owner_of(party), effect)
            for party, planned in plan.operations.items()
            for effect in planned.effects
        }
        assert {(keeper.owner, keeper.name) for keeper in told if keeper.type == "effect"} == given
    assert all(one.kept_by for one in pack.consequences)


@pytest.mark.parametrize(
    ("piece", "instead", "says"),
    [
        ("    kept_by: {effect: [wallet.receive_limit_fen]}\n", "", "nothing keeps 'WALLET-LIMIT-LOWERED'"),
        (
            "kept_by: {children: [wallet.bank_card]}",
            "kept_by: {children: [wallet.bank_crd]}",
            "does no 'children: wallet.",
        ),
        (
            "kept_by: {children: [wallet.bank_card]}",
            "kept_by: {hope: [wallet.bank_card]}",
            "there are no keepers 'hope'",
        ),
        ("kept_by: {children: [wallet.bank_card]}", "kept_by: {children: [walet.bank_card]}", "no participant 'walet'"),
        (
            "kept_by: {operation: [gaming.suspend]}",
            "kept_by: {operation: [wallet.close]}",
            "does no 'operation: wallet.close'",
        ),
        ("notice: [case_requested, case_done]", "notice: [case_requested, case_won]", "`messages` has no 'case_won'"),
        ("notice: [case_requested, case_done]", "notice: [case_done, case_done]", "is named twice"),
        ("kept_by: {operation: [gaming.suspend]}", "kept_by: {operation: gaming}", "a list must stand here"),
        ("kept_by: {operation: [gaming.suspend]}", "kept_by: {operation: []}", "the list must not be empty"),
        ("kept_by: {operation: [gaming.suspend]}", "kept_by: {operation: [Gaming!]}", "text like"),
    ],
)
def test_a_promise_that_nothing_keeps_is_refused_where_it_stands(piece: str, instead: str, says: str) -> None:
    """A sentence like any other, read by thousands, and nobody would notice that it is not true."""
    text = TEXT.replace(piece, instead, 1)
    at = line_of(TEXT, piece) if instead else TEXT[: TEXT.index(piece)].rindex("  - code:")
    line = at if instead else TEXT[:at].count("\n") + 1
    assert any(says in problem["en"] and problem["line"] == line and problem["column"] > 1 for problem in refused(text))


def test_a_kind_that_nobody_carries_out_promises_nothing() -> None:
    """What follows from a request that nobody takes is a promise all the same to whoever reads it."""
    piece = "  - code: GAMING-OFF-MEANWHILE\n    kinds: [revoke]"
    text = TEXT.replace(piece, piece.replace("[revoke]", "[revoke, appeal]"))
    [problem] = refused(text)
    assert problem["en"] == "nothing keeps 'GAMING-OFF-MEANWHILE': there is no plan of appeal"
    assert problem["line"] == line_of(TEXT, piece) + 1


@pytest.mark.parametrize(
    ("code", "keeper", "place"),
    [
        ("SOCIAL-MOMENTS-LIMITED", "effect: social.moments_per_day", '":moments_a_day"}}'),
        ("ENTERPRISE-APPROVALS-VOIDED", "children: enterprise.approval", "{operation: revoke, effects: {api_rights"),
        ("GAMING-OFF-MEANWHILE", "operation: gaming.suspend", "{operation: suspend}"),
        ("NETSUNION-RELEASED", "effect: netsunion.release_bindings", "true}}\n      wallet: {operation: downgrade"),
    ],
)
def test_an_effect_of_which_nobody_is_told_is_refused_where_it_is_planned(code: str, keeper: str, place: str) -> None:
    """What a person never read of must not be done to them."""
    at = TEXT.index(f"  - code: {code}\n")
    text = TEXT[:at] + TEXT[TEXT.index("\n\n", at) + 2 :]
    found = [problem for problem in refused(text) if keeper in problem["en"]]
    assert found[0]["en"].startswith("no consequence of revoke tells of")
    assert found[0]["line"] == line_of(text, place)


def before_keepers(name: str) -> str:
    """A pack as an installation of before keepers holds it."""
    document: dict[str, Any] = yaml.safe_load(packs.text(name)[0])
    for one in document["consequences"]:
        del one["kept_by"]
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)


@pytest.mark.parametrize("name", packs.NAMES)
def test_a_version_of_before_keepers_is_loaded_but_not_admitted_again(name: str) -> None:
    """Cases under it must end; a new version may not promise as freely."""
    text = before_keepers(name)
    refused_now = len(refused(text)) if name == "wechat" else 0
    old = load_pack(text, FILE, PARTICIPANTS, stored=True)
    assert old.plans == load_pack(*packs.text(name), PARTICIPANTS).plans
    assert [one.kept_by for one in old.consequences] == [()] * len(old.consequences)
    assert len(old.shortfalls) >= max(refused_now, len(old.consequences))


def declare(**given: Any) -> Declaration:
    return Declaration(**{"owner": "shop", "package": "shop", "databases": {"shop": "shenzhen"}, **given})


@pytest.mark.parametrize(
    "declared",
    [
        declare(operations={"close": Operation(effects={"points": ValueType(int)})}),
        declare(operations={"close": Operation()}, probes={"effect": {"points": Probe(holds="true")}}),
        declare(operations={"close": Operation()}, probes={"hope": {"points": Probe(holds="true")}}),
        declare(operations={"close": Operation()}, probes={"notice": {"points": Probe(holds="true")}}),
        declare(operations={"close": Operation()}, probes={"job": {"sweep": Probe(holds="true", by=("open",))}}),
        declare(operations={"close": Operation()}, probes={"gate": {"door": Probe(holds="true", of="points")}}),
    ],
    ids=[
        "effect unobserved",
        "no such effect",
        "no such type",
        "the platform's own",
        "no such operation",
        "of no effect",
    ],
)
def test_a_declaration_that_nobody_could_hold_to_its_word_is_refused(declared: Declaration) -> None:
    """An effect without a probe would be promised for ever, and never looked at."""
    with pytest.raises(ValueError, match="shop"):
        ParticipantRegistry((declared,))


def says(state: str, since: int | None = None, until: int | None = None) -> Observation:
    since_at, until_at = (None if each is None else AT + timedelta(days=each) for each in (since, until))
    return Observation(PromiseState(state), since_at, until_at)


@pytest.mark.parametrize(
    ("observed", "joined"),
    [
        ([], says("unknown")),
        ([says("kept", 1), says("kept", 3)], says("kept", 3)),
        ([says("kept", 1, 9), says("kept", 2, 5), says("kept", 1)], says("kept", 2, 5)),
        ([says("kept", 1), says("due", None, 4), says("due", None, 6)], says("due", None, 6)),
        ([says("kept", 1), says("broken"), says("unknown"), says("due", None, 1)], says("broken")),
        ([says("unknown"), says("due", None, 1), says("ended")], says("unknown")),
        ([says("ended"), says("kept", 1)], says("kept", 1)),
        ([says("ended"), says("ended")], says("ended")),
    ],
)
def test_a_promise_is_as_good_as_the_worst_of_its_keepers(observed: Sequence[Observation], joined: Observation) -> None:
    """A name that is gone in Shenzhen and still there in Guiyang has not been taken back."""
    assert join_observations(observed) == joined


def test_what_is_due_is_late_from_its_time_on() -> None:
    assert not says("due", None, 0).is_late(AT)
    assert says("due", None, 0).is_late(AT + timedelta(microseconds=1))
    assert not says("due").is_late(AT), "nothing said until when"
    assert not says("kept", 0, 0).is_late(AT + timedelta(days=1)), "what held for its time is not late"


def test_copies_of_one_owner_keep_one_promise_at_each_place() -> None:
    plan = load_pack(TEXT, FILE, PARTICIPANTS).plans[Kind.REVOKE]
    promises = list_promises(plan, PARTICIPANTS)
    assert promises[Keeper("operation", "identity", "reclaim")] == ("identity_shenzhen", "identity_guiyang")
    assert promises[Keeper("effect", "unionpay", "release_bindings")] == ("unionpay",)
