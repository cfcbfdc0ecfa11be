"""A participant declared in one folder goes the whole way: migration, schema rules, facts, check, case, saga, recovery.

Nothing of the product names it. What stands in its way here would stand in the way of whoever declares the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from jiebang.model.case import Kind
from jiebang.model.errors import PackInvalidError
from jiebang.model.participants import Declaration, Operation, ParticipantRegistry, ValueType
from jiebang.model.plan import UNNAMED
from jiebang.participants import PARTICIPANTS
from jiebang.participants.core.database import DatabaseParticipant
from jiebang.participants.core.staging import GivenValues
from jiebang.participants.core.statements import (
    GIVEN_MISSING,
    build_operation,
    build_reads,
    build_staging,
    build_unnamed,
)
from jiebang.policy.load import load_pack
from jiebang.saga.fence import Answer, CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.store.postgres.migrate import require_migrated
from jiebang.store.postgres.pool import open_pools
from tests.conformance.suite import ParticipantSuite, Subject
from tests.newcomer.loyalty import DECLARATION as LOYALTY
from tests.newcomer.loyalty import REDEEMING, SAME_PARTNER
from tests.newcomer.world import (
    NOW,
    OPERATIONS,
    PACK,
    REGISTRY,
    area,
    database,
    given,
    ids,
    people,
    staged,
)
from tests.store import test_plans as plans
from tests.store import test_schema_rules as rules

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture(scope="module")
async def dsn(servers: Mapping[str, str]) -> AsyncIterator[str]:
    async with database(servers) as made:
        yield made


@pytest.fixture(scope="module")
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with open_pools({"loyalty": dsn}, size=4) as pools:
        yield pools["loyalty"]


@pytest.fixture
def loyalty(pool: Pool) -> DatabaseParticipant:
    return DatabaseParticipant("loyalty", LOYALTY, pool, lambda: NOW)


# --- Migration and schema rules ---------------------------------------------------------------------------------------


async def test_its_schema_keeps_every_rule(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that breaks one would not distribute, or would keep what should have died."""
    monkeypatch.setattr(rules, "PARTICIPANTS", REGISTRY)
    await rules.test_tables_live_in_their_owners_schema(pool, "loyalty")
    await rules.test_account_id_is_the_distribution_key(pool)
    await rules.test_nothing_ties_rows_of_different_shards(pool, "loyalty")
    await rules.test_hot_rows_have_room_to_be_updated_in_place(pool)
    await rules.test_a_participants_account_row_carries_the_fence(pool, "loyalty")
    await rules.test_children_say_whether_they_die_with_their_epoch(pool, "loyalty")
    await rules.test_what_is_staged_stands_in_a_table_of_one_shape(pool, "loyalty")
    rules.test_every_table_is_explained("loyalty")


async def test_a_start_asks_for_its_migrations_too(pool: Pool) -> None:
    """A database that is behind must be told before a case meets it."""
    await require_migrated({"loyalty": pool}, REGISTRY)


async def test_its_statements_find_their_rows_by_key(pool: Pool) -> None:
    """What is staged for millions must not be read through for one."""
    built = {"facts": LOYALTY.facts_sql, **build_reads("loyalty"), **build_staging("loyalty"), **build_unnamed(LOYALTY)}
    for name, operation in LOYALTY.operations.items():
        built |= {f"{name}.{op}": sql for op, sql in build_operation("loyalty", name, operation).items()}
    for label, sql in built.items():
        await plans.require_by_key(pool, label, sql)


def test_an_operation_that_takes_up_nothing_reads_nothing_of_what_is_staged() -> None:
    """What a case does not bring it must not pay for."""
    for name, operation in LOYALTY.operations.items():
        built = build_operation("loyalty", name, operation)
        assert {".staged" in sql for sql in built.values()} == {bool(operation.given)}, name


# --- Facts ------------------------------------------------------------------------------------------------------------


async def test_it_answers_its_facts(loyalty: DatabaseParticipant, pool: Pool) -> None:
    (account,) = await people(pool, 1, points=5, tier="gold", redeeming=True, member_since=NOW)
    await pool.execute("INSERT INTO loyalty.coupon VALUES ($1, 1, '茶', 1, $2), ($1, 2, '酒', 2, $2)", account, NOW)
    batch = await loyalty.facts([account, account + 100])
    assert (batch.owner, list(batch.accounts), list(batch.versions)) == ("loyalty", [account], [1])
    assert set(batch.columns) == set(REGISTRY.owned["loyalty"])
    values = {name: column[0] for name, column in batch.columns.items()}
    assert (values["points"], values["loyalty_tier"], values["redeeming"]) == (5, "gold", True)
    assert values["coupons"] == 1, "a coupon of another epoch is dead"
    assert set(values["coupon_items"][0]) == set(REGISTRY.item_fields["coupon_items"])


# --- The conformance suite --------------------------------------------------------------------------------------------


