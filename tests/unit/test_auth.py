"""Who is calling: every way in which a token can be wrong is refused, and the issuer's keys are found anew in time."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from jiebang.model.errors import NotAllowedError, NotAuthenticatedError
from jiebang.model.origin import SERVICE, UNKNOWN, Origin
from jiebang.remote.tokens import IssuerKeys, KeysUnavailableError, TokenScope, TokenVerifier, keys_from_file
from jiebang.sandbox.issuer import SandboxIssuer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NONE = b'{"alg":"none","typ":"at+jwt"}'
ISSUER, AUDIENCE = "https://issuer.test", "https://api.test"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(tmp_path: Path) -> SandboxIssuer:
    return SandboxIssuer(tmp_path, issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture
def verifier(issuer: SandboxIssuer, clock: Clock) -> TokenVerifier:
    return TokenVerifier(
        issuer=ISSUER, audience=AUDIENCE, keys=IssuerKeys(keys_from_file(issuer.jwks_path), clock), clock=clock
    )


def claims(**changes: Any) -> dict[str, Any]:
    whole = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "1001", "client_id": "app", "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 60, "jti": "1", "scope": "check",
    } | changes  # fmt: skip
    return {name: value for name, value in whole.items() if value is not ...}


def signed(issuer: SandboxIssuer, body: Mapping[str, Any], **header: Any) -> str:
    head = {"typ": "at+jwt", "alg": "ES256", "kid": issuer._key.kid} | header
    return "Bearer " + jwt.encode(head, dict(body), issuer._key, algorithms=["ES256"], default_type=None)


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


async def test_a_person_and_their_device(issuer: SandboxIssuer, verifier: TokenVerifier) -> None:
    token = issuer.person(1001, NOW, "1", device="phone-1", scopes=["check", "case:read"])
    caller = await verifier.caller(f"bearer {token}")
    assert (caller.account_id, caller.device, caller.scopes) == (
        1001,
        "phone-1",
        frozenset({"check", "case:read"}),
    )
    assert caller.reaches(1001)
    assert not caller.reaches(1002)
    assert caller.origin == Origin("phone-1")
    assert (await verifier.caller(f"Bearer {issuer.person(1001, NOW, '2')}")).origin == UNKNOWN
    with pytest.raises(NotAllowedError):
        caller.require(TokenScope.CASE_WRITE)


async def test_a_service_is_no_person(issuer: SandboxIssuer, verifier: TokenVerifier) -> None:
    """A client whose name is a number must not become the person of that number."""
    caller = await verifier.caller("Bearer " + issuer.service("1001", NOW, "1"))
    assert caller.account_id is None
    assert caller.origin == SERVICE
    assert caller.name == "service:1001"
    assert (await verifier.caller("Bearer " + issuer.person(1001, NOW, "2"))).name == "person:1001"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.test"}, {"iss": ...}, {"aud": "https://other.test"}, {"aud": ...}, {"sub": ...},
        {"sub": "someone"}, {"sub": "0"}, {"sub": "01"}, {"sub": "9" * 17}, {"sub": 1001}, {"client_id": ...},
        {"jti": ...}, {"iat": ...}, {"exp": ...}, {"exp": "tomorrow"}, {"exp": True},
        {"exp": int(NOW.timestamp()) - 31},
        {"nbf": int(NOW.timestamp()) + 31}, {"iat": int(NOW.timestamp()) + 31}, {"device": ""}, {"device": "x" * 129},
        {"device": 7}, {"device": "a\x00b"},
    ],
)  # fmt: skip
async def test_claims_that_do_not_hold(issuer: SandboxIssuer, verifier: TokenVerifier, changes: dict[str, Any]) -> None:
    """Each required claim is required, and each is checked, leeway and all."""
    with pytest.raises(NotAuthenticatedError):
        await verifier.caller(signed(issuer, claims(**changes)))


async def test_clocks_may_differ_a_little(issuer: SandboxIssuer, verifier: TokenVerifier) -> None:
    second = int(NOW.timestamp())
    assert await verifier.caller(signed(issuer, claims(exp=second - 29)))
    assert await verifier.caller(signed(issuer, claims(nbf=second + 29, aud=["https://x.test", AUDIENCE])))
    far = await verifier.caller(signed(issuer, claims(exp=10**15)))
    assert far.expires_at.year > 5000


@pytest.mark.parametrize("kind", ["JWT", "id+jwt", ""])
async def test_another_kind_of_token(issuer: SandboxIssuer, verifier: TokenVerifier, kind: str) -> None:
    """An ID token or any other JWT of the same issuer is no access token (RFC 9068 §4)."""
    with pytest.raises(NotAuthenticatedError):
        await verifier.caller(signed(issuer, claims(), typ=kind))


async def test_signatures_that_prove_nothing(issuer: SandboxIssuer, verifier: TokenVerifier) -> None:
    """No `none`, no shared secret made of the public key, no stranger's key, no changed byte."""
    kid = str(issuer._key.kid)
    stranger = ECKey.generate_key("P-256", {"kid": kid})
    rsa = RSAKey.generate_key(2048, {"kid": kid})
    good = signed(issuer, claims())
    shared = f"{part(msgspec.json.encode({'typ': 'at+jwt', 'alg': 'HS256', 'kid': kid}))}.{good.split('.')[1]}"
    forged = [
        "Bearer " + jwt.encode({"typ": "at+jwt", "alg": "ES256", "kid": kid}, claims(), stranger, algorithms=["ES256"]),
        "Bearer " + jwt.encode({"typ": "at+jwt", "alg": "RS256", "kid": kid}, claims(), rsa, algorithms=["RS256"]),
        f"Bearer {shared}.{part(hmac.digest(issuer._key.as_pem(private=False), shared.encode(), 'sha256'))}",
        f"Bearer {part(NONE)}.{good.split('.')[1]}.",
        good[:-4] + "AAAA",
        good.replace(".", "..", 1),
        "Bearer " + "A" * 9000,
    ]
    for token in forged:
        with pytest.raises(NotAuthenticatedError):
            await verifier.caller(token)


