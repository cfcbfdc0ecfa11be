"""Every door that needs no database, fuzzed: tokens, key sets, signed peers' answers, files. Never a fault of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from jiebang.model.decoding import decode_any
from jiebang.model.errors import (
    HomeUnusableError,
    InvalidInputError,
    JiebangError,
    NotAuthenticatedError,
    ParticipantUnavailableError,
    SettingsError,
)
from jiebang.model.plan import UNNAMED, PlannedOperation
from jiebang.participants.http import HttpParticipant
from jiebang.policy.record import decode_record
from jiebang.remote.client import RemoteError
from jiebang.remote.signing import Link, Responder, SignedRequest
from jiebang.remote.stand_ins import ADDRESSES, read_links
from jiebang.remote.tokens import Caller, IssuerKeys, KeysUnavailableError, TokenVerifier
from jiebang.saga.fence import CaseOp, FenceRow, Op
from jiebang.saga.orders import Order
from jiebang.saga.recovery_evidence import RestoredInstallation
from jiebang.sandbox.population.reading import LineFault, PopulationLine, read_person
from jiebang.settings import read_settings
from jiebang.store.postgres.data_directory import Home
from jiebang.store.postgres.supervisor import parse_error, read_state
from jiebang.store.timelines import anchor
from jiebang.store.timelines.seal_signing_keys import FOLDER, read_seal_keys
from jiebang.usecases.driving.recover import RecoverySetup, recover
from jiebang.usecases.operations.readiness import check_readiness
from tests.examples import examples
from tests.hostile import BRACKETS, JSON, TEXT, hostile

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "https://issuer.test", "https://api.test"
KEY: Final = ECKey.generate_key("P-256", auto_kid=True)
PUBLIC: Final = {**KEY.as_dict(private=False), "use": "sig", "alg": "ES256", "kid": KEY.kid}
HEADER: Final = {"typ": "at+jwt", "alg": "ES256", "kid": KEY.kid}
CLAIMS: Final = {
    "iss": ISSUER, "aud": AUDIENCE, "sub": "1001", "client_id": "app", "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 60, "jti": "1", "scope": "check case:read", "device": "phone-1",
}  # fmt: skip


def verifier_of(document: bytes) -> TokenVerifier:
    """A verifier whose issuer answers `document` to whoever asks for its keys."""

    async def read() -> bytes:
        return document

    keys = IssuerKeys(read, lambda: NOW)
    return TokenVerifier(issuer=ISSUER, audience=AUDIENCE, keys=keys, clock=lambda: NOW)


async def call(verifier: TokenVerifier, authorization: str) -> Caller | None:
    """Return the caller, None for who is none; anything but the two errors that may be is the test's failure."""
    try:
        caller = await verifier.caller(authorization)
    except (NotAuthenticatedError, KeysUnavailableError):
        return None
    assert caller.subject.isprintable()
    assert caller.device is None or caller.device.isprintable()
    assert caller.expires_at > NOW or caller.expires_at.tzinfo is UTC
    return caller


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sign(payload: bytes) -> str:
    return "Bearer " + jws.serialize_compact(HEADER, payload, KEY, algorithms=["ES256"])


GOOD: Final = verifier_of(json.dumps({"keys": [PUBLIC]}).encode())


@given(
    st.one_of(
        TEXT.map(lambda text: f"Bearer {text}"),
        TEXT,
        st.builds(
            lambda head, body, end: f"Bearer {part(head)}.{part(body)}.{part(end)}",
            hostile(HEADER),
            hostile(CLAIMS),
            st.binary(max_size=64),
        ),
        BRACKETS.map(lambda brackets: f"Bearer {part(brackets)[:8000]}.e30.x"),
    )
)
@examples(300)
async def test_a_header_that_is_no_token(authorization: str) -> None:
    """Anybody may send it: 500 and an alarm for 3,000 brackets."""
    await call(GOOD, authorization)


@given(hostile(CLAIMS))
@examples(300)
async def test_claims_that_the_issuer_signed_but_made_wrong(payload: bytes) -> None:
    """An issuer's mistake would otherwise be our fault; and what does not say who it is for is nobody's."""
    await call(GOOD, sign(payload))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"exp": float("nan")}, "invalid"),
        ({"exp": float("inf")}, "invalid"),
        ({"exp": "tomorrow"}, "invalid"),
        ({"sub": ["1001"]}, "invalid"),
        ({"sub": "\ud800", "client_id": "\ud800"}, "invalid"),
        ({"sub": "a\x00b", "client_id": "a\x00b"}, "subject"),
        ({"sub": "s" * 300, "client_id": "s" * 300}, "subject"),
        ({"sub": "9007199254740992"}, "subject"),
        ({"device": "x\x00"}, "device"),
        ({"device": 1}, "device"),
    ],
)
async def test_claims_that_cannot_be(change: dict[str, Any], cause: str) -> None:
    """Each reached the database, or a calendar, and was a fault of ours there."""
    with pytest.raises(NotAuthenticatedError) as refused:
        await GOOD.caller(sign(json.dumps(CLAIMS | change).encode()))
    assert refused.value.fields == {"cause": cause}
    twice = json.dumps(CLAIMS)[:-1] + ', "sub": "1002"}'
    with pytest.raises(NotAuthenticatedError):
        await GOOD.caller(sign(twice.encode()))