class TestLoyalty(ParticipantSuite):
    """The suite over both operations. For the one that takes something up every case brings it."""

    @pytest.fixture(params=OPERATIONS)
    def subject(self, request: pytest.FixtureRequest, loyalty: DatabaseParticipant, pool: Pool) -> Subject:
        async def bringing(count: int, **columns: Any) -> list[int]:
            accounts = await people(pool, count, **columns)
            every = itertools.product(accounts, range(1, 9))
            batch = [given(account, number, partner=f"{number}") for account, number in every]
            assert await area(loyalty).stage("transfer", batch) == {}
            return accounts

        async def of_forfeit(count: int) -> tuple[list[Order], str]:
            return [Order(account, 1, 1) for account in await people(pool, count, redeeming=True)], REDEEMING

        async def of_transfer(count: int) -> tuple[list[Order], str]:
            return [Order(account, 1, 1) for account in await bringing(count, partner="1")], SAME_PARTNER

        if request.param == "forfeit":
            return Subject(loyalty, lambda count: people(pool, count), of_forfeit, OPERATIONS["forfeit"])
        return Subject(loyalty, bringing, of_transfer, OPERATIONS["transfer"])


# --- What a case brings -----------------------------------------------------------------------------------------------


async def apply(loyalty: DatabaseParticipant, op: Op, account: int, name: str, case_no: int = 1) -> Answer | str | None:
    (reply,) = await loyalty.apply(op, [Order(account, case_no)], OPERATIONS[name])
    return reply.code or reply.answer


async def test_confirm_takes_up_what_was_staged_once(loyalty: DatabaseParticipant, pool: Pool) -> None:
    """What a person brought is what must stand there, and nothing of it be left where it was laid down."""
    (account,) = await people(pool, 1, points=100)
    assert await area(loyalty).stage("transfer", [given(account)]) == {}
    assert await apply(loyalty, Op.TRY, account, "transfer") is Answer.GRANTED
    assert await staged(pool, account) == [(account, 1)]
    for _ in range(2):
        assert await apply(loyalty, Op.CONFIRM, account, "transfer") is Answer.DONE
    row = await pool.fetchrow("SELECT * FROM loyalty.account WHERE account_id = $1", account)
    assert row is not None
    assert (row["partner"], row["partner_since"], row["partner_mark"]) == ("茶馆", date(2026, 5, 1), b"\0\1\2\3")
    assert (row["points"], row["notify"], row["frozen"], row["epoch"]) == (7, True, False, 2)
    assert await staged(pool, account) == []


async def test_a_confirm_that_does_not_find_it_writes_nothing_and_stays_pending(
    loyalty: DatabaseParticipant, pool: Pool
) -> None:
    """A Confirm may not be refused; one that went through with nothing would lose what the person brought."""
    (account,) = await people(pool, 1, points=100)
    await area(loyalty).stage("transfer", [given(account)])
    assert await apply(loyalty, Op.TRY, account, "transfer") is Answer.GRANTED
    assert await area(loyalty).drop([(account, 1)]) == 0
    await pool.execute("DELETE FROM loyalty.staged WHERE account_id = $1", account)
    assert await apply(loyalty, Op.CONFIRM, account, "transfer") is Answer.PENDING
    assert await pool.fetchval("SELECT points FROM loyalty.account WHERE account_id = $1", account) == 100
    assert await loyalty.look([account]) == {account: FenceRow(1, CaseOp.TRIED)}


async def test_cancel_drops_it_and_undoes_its_own_try(loyalty: DatabaseParticipant, pool: Pool) -> None:
    (account,) = await people(pool, 1, points=100)
    before = await pool.fetchrow("SELECT * FROM loyalty.account WHERE account_id = $1", account)
    await area(loyalty).stage("transfer", [given(account), given(account, 2)])
    assert await apply(loyalty, Op.TRY, account, "transfer") is Answer.GRANTED
    assert await apply(loyalty, Op.CANCEL, account, "transfer") is Answer.DONE
    after = await pool.fetchrow("SELECT * FROM loyalty.account WHERE account_id = $1", account)
    assert before is not None
    assert after is not None
    assert dict(after) == {**before, "case_no": 1}
    assert await staged(pool, account) == [(account, 2)], "what another case brought stays"


async def test_a_case_whose_plan_was_lost_is_cancelled_all_the_same(loyalty: DatabaseParticipant, pool: Pool) -> None:
    """After a restore nobody may know any more which operation was tried."""
    for name in OPERATIONS:
        (account,) = await people(pool, 1)
        await area(loyalty).stage("transfer", [given(account)])
        assert await apply(loyalty, Op.TRY, account, name) is Answer.GRANTED
        (reply,) = await loyalty.apply(Op.CANCEL, [Order(account, 1)], UNNAMED)
        assert reply.answer is Answer.DONE
        assert await pool.fetchval("SELECT frozen FROM loyalty.account WHERE account_id = $1", account) is False
        assert await staged(pool, account) == []
    with pytest.raises(KeyError):
        await loyalty.apply(Op.TRY, [Order(account, 2)], UNNAMED)


