"""What a revocation restricts is enforced where people live: in the super-app, and told wherever it is asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from jiebang.policy.calendar import ZONE
from jiebang.sandbox.control import Control
from jiebang.sandbox.faults import FaultKind, FaultOp, NetworkFault
from tests.acceptance.api_world import Person, at_superapp, closed, problem
from tests.acceptance.revoked import Town, open_town
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

FIRST: Final = 300_001
LIMIT: Final = 200_000
"""The daily receiving limit of an account without a name, in fen: the pack's."""
RICH: Final = FIRST + 90
"""Somebody with money to send."""


@pytest.fixture(scope="module")
async def town(pools: Mapping[str, Pool], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with open_town(pools, tmp_path_factory.mktemp("town")) as town:
        await town.world.people(FIRST, 40)
        await town.world.people(RICH, 3, balance_fen=100 * LIMIT)
        yield town


async def pay(town: Town, to: int, amount_fen: int) -> Any:
    body = {"from": str(RICH), "to": str(to), "amount_fen": amount_fen}
    return await town.at_superapp(RICH).ask("POST", "/v1/transfers", body)


def until_midnight(town: Town) -> timedelta:
    """How long it is until the next Shanghai day, and a minute."""
    now = town.world.now().astimezone(ZONE)
    tomorrow = datetime.combine(now.date() + timedelta(days=1), time(0, 1), ZONE)
    return tomorrow - now


async def test_money_beyond_the_day_s_limit_is_refused(town: Town) -> None:
    """A person without a name was told ¥2,000 a day: ¥2,000.01 does not come in, nor does the fen after ¥2,000."""
    one = FIRST
    case = await town.revoke(one)
    problem(await pay(town, one, LIMIT + 1), 409, "RECEIVER-UNAVAILABLE")
    assert (await pay(town, one, LIMIT - 50)).status_code == 200
    problem(await pay(town, one, 51), 409, "RECEIVER-UNAVAILABLE")
    assert (await pay(town, one, 50)).status_code == 200
    problem(await pay(town, one, 1), 409, "RECEIVER-UNAVAILABLE")
    told = (await town.limits(one))["receiving"]
    assert (told["value"], told["used"], told["unit"], told["case"], told["kind"]) == (
        LIMIT, LIMIT, "fen", case, "revoke",
    )  # fmt: skip
    town.world.later(until_midnight(town))
    assert (await town.limits(one))["receiving"]["used"] == 0
    assert (await pay(town, one, 1)).status_code == 200, "the day began anew"


async def test_a_cash_out_says_when_it_reopens(town: Town) -> None:
    """A thief who took the name off an account must not empty it; its owner is told the hour, and paid after it."""
    one = FIRST + 1
    await town.revoke(one)
    assert (await pay(town, one, 700)).status_code == 200
    body = {"account": str(one)}
    refused = problem(await town.at_superapp(one).ask("POST", "/v1/cash-outs", body), 409, "CASH-OUT-PAUSED")
    reopens = datetime.fromisoformat(refused["fields"]["until"])
    told = (await town.limits(one))["cash_out"]
    assert datetime.fromisoformat(told["until"]) == reopens
    assert timedelta(hours=71, minutes=59) < reopens - town.world.now() <= timedelta(hours=72)
    day = f"{reopens.astimezone(ZONE):%H:%M}"
    assert all(day in told[part][language] for part in ("title", "lifted") for language in ("zh", "en"))
    town.world.later(reopens - town.world.now() - timedelta(seconds=5))
    problem(await town.at_superapp(one).ask("POST", "/v1/cash-outs", body), 409, "CASH-OUT-PAUSED")
    town.world.later(timedelta(seconds=10))
    paid = await town.at_superapp(one).ask("POST", "/v1/cash-outs", body)
    assert (paid.status_code, paid.json()["amount_fen"]) == (200, 700)
    assert "cash_out" not in await town.limits(one)


async def test_a_cash_out_is_one_s_own_and_happens_once(town: Town) -> None:
    """Whoever may call the door must not empty another's wallet, and a lost answer must not empty it twice."""
    mine, other = RICH + 1, town.at_superapp(RICH + 2)
    problem(await other.ask("POST", "/v1/cash-outs", {"account": str(mine)}), 403, "NOT-ALLOWED")
    first = await town.at_superapp(mine).ask("POST", "/v1/cash-outs", {"account": str(mine)}, key="out")
    again = await town.at_superapp(mine).ask("POST", "/v1/cash-outs", {"account": str(mine)}, key="out")
    assert (first.status_code, first.json()["amount_fen"]) == (200, 100 * LIMIT)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


async def test_what_restricts_a_person_is_told_with_its_reason_and_its_end(town: Town) -> None:
    """Anti-Telecom-Fraud Law art. 32: whoever restricts says why, and how it is lifted; a person can ask."""
    one = FIRST + 2
    assert await town.limits(one) == {}, "nothing restricts whoever took nothing back"
    case = await town.revoke(one)
    found = await town.limits(one)
    assert found.keys() == {"receiving", "cash_out", "login", "moments", "friend_requests"}
    ended = await town.world.pools["platform"].fetchval(
        "SELECT ended_at FROM platform.cases WHERE account_id = $1", one
    )
    for limit in found.values():
        assert (limit["case"], limit["kind"]) == (case, "revoke")
        assert datetime.fromisoformat(limit["since"]) == ended
        assert limit["legal_basis"].endswith("Anti-Telecom-Fraud Law art. 32")
        for part in ("title", "explanation", "lifted", "appeal", "owner"):
            assert all(limit[part][language] for language in ("zh", "en"))
            assert limit[part]["en"].isascii() or "¥" in limit[part]["en"]
    assert "¥2,000.00" in found["receiving"]["explanation"]["zh"]
    assert [name for name, limit in found.items() if limit["until"]] == ["cash_out"]


async def test_a_limit_that_no_case_caused_says_so(town: Town) -> None:
    """An account that always had a limit must not be told that it took its name back."""
    one = FIRST + 3
    await town.world.pools["wallet"].execute(
        "UPDATE wallet.account SET receive_limit_fen = 5000000 WHERE account_id = $1", one
    )
    found = await town.limits(one)
    assert found.keys() == {"receiving"}
    assert (found["receiving"]["case"], found["receiving"]["since"], found["receiving"]["value"]) == (
        None,
        None,
        5000000,
    )
    assert "real name" not in found["receiving"]["explanation"]["en"]


async def test_services_ask_for_many_and_people_for_themselves(town: Town) -> None:
    """Another service asks for a thousand at once, in its order; nobody reads what restricts a stranger."""
    ids = [str(FIRST + 4 + at) for at in range(4)]
    service = Person(town.api, town.world.service(), 0)
    answer = await service.ask("POST", "/v1/limits", {"accounts": [ids[2], ids[0], ids[2]]})
    assert [one["account"] for one in answer.json()["accounts"]] == [ids[2], ids[0]]
    problem(await service.ask("POST", "/v1/limits", {"accounts": ["999999999"]}), 404, "UNKNOWN-ACCOUNT")
    problem(await service.ask("POST", "/v1/limits", {"accounts": []}), 400, "INVALID-INPUT")
    many = {"accounts": [str(at) for at in range(1, 1002)]}
    problem(await service.ask("POST", "/v1/limits", many), 400, "INVALID-INPUT")
    stranger = town.at_api(FIRST + 5)
    for asked in (
        stranger.ask("GET", f"/v1/accounts/{ids[0]}/limits"),
        stranger.ask("POST", "/v1/limits", {"accounts": [ids[0]]}),
    ):
        problem(await asked, 403, "NOT-ALLOWED")
    other = town.at_api(FIRST + 4, scopes=["check", "case:read"])
    lacking = problem(await other.ask("GET", f"/v1/accounts/{ids[0]}/limits"), 403, "NOT-ALLOWED")
    assert lacking["fields"] == {"scope": "limits:read"}
    bad = await town.at_api(FIRST + 4).ask("GET", "/v1/accounts/x/limits")
    problem(bad, 400, "INVALID-INPUT")


async def test_what_cannot_be_read_is_named_and_not_taken_for_nothing(town: Town, servers: Mapping[str, str]) -> None:
    """A service that took silence for freedom would let through what is forbidden."""
    one = FIRST + 8
    database = await town.world.pools["wallet"].fetchval("SELECT current_database()")
    async with closed(servers["shenzhen"], database):
        answer = await town.at_api(one).ask("GET", f"/v1/accounts/{one}/limits")
    assert answer.json()["unread"] == ["wallet"]


async def post(town: Town, account_id: int, body: str = "今天天气真好", **kwargs: Any) -> Any:
    return await town.at_superapp(account_id).ask(
        "POST", "/v1/moments", {"account": str(account_id), "body": body}, **kwargs
    )


async def befriend(town: Town, sender: int, to: int | str, **kwargs: Any) -> Any:
    body = {"from": str(sender), "to": str(to), "greeting": "我是小王"}
    return await town.at_superapp(sender).ask("POST", "/v1/friend-requests", body, **kwargs)


async def test_the_fourth_moment_of_a_day_is_refused(town: Town) -> None:
    """Three a day were promised, no more and no less; deleting one gives none back, and the next day begins anew."""
    one, named = FIRST + 10, FIRST + 11
    assert (await post(town, one)).status_code == 200
    await town.revoke(one)
    assert [(await post(town, one)).status_code for _ in range(2)] == [200, 200], "the first of the day counts too"
    refused = problem(await post(town, one, key="fourth"), 409, "MOMENTS-LIMIT")
    until = datetime.fromisoformat(refused["fields"]["until"])
    assert (refused["fields"]["limit"], until.astimezone(ZONE).time()) == (3, time())
    social = town.world.pools["social"]
    await social.execute("UPDATE social.moment SET deleted_at = now() WHERE account_id = $1", one)
    problem(await post(town, one), 409, "MOMENTS-LIMIT")
    assert (await town.limits(one))["moments"]["used"] == 3
    assert await social.fetchval("SELECT count(*) FROM social.moment WHERE account_id = $1", one) == 3
    assert [(await post(town, named)).status_code for _ in range(5)] == [200] * 5, "nobody else is restricted"
    town.world.later(until_midnight(town))
    assert (await post(town, one)).status_code == 200
    assert (await town.limits(one))["moments"]["used"] == 1


async def test_a_moment_is_posted_once_and_by_its_owner(town: Town) -> None:
    """A lost answer asked for again must not use up the day; nobody posts in another's name."""
    one = FIRST + 12
    await town.revoke(one)
    first, again = await post(town, one, key="m"), await post(town, one, key="m")
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert (await town.limits(one))["moments"]["used"] == 1
    body = {"account": str(one), "body": "x"}
    problem(await town.at_superapp(FIRST + 13).ask("POST", "/v1/moments", body), 403, "NOT-ALLOWED")
    lacking = town.at_superapp(one, scopes=["transfer"])
    problem(await lacking.ask("POST", "/v1/moments", body), 403, "NOT-ALLOWED")
    for change in ({"images": 10}, {"visibility": "most"}, {"body": ""}, {"body": "x" * 2001}, {"mood": "good"}):
        problem(await town.at_superapp(one).ask("POST", "/v1/moments", body | change), 400, "INVALID-INPUT")


async def test_friend_requests_are_blocked_and_strangers_learn_nothing(town: Town) -> None:
    """Whoever took their name back is left alone; who asks cannot tell them from somebody who does not exist."""
    one, stranger, named = FIRST + 14, FIRST + 15, FIRST + 16
    await town.revoke(one)
    assert (await befriend(town, stranger, named)).status_code == 200
    refused = [await befriend(town, stranger, to, key=f"to-{to}") for to in (one, 999_999_999)]
    problem(refused[0], 409, "FRIEND-UNAVAILABLE")
    assert refused[0].content == refused[1].content
    assert sorted(refused[0].headers.items()) == sorted(refused[1].headers.items())
    again = await befriend(town, stranger, one, key=f"to-{one}")
    assert again.content == refused[0].content
    rows = await town.world.pools["social"].fetch(
        "SELECT account_id, sender_id, state FROM social.friend_request WHERE sender_id = $1 ORDER BY account_id",
        stranger,
    )
    assert [tuple(row) for row in rows] == [(one, stranger, "blocked"), (named, stranger, "waiting")]
    problem(await befriend(town, stranger, stranger), 400, "INVALID-INPUT")
    body = {"from": str(stranger), "to": str(named), "greeting": "x"}
    problem(await town.at_superapp(named).ask("POST", "/v1/friend-requests", body), 403, "NOT-ALLOWED")


async def log_in(town: Town, account_id: int, code: str | None = None, **kwargs: Any) -> Any:
    body = {"account": str(account_id), "place": "深圳"} | ({} if code is None else {"code": code})
    return await town.at_superapp(account_id).ask("POST", "/v1/logins", body, **kwargs)


async def sent_code(town: Town, account_id: int) -> str:
    return str(re.findall(r"验证码 (\d{6})", (await town.phone(account_id))[-1])[0])


async def test_a_login_asks_for_the_code_on_the_phone(town: Town) -> None:
    """Whoever stole the password of an account without a name stands before its phone; its owner gets in."""
    one = FIRST + 17
    assert (await log_in(town, one)).status_code == 200, "with a name nothing is asked for"
    await town.revoke(one)
    asked = problem(await log_in(town, one, key="first"), 409, "LOGIN-CODE-NEEDED")
    assert datetime.fromisoformat(asked["fields"]["expires_at"]) > town.world.now()
    problem(await log_in(town, one, key="first"), 409, "LOGIN-CODE-NEEDED")
    assert len(await town.phone(one)) == 1, "a repeat sends no second code"
    code = await sent_code(town, one)
    wrong = "000000" if code != "000000" else "000001"
    refused = problem(await log_in(town, one, wrong), 409, "LOGIN-CODE-REFUSED")
    assert refused["fields"] == {"cause": "wrong", "tries_left": 4}
    logins = "SELECT count(*) FROM security.login WHERE account_id = $1"
    assert await town.world.pools["security"].fetchval(logins, one) == 1
    done = await log_in(town, one, code, key="in")
    assert (done.status_code, (await log_in(town, one, code, key="in")).content) == (200, done.content)
    assert await town.world.pools["security"].fetchval(logins, one) == 2
    spent = problem(await log_in(town, one, code), 409, "LOGIN-CODE-REFUSED")
    assert spent["fields"]["cause"] == "not_sent", "a code is good for one login"
    dump = str(await town.world.pools["security"].fetch("SELECT * FROM security.login_code"))
    assert code not in dump


async def test_codes_of_logins_end(town: Town) -> None:
    """Five wrong tries, five minutes, one code a minute: a guesser and a nuisance both come to an end."""
    one = FIRST + 18
    await town.revoke(one)
    await log_in(town, one)
    waits = await log_in(town, one)
    problem(waits, 429, "TOO-SOON")
    assert 0 < int(waits.headers["retry-after"]) <= 61
    code = await sent_code(town, one)
    wrong = "000000" if code != "000000" else "000001"
    left = [
        problem(await log_in(town, one, wrong), 409, "LOGIN-CODE-REFUSED")["fields"]["tries_left"] for _ in range(6)
    ]
    assert left == [4, 3, 2, 1, 0, 0]
    used_up = problem(await log_in(town, one, code), 409, "LOGIN-CODE-REFUSED")
    assert used_up["fields"]["cause"] == "tries_used_up"
    town.world.later(timedelta(minutes=2))
    problem(await log_in(town, one), 409, "LOGIN-CODE-NEEDED")
    code = await sent_code(town, one)
    town.world.later(timedelta(minutes=6))
    late = problem(await log_in(town, one, code), 409, "LOGIN-CODE-REFUSED")
    assert late["fields"]["cause"] == "expired"
    body = {"account": str(one), "place": "深圳"}
    problem(await town.at_superapp(FIRST + 19).ask("POST", "/v1/logins", body), 403, "NOT-ALLOWED")


async def play(town: Town, account_id: int, game: str = "7", **kwargs: Any) -> Any:
    body = {"account": str(account_id), "game": game}
    return await town.at_superapp(account_id).ask("POST", "/v1/game-sessions", body, **kwargs)


async def test_a_guarded_account_starts_no_game_while_its_case_is_under_way(town: Town) -> None:
    """A minor's games are off from the first Try to the end, and back whether the case came about or not."""
    gaming, platform = town.world.pools["gaming"], town.world.pools["platform"]
    guarded, grown = FIRST + 20, FIRST + 21
    for account_id in (guarded, grown):
        await gaming.execute(
            "INSERT INTO gaming.access (account_id, game_id, name, granted_at) VALUES ($1, 7, '象棋', now())",
            account_id,
        )
    await gaming.execute("UPDATE gaming.account SET game_guard = true WHERE account_id = $1", guarded)
    assert (await play(town, guarded)).status_code == 200
    control = Control(town.networks.link("unionpay"))
    for account_id in (guarded, grown):
        case = await town.open(account_id)
        await control.set_faults([NetworkFault(FaultKind.SLOW, ops=(FaultOp.TRY,), ms=1500)])
        finishing = asyncio.create_task(town.finish(case))
        tried = "SELECT case_op = 'tried' FROM gaming.account WHERE account_id = $1"
        async with asyncio.timeout(PATIENCE_S):
            while not await gaming.fetchval(tried, account_id):  # noqa: ASYNC110 - another's state without an event
                await asyncio.sleep(0.01)
        if account_id == guarded:
            problem(await play(town, guarded, key="now"), 409, "GAMES-OFF")
            told = (await town.limits(guarded))["games"]
            opened = await platform.fetchval("SELECT created_at FROM platform.cases WHERE account_id = $1", guarded)
            assert (told["case"], datetime.fromisoformat(told["since"]), told["until"]) == (case, opened, None)
        else:
            assert (await play(town, grown)).status_code == 200, "nobody else is kept from playing"
        assert await finishing == "done"
        await control.set_faults([])
    await control.aclose()
    assert "games" not in await town.limits(guarded)
    started = await play(town, guarded, key="after")
    assert (started.status_code, (await play(town, guarded, key="after")).content) == (200, started.content)
    problem(await play(town, guarded, game="8"), 409, "NO-SUCH-GAME")


async def test_a_gateway_that_is_away_is_no_fault_of_the_person_s(town: Town, tmp_path: Path) -> None:
    """Without a phone nobody can type its code: they are told to come again, not that their code was wrong."""
    one = FIRST + 22
    await town.revoke(one)
    async with at_superapp(town.world, tmp_path) as silent:
        person = Person(silent, town.world.token(one), one)
        answer = await person.ask("POST", "/v1/logins", {"account": str(one), "place": "深圳"})
    assert problem(answer, 503, "PARTICIPANT-UNAVAILABLE")["fields"] == {"participant": "phone"}


async def call_open_api(town: Town, account_id: int, subject: str, api: str = "user.info", **kwargs: Any) -> Any:
    body = {"account": str(account_id), "subject": subject, "api": api}
    return await town.at_superapp(account_id).ask("POST", "/v1/open-api/calls", body, **kwargs)


async def test_calls_beyond_the_test_quota_get_429_and_what_to_do(town: Town) -> None:
    """A developer whose name is gone was told 100 calls a day: the 101st of a mini program says what to do."""
    one, openplatform = FIRST + 23, town.world.pools["openplatform"]
    await openplatform.execute(
        "UPDATE openplatform.account SET api_quota_level = 'standard' WHERE account_id = $1", one
    )
    await openplatform.execute(
        """INSERT INTO openplatform.mini_program (account_id, program_id, name, state, created_at)
           VALUES ($1, 'wxmini', '点餐', 'published', now()), ($1, 'wxdraft', '草稿', 'draft', now())""",
        one,
    )
    await openplatform.execute(
        "INSERT INTO openplatform.app (account_id, app_id, name, technical_lead, created_at)"
        " VALUES ($1, 'wxapp', '记账', false, now())",
        one,
    )
    await openplatform.execute(
        """INSERT INTO openplatform.quota (account_id, app_id, api, calls_per_day)
           VALUES ($1, 'wxapp', 'user.info', 5000), ($1, 'wxapp', 'pay.order', 2)""",
        one,
    )
    first = await call_open_api(town, one, "wxapp")
    assert (first.json()["calls"], first.json()["left"]) == (1, 4999)
    await town.revoke(one)
    answers = [(await call_open_api(town, one, "wxmini")) for _ in range(100)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["left"] == 0
    refused = await call_open_api(town, one, "wxmini", key="more")
    told = problem(refused, 429, "API-QUOTA-USED")
    assert (told["fields"]["limit"], told["fields"]["at_test_level"]) == (100, True)
    assert "资质" in told["zh"]["action"]
    assert "qualification" in told["en"]["action"]
    until = datetime.fromisoformat(told["fields"]["until"])
    assert until.astimezone(ZONE).time() == time()
    wait = (until - town.world.now()).total_seconds()
    assert abs(int(refused.headers["retry-after"]) - wait) < 5
    another = await call_open_api(town, one, "wxapp")
    assert (another.json()["calls"], another.json()["left"]) == (2, 98), "what was called before counts"
    assert (await call_open_api(town, one, "wxmini", "qr.make")).json()["left"] == 99, "each API has its own"
    assert [(await call_open_api(town, one, "wxapp", "pay.order")).status_code for _ in range(3)] == [200, 200, 429]
    for subject in ("wxdraft", "wxnone"):
        problem(await call_open_api(town, one, subject), 409, "NO-SUCH-APP")
    problem(await town.at_superapp(FIRST + 24).ask(
        "POST", "/v1/open-api/calls", {"account": str(one), "subject": "wxapp", "api": "x"}
    ), 403, "NOT-ALLOWED")  # fmt: skip
    limit = (await town.limits(one))["api_calls"]
    assert (limit["value"], limit["unit"], limit["kind"]) == (100, "count", "revoke")
    assert "100" in limit["explanation"]["en"]
    town.world.later(until_midnight(town))
    assert (await call_open_api(town, one, "wxmini", key="more")).status_code == 200, "and the same key goes through"


async def test_a_developer_with_a_name_keeps_the_quota(town: Town) -> None:
    """The gate must restrict nobody whose case did not come about, nor who develops nothing."""
    one, plain, openplatform = FIRST + 25, FIRST + 26, town.world.pools["openplatform"]
    await openplatform.execute("UPDATE openplatform.account SET api_quota_level = 'high' WHERE account_id = $1", one)
    await openplatform.execute(
        "INSERT INTO openplatform.app (account_id, app_id, name, technical_lead, created_at)"
        " VALUES ($1, 'wxfree', '地图', false, now())",
        one,
    )
    answers = [await call_open_api(town, one, "wxfree") for _ in range(3)]
    assert [(answer.json()["calls"], answer.json()["left"]) for answer in answers] == [(1, None), (2, None), (3, None)]
    await town.revoke(plain)
    level = await openplatform.fetchrow(
        "SELECT api_quota_level, test_calls_per_day FROM openplatform.account WHERE account_id = $1", plain
    )
    assert level is not None
    assert tuple(level) == ("none", None)
    assert "api_calls" not in await town.limits(plain)


async def test_an_enterprise_s_key_stops(town: Town) -> None:
    """Systems that call under a name that is gone must stop at once, and be told whom to ask for a new key."""
    one, enterprise = FIRST + 27, town.world.pools["enterprise"]
    await enterprise.execute("UPDATE enterprise.account SET api_rights = true WHERE account_id = $1", one)
    await enterprise.execute(
        """INSERT INTO enterprise.api_credential (account_id, credential_id, enterprise_id, name, issued_at, revoked_at)
           VALUES ($1, 1, 9, '考勤', now(), NULL), ($1, 2, 9, '旧', now(), now())""",
        one,
    )

    async def call(credential: int, **kwargs: Any) -> Any:
        body = {"account": str(one), "credential": str(credential), "api": "members.list"}
        return await town.at_superapp(one).ask("POST", "/v1/enterprise-api/calls", body, **kwargs)

    assert (await call(1)).status_code == 200
    for dead in (2, 3):
        problem(await call(dead), 403, "API-KEY-ENDED")
    case = await town.revoke(one)
    told = problem(await call(1), 403, "API-KEY-ENDED")
    assert "管理员" in told["zh"]["action"]
    limit = (await town.limits(one))["enterprise_api"]
    assert (limit["case"], limit["until"]) == (case, None)