async def test_the_largest_account_may_come_in() -> None:
    """A person whose id loads could otherwise never be checked."""
    caller = await call(GOOD, sign(json.dumps(CLAIMS | {"sub": str((1 << 53) - 1)}).encode()))
    assert caller is not None
    assert caller.account_id == (1 << 53) - 1


@given(hostile({"keys": [PUBLIC, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}))
@examples(300)
async def test_a_key_set_that_is_none(document: bytes) -> None:
    """The issuer's mistake locks nobody in and is no fault of ours: its keys cannot be read, and that is told."""
    await call(verifier_of(document), sign(json.dumps(CLAIMS).encode()))


@given(st.lists(st.one_of(JSON, st.builds(lambda more: PUBLIC | more, st.dictionaries(TEXT, JSON, max_size=2)))))
@examples(200)
async def test_a_key_that_is_none_among_good_ones(others: list[Any]) -> None:
    """One key of a kind that we do not know must not lock everybody out (RFC 7517, 5)."""
    others = [each for each in others if not (isinstance(each, dict) and each.get("kid") == KEY.kid)]
    document = json.dumps({"keys": [*others, PUBLIC]}).encode()
    caller = await call(verifier_of(document), sign(json.dumps(CLAIMS).encode()))
    try:
        decode_any(document)
    except InvalidInputError:
        return
    assert caller is not None


def make_pair() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


REQUEST, REPLY = make_pair(), make_pair()
OURS: Final = Link(name="acme", base_url="http://127.0.0.1:1", private_key=REQUEST[0], peer_key=REPLY[1])
THEIRS: Final = Responder(Link(name="acme", base_url="", private_key=REPLY[0], peer_key=REQUEST[1]))


class Peer(httpx.AsyncBaseTransport):
    """A party that signs whatever it answers with its own key."""

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.body, self.status, self.headers = body, status, dict(headers or {})
        self.asked: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(await request.aread())
        sent = SignedRequest(request.method, str(request.url), dict(request.headers))
        signed = THEIRS.sign(sent, self.status, "application/json", self.body, now=datetime.now(UTC))
        headers = {name.lower(): value for name, value in signed.items()} | self.headers
        raw = [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in headers.items()]
        return httpx.Response(self.status, headers=raw, stream=httpx.ByteStream(self.body))


def party(peer: Peer) -> HttpParticipant:
    """The platform's end of a link to `peer`."""
    participant = HttpParticipant(OURS)
    participant._client._http = httpx.AsyncClient(transport=peer)
    return participant


ROWS: Final = {"rows": [{"account": "1", "case_no": 1, "case_op": "tried"}]}
RESULT: Final = {"account": "1", "case_no": 1, "outcome": "granted", "row": {"case_no": 1, "case_op": "tried"}}
RESULTS: Final = {"results": [RESULT, RESULT | {"account": "2", "outcome": "refused", "code": "BUSY"}]}
ORDERS: Final[Sequence[Order]] = [Order(1, 1, 1), Order(2, 1, 1)]


@given(hostile(ROWS))
@examples(200)
async def test_rows_that_a_peer_signed_but_made_wrong(body: bytes) -> None:
    """`/ready`, the audit and a recovery read them: a peer that answers wrongly does not answer, and no more."""
    asked = party(Peer(body))
    for read in (asked.look([1, 2]), asked.marks(0, 9, 10)):
        try:
            rows = await read
        except RemoteError:
            continue
        assert all(account in range(1, 10) and isinstance(row, FenceRow) for account, row in rows.items())


async def test_a_party_sees_at_the_try_what_its_confirm_would_have_to_apply() -> None:
    """What it cannot apply it can refuse then alone: afterwards the person is half unbound for ever."""
    peer = Peer(json.dumps(RESULTS).encode())
    for op in Op:
        await party(peer).apply(op, ORDERS, PlannedOperation("close", {"points_kept": 3}))
    sent = [json.loads(body).get("effects") for body in peer.asked]
    assert dict(zip(Op, sent, strict=True)) == {
        Op.TRY: {"points_kept": 3},
        Op.CONFIRM: {"points_kept": 3},
        Op.CANCEL: None,
    }


@given(hostile(RESULTS), st.sampled_from(Op))
@examples(200)
async def test_results_that_a_peer_signed_but_made_wrong(body: bytes, op: Op) -> None:
    """The saga takes silence for unknown and asks again; anything else would stop the whole batch, and the worker."""
    try:
        replies = await party(Peer(body)).apply(op, ORDERS, UNNAMED)
    except RemoteError:
        return
    assert {(reply.account_id, reply.case_no) for reply in replies} <= {(1, 1), (2, 1)}


async def test_one_bad_result_among_good_ones_leaves_the_others() -> None:
    """One person's malformed result must not be everybody's silence."""
    good = RESULT | {"row": {"case_no": 1, "case_op": "tried"}}
    several: list[Any] = [{"account": 2}, [], None, RESULT | {"account": "9007199254740992"}]
    for bad in several:
        participant = party(Peer(json.dumps({"results": [bad, good]}).encode()))
        assert [reply.account_id for reply in await participant.apply(Op.TRY, ORDERS, UNNAMED)] == [1]


@given(
    st.dictionaries(
        st.sampled_from(["signature", "signature-input", "content-digest", "content-type"]),
        st.one_of(
            st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40),
            st.sampled_from(['jiebang=("', "jiebang=:AA==:", "jiebang=?1", "a=1;b", "sha-256=:x:", "()", "jiebang=()"]),
        ),
        min_size=1,
    ),
    st.sampled_from([200, 204, 301, 404, 500]),
)
@examples(200)
async def test_signatures_that_cannot_be_read(headers: dict[str, str], status: int) -> None:
    """The library of signatures raises errors of any type for what it cannot parse."""
    with pytest.raises(RemoteError):
        await party(Peer(b'{"rows":[]}', status, headers)).look([1])
    sent = SignedRequest("POST", "http://127.0.0.1/try", headers)
    with pytest.raises(JiebangError):
        THEIRS.verify(sent, b"{}")