async def test_try_refuses_what_was_not_brought_or_was_brought_for_another(
    loyalty: DatabaseParticipant, pool: Pool
) -> None:
    """A case that takes up another's papers would bind a stranger."""
    nothing, other_case, same, stranger = *(await people(pool, 2)), *(await people(pool, 1, partner="茶馆")), next(ids)
    await area(loyalty).stage("transfer", [given(other_case, 2), given(same), given(stranger)])
    assert await apply(loyalty, Op.TRY, nothing, "transfer") == GIVEN_MISSING
    assert await apply(loyalty, Op.TRY, other_case, "transfer") == GIVEN_MISSING
    assert await apply(loyalty, Op.TRY, same, "transfer") == SAME_PARTNER
    assert await apply(loyalty, Op.TRY, stranger, "transfer") is Answer.GRANTED, "it has no row yet"
    assert await apply(loyalty, Op.CONFIRM, stranger, "transfer") is Answer.DONE
    assert await pool.fetchval("SELECT partner FROM loyalty.account WHERE account_id = $1", stranger) == "茶馆"
    nobody = next(ids)
    assert await apply(loyalty, Op.TRY, nobody, "transfer") == GIVEN_MISSING
    assert await loyalty.look([nobody]) == {nobody: FenceRow(1, CaseOp.CANCELLED)}
    (elsewhere,) = await people(pool, 1)
    await area(loyalty).stage("transfer", [given(elsewhere)])
    await pool.execute("UPDATE loyalty.staged SET operation = 'forfeit' WHERE account_id = $1", elsewhere)
    assert await apply(loyalty, Op.TRY, elsewhere, "transfer") == GIVEN_MISSING
    again = await loyalty.try_again([Order(other_case, 3), Order(elsewhere, 2)], OPERATIONS["transfer"])
    assert again == {other_case: GIVEN_MISSING, elsewhere: GIVEN_MISSING}


async def test_staging_is_of_a_batch_repeatable_and_says_what_is_wrong(
    loyalty: DatabaseParticipant, pool: Pool
) -> None:
    """A person whose form was sent twice must not be told that it failed, nor what is wrong go unseen until Confirm."""
    one, two, three, past = await people(pool, 4)
    await pool.execute("UPDATE loyalty.account SET case_no = 1 WHERE account_id = $1", past)
    wrong = {
        (two, 1): given(two, partner=""),
        (two, 2): given(two, 2, since="2026-05-01"),
        (two, 3): given(two, 3, points=True),
        (two, 4): given(two, 4, colour="red"),
        (two, 5): GivenValues(account_id=two, case_no=5, values={"partner": "x"}),
        (past, 1): given(past),
    }
    batch = [given(one), given(one), given(three), *wrong.values()]
    for _ in range(2):
        refused = await area(loyalty).stage("transfer", batch)
        assert refused.keys() == wrong.keys()
        fields = [refused[key].fields["field"] for key in wrong]
        assert fields == ["partner", "since", "points", "colour", "since", "case_no"]
        assert all(error.fields["reason"].zh and error.fields["reason"].en for error in refused.values())
        assert await staged(pool, one, two, three, past) == [(one, 1), (three, 1)]
    other = await area(loyalty).stage("transfer", [given(one, points=8), given(three)])
    assert other.keys() == {(one, 1)}
    assert "before" in other[one, 1].fields["reason"].en
    twice = await area(loyalty).stage("transfer", [given(one, 2), given(one, 2, points=8)])
    assert twice.keys() == {(one, 2)}
    assert "茶馆" not in repr(batch)


# --- Packs ------------------------------------------------------------------------------------------------------------


def test_its_pack_loads_against_a_registry_that_knows_it_alone() -> None:
    """A pack that names a participant, a fact or an operation that is not there must not come into force."""
    assert load_pack(*PACK, REGISTRY).plans[Kind.CHANGE_IDENTITY].operations["loyalty"] == OPERATIONS["transfer"]
    with pytest.raises(PackInvalidError) as caught:
        load_pack(*PACK, PARTICIPANTS)
    told = " ".join(problem["en"] for problem in caught.value.fields["problems"])
    for word in ("no participant 'loyalty'", "no fact named 'redeeming'", "'coupon_items' is not a fact"):
        assert word in told


@pytest.mark.parametrize(
    "declarations",
    [
        (LOYALTY, LOYALTY),
        (Declaration(owner="a", package="a", operations={}, formerly="b"),),
        (Declaration(owner="a", package="a", operations={"b": Operation(given={"c": ValueType(int)})}),),
        (
            Declaration(
                owner="a",
                package="a",
                databases={"a": "guiyang"},
                operations={"b": Operation(on_cancel={"c": "1"}), "d": Operation(on_cancel={"c": "2"})},
            ),
        ),
    ],
)
def test_declarations_that_do_not_go_together_are_refused(declarations: Sequence[Declaration]) -> None:
    """Found when a process starts, and not by a person whose case meets it."""
    with pytest.raises(ValueError, match=r"\w"):
        ParticipantRegistry(declarations)
