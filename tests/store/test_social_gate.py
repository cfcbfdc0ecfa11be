"""The gate of `social` in batches: one call, one answer each, and no day gets more moments than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from jiebang.clock import utc_now
from jiebang.model.errors import MomentsLimitError, UnknownAccountError
from jiebang.participants.social.gate import FriendRequest, MomentPost, SocialParticipant
from tests.rows import insert_accounts

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool


@pytest.fixture
def social(pools: Mapping[str, Pool]) -> SocialParticipant:
    return SocialParticipant(pools["social"], utc_now)


def moment(account_id: int, request_id: UUID | None = None) -> MomentPost:
    return MomentPost(request_id=request_id or uuid4(), account_id=account_id, body="x")


async def test_a_batch_sees_its_own_posts(pools: Mapping[str, Pool], social: SocialParticipant) -> None:
    """Ten posts in one call are no way round a limit of three; another account beside it is not held up."""
    await insert_accounts(pools["social"], "social", [1], moments_per_day=3)
    await insert_accounts(pools["social"], "social", [2])
    answers = await social.post_moments([*(moment(1) for _ in range(10)), moment(2), moment(3)])
    assert [answer.refusal is None for answer in answers] == [True] * 3 + [False] * 7 + [True, False]
    assert {type(answer.refusal) for answer in answers[3:10]} == {MomentsLimitError}
    assert isinstance(answers[-1].refusal, UnknownAccountError)
    assert [answer.moment_id for answer in answers[:3]] == [1, 2, 3]


async def test_posts_at_the_same_time_share_one_day(pools: Mapping[str, Pool], social: SocialParticipant) -> None:
    """Two phones tapping at once must not both get the last moment of the day."""
    await insert_accounts(pools["social"], "social", [10], moments_per_day=3)
    answers = await asyncio.gather(*(social.post_moments([moment(10)]) for _ in range(8)))
    assert sum(answer.refusal is None for [answer] in answers) == 3
    assert await pools["social"].fetchval("SELECT count(*) FROM social.moment WHERE account_id = 10") == 3


async def test_a_repeat_is_answered_as_before_though_the_day_is_full(
    pools: Mapping[str, Pool], social: SocialParticipant
) -> None:
    """A process that died after its post asks again: it must not be told that nothing was posted."""
    await insert_accounts(pools["social"], "social", [20, 21], moments_per_day=1, friend_requests_blocked=True)
    first = moment(20)
    [done] = await social.post_moments([first])
    assert await social.post_moments([first, first]) == [done, done]
    one = FriendRequest(request_id=uuid4(), sender=20, receiver=21, greeting="x")
    answers = [await social.ask_friends([one, one]) for _ in range(2)]
    assert {type(answer.refusal).__name__ for batch in answers for answer in batch} == {"FriendUnavailableError"}
    assert await pools["social"].fetchval("SELECT count(*) FROM social.friend_request WHERE account_id = 21") == 1