@given(hostile({"code": "X"}))
@examples(100)
async def test_a_refusal_that_a_peer_signed_but_made_wrong(body: bytes) -> None:
    """Its status is known whatever its body is."""
    with pytest.raises(RemoteError) as refused:
        await party(Peer(body, 500)).look([1])
    assert refused.value.status == 500


class _Platform:
    async def fetchval(self, statement: str) -> str:
        assert statement == "SHOW transaction_read_only"
        return "off"


class _Broken:
    """A party that fails in a way that nobody foresaw."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def look(self, _: object) -> object:
        raise self.error


class _Context:
    def __init__(self, participants: Mapping[str, object]) -> None:
        self.platform, self.participants = _Platform(), participants


@pytest.mark.parametrize(
    "error", [RecursionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, ""), KeyError(1), TypeError(), MemoryError()]
)
async def test_ready_takes_any_fault_of_a_party_for_silence(error: BaseException) -> None:
    """Every load balancer would otherwise take every process out, for one party that is broken."""
    context: Any = _Context({"broken": _Broken(error), "acme": party(Peer(b'{"rows":[]}'))})
    found = await check_readiness(context, timedelta(seconds=5))
    assert found == {"platform": True, "broken": False, "acme": True}


@pytest.mark.parametrize("broken", [_Broken(RecursionError()), party(Peer(b'{"rows":' + b"[" * 3000))])
async def test_a_recovery_takes_any_fault_of_a_party_for_silence(broken: Any) -> None:
    """An operator would be shown a stack of Python in the place of whom to call."""
    pool: Any = None
    setup = RecoverySetup(
        pool=pool,
        participants={"acme": broken},
        restored=RestoredInstallation(databases=(), plan_of=lambda _: pytest.fail("not reached"), plans=()),
        clock=lambda: NOW,
        pause=timedelta(0),
    )
    with pytest.raises(ParticipantUnavailableError) as refused:
        await recover(setup, "test")
    assert refused.value.fields["participant"] == "acme"


@given(hostile({"a": "x"}))
@examples(100)
def test_files_that_are_damaged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A file that a full disk or an editor spoiled is told of, or taken for none; never a stack of Python."""
    folder = tmp_path_factory.mktemp("files")
    for name in (ADDRESSES, "state.json", "anchor", "settings.json"):
        (folder / name).write_bytes(content)
    assert read_links(folder, ["acme"]) == {}
    assert read_state(Home(folder, folder)) is None
    assert isinstance(parse_error(content, folder), JiebangError)
    assert anchor.read_last(folder / "anchor") is None
    with pytest.raises(SettingsError):
        read_settings({"JIEBANG_CONFIG": str(folder / "settings.json"), "JIEBANG_NONSENSE": "1"}, folder)
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "old.json").write_bytes(content)
    with pytest.raises(HomeUnusableError):
        read_seal_keys(folder, bytes(32))
    with pytest.raises(ValueError, match="not a record"):
        decode_record(content)
    read = read_person(PopulationLine(1, content), NOW, NOW.date())
    assert read is None or all(isinstance(fault, LineFault) for fault in read)  # type: ignore[union-attr] # no person


def test_a_row_of_the_fence_is_held_once() -> None:
    """The examples above are of the protocol as it is: else they would test nothing."""
    assert FenceRow(1, CaseOp.TRIED).case_op == "tried"