async def test_a_new_key_is_found_and_an_unknown_one_asks_seldom(issuer: SandboxIssuer, clock: Clock) -> None:
    """The issuer turns its keys over without a restart of ours; made-up key ids do not make us ask each time."""
    reads = 0
    document = issuer.jwks_path.read_bytes()

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        return document

    verifier = TokenVerifier(issuer=ISSUER, audience=AUDIENCE, keys=IssuerKeys(read, clock), clock=clock)
    good = signed(issuer, claims(exp=int(NOW.timestamp()) + 9999))
    await asyncio.gather(*(verifier.caller(good) for _ in range(20)))
    assert reads == 1
    for _ in range(20):
        with pytest.raises(NotAuthenticatedError):
            await verifier.caller(signed(issuer, claims(), kid="unknown"))
    assert reads == 1
    clock.now += timedelta(seconds=11)
    with pytest.raises(NotAuthenticatedError):
        await verifier.caller(signed(issuer, claims(), kid="unknown"))
    assert reads == 2
    document = b"not a document"
    clock.now += timedelta(minutes=11)
    assert await verifier.caller(good), "an issuer that is silent must not lock everybody out"
    assert reads == 3


async def test_no_keys_at_all(clock: Clock, tmp_path: Path) -> None:
    """Without keys nobody is let in, and it is told as our trouble, not the caller's."""
    verifier = TokenVerifier(
        issuer=ISSUER, audience=AUDIENCE, keys=IssuerKeys(keys_from_file(tmp_path / "none.json"), clock), clock=clock
    )
    with pytest.raises(KeysUnavailableError):
        await verifier.caller("Bearer " + part(b'{"alg":"ES256","typ":"at+jwt"}') + ".e30.AA")


def test_the_sandbox_keeps_its_key_to_itself(issuer: SandboxIssuer, tmp_path: Path) -> None:
    """The private key is its owner's alone, is not in the public file, and is the same next time."""
    assert (tmp_path / "issuer-key.json").stat().st_mode & 0o777 == 0o600
    public = msgspec.json.decode(issuer.jwks_path.read_bytes())["keys"]
    assert [set(key) & {"d", "p", "q", "k"} for key in public] == [set()]
    again = SandboxIssuer(tmp_path, issuer=ISSUER, audience=AUDIENCE)
    assert again._key.kid == issuer._key.kid
    assert sorted(path.name for path in tmp_path.iterdir()) == ["issuer-jwks.json", "issuer-key.json"]
