"""Authentication of callers: OAuth 2.0 bearer tokens (RFC 9068, `at+jwt`), verified against a configured issuer.

A person's token has their account as `sub`; a service's token has its own `client_id` as `sub` (RFC 9068 §2.2, client
credentials) and reaches accounts only with the scope `service`: that, and no missing claim, is what makes it a service.
The claim `device` names the person's device, as the device registry knows it; the issuer vouches for it. Without it the
device is unknown, and passes no rule that asks for one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import structlog
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError
from joserfc.jwk import JWKRegistry, Key, KeySet

from jiebang.model.check import Text
from jiebang.model.decoding import decode
from jiebang.model.errors import InvalidInputError, NotAllowedError, NotAuthenticatedError, OtherSystemError
from jiebang.model.ids import account_of
from jiebang.model.origin import SERVICE, Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = structlog.get_logger(__name__)

_TOKEN_LIMIT: Final = 8192
_DEVICE_LIMIT: Final = 128
_SUBJECT_LIMIT: Final = 255
_KEYS_LIMIT: Final = 1 << 20
"""Bytes of the longest JWKS document read from an issuer."""
_LAST_EXPIRY: Final = 1 << 37
"""Later expiries of a token are cut to this time: the year 6325, which a datetime can still hold."""
_ALGORITHMS: Final = ("ES256", "ES384", "PS256", "RS256", "Ed25519")
"""Accepted signatures (RS256 must be supported, RFC 9068 §2.1); neither `none` nor shared-secret ones."""


class TokenScope(StrEnum):
    """A permission of a token. Each route names the one that it needs."""

    CHECK = "check"
    CASE_READ = "case:read"
    CASE_WRITE = "case:write"
    TRANSFER = "transfer"
    LIMITS_READ = "limits:read"
    SOCIAL_WRITE = "social:write"
    LOGIN = "login"
    PLAY = "play"
    API_CALL = "api:call"
    SERVICE = "service"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The caller that a valid token authenticates: a person (`account_id` set, perhaps `device`) or a service."""

    subject: str
    account_id: int | None
    device: str | None
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def name(self) -> str:
        """The caller's name in the store of idempotency keys; a person and a service can never share one."""
        return f"{'service' if self.account_id is None else 'person'}:{self.subject}"

    def require(self, scope: TokenScope) -> None:
        """Raise NotAllowedError unless the token carries `scope`."""
        if scope not in self.scopes:
            raise NotAllowedError(scope=scope.value)

    def reaches(self, account_id: int) -> bool:
        """Return whether this caller may act for the account: a person for their own, a service for any."""
        if self.account_id is not None:
            return self.account_id == account_id
        return TokenScope.SERVICE in self.scopes

    def require_account(self, account_id: int) -> None:
        """Raise NotAllowedError unless the caller may act for the account."""
        if not self.reaches(account_id):
            raise NotAllowedError(account=str(account_id))

    @property
    def origin(self) -> Origin:
        """Who makes this caller's requests: a service, or the person at the device that the token names, if any."""
        return SERVICE if self.account_id is None else Origin(self.device)


class KeysUnavailableError(OtherSystemError):
    """The issuer's keys cannot be read, so no token can be verified."""

    code = "ISSUER-UNAVAILABLE"
    title = Text("令牌签发方暂不可用", "The issuer of access tokens does not answer")
    action = Text("请稍后重试。未丢失任何内容。", "Try again later. Nothing was lost.")


ReadKeys = Callable[[], Awaitable[bytes]]
"""Fetches the issuer's JWKS document. Raises OSError or httpx.HTTPError."""


def keys_from_file(path: Path) -> ReadKeys:
    """Read a JWKS from a file; it may be replaced at any time."""

    async def read() -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    return read


_ACCEPT: Final = {"accept": "application/jwk-set+json, application/json"}


def keys_from_url(url: str, client: httpx.AsyncClient) -> ReadKeys:
    """Read a JWKS from its issuer."""

    async def read() -> bytes:
        document = bytearray()
        async with client.stream("GET", url, headers=_ACCEPT) as answer:
            async for chunk in answer.raise_for_status().aiter_bytes():
                document += chunk
                if len(document) > _KEYS_LIMIT:
                    message = f"{url}: a document longer than {_KEYS_LIMIT} bytes"
                    raise OSError(message)
        return bytes(document)

    return read


class IssuerKeys:
    """The issuer's public keys, cached for `fresh_for`; an unknown key id refetches them, at most once per `pause`."""

    def __init__(
        self,
        read: ReadKeys,
        clock: Callable[[], datetime],
        *,
        fresh_for: timedelta = timedelta(minutes=10),
        pause: timedelta = timedelta(seconds=10),
    ) -> None:
        """`read`: fetches the keys; it is not called before the first token."""
        self._read, self._clock, self._fresh_for, self._pause = read, clock, fresh_for, pause
        self._keys: KeySet | None = None
        self._read_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def get(self, key_id: str | None) -> KeySet:
        """Return the keys, refetched if they are old or lack `key_id`. Raises KeysUnavailableError."""
        if self._keys is None or self._is_fetch_due(key_id):
            async with self._lock:  # during the first fetch, other callers wait for it
                if self._is_fetch_due(key_id):
                    await self._fetch()
        if self._keys is None:
            raise KeysUnavailableError
        return self._keys

    def _is_fetch_due(self, key_id: str | None) -> bool:
        if self._read_at is None:
            return True
        age = self._clock() - self._read_at
        if age < self._pause:
            return False
        return age >= self._fresh_for or key_id not in {key.kid for key in self._keys or ()}

    async def _fetch(self) -> None:
        """Fetch the keys; on failure keep the old ones: a silent issuer must not lock everybody out."""
        self._read_at = self._clock()
        try:
            document = decode(await self._read(), _KeyDocument)
        except (OSError, httpx.HTTPError, httpx.InvalidURL, InvalidInputError) as error:
            _log.warning("issuer_keys_unreadable", error=type(error).__name__)
            return
        usable = [key for key in map(_import_key, document.keys) if key is not None]
        if usable or not document.keys:
            self._keys = KeySet(usable)
        else:
            _log.warning("issuer_keys_unreadable", error="NoUsableKey")


class _KeyDocument(msgspec.Struct, frozen=True):
    keys: list[Any]


def _import_key(jwk: object) -> Key | None:
    """Return a public key for signatures; None for any other, which is passed over (RFC 7517, 5)."""
    if not isinstance(jwk, dict) or jwk.get("kty") == "oct" or jwk.get("use", "sig") != "sig":
        return None
    try:
        key = JWKRegistry.import_key(jwk)
        key.ensure_kid()
        public = bool(key.public_key)
    except Exception as error:  # noqa: BLE001 - the libraries raise errors of any type for what is no key
        _log.warning("issuer_key_ignored", error=type(error).__name__)
        return None
    return key if public and isinstance(key.kid, str) else None


class TokenVerifier:
    """Turns an Authorization header into a Caller."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: IssuerKeys,
        clock: Callable[[], datetime],
        leeway: timedelta = timedelta(seconds=30),
        algorithms: Sequence[str] = _ALGORITHMS,
    ) -> None:
        """`issuer`: whom we trust; `audience`: our own name in tokens; `leeway`: how far clocks may differ."""
        self._keys, self._algorithms = keys, [name for name in algorithms if name in _ALGORITHMS]
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock().timestamp()),
            leeway=int(leeway.total_seconds()),
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            jti={"essential": True},
            client_id={"essential": True},
        )

    async def caller(self, authorization: str | None) -> Caller:
        """Return the caller. Raises NotAuthenticatedError (fields: cause) or KeysUnavailableError."""
        if authorization is None:
            raise NotAuthenticatedError(cause="missing")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _TOKEN_LIMIT:
            raise NotAuthenticatedError(cause="malformed")
        header = _read_header(token)
        if str(header.get("typ", "")).lower() not in ("at+jwt", "application/at+jwt"):
            raise NotAuthenticatedError(cause="not_an_access_token")
        key_id = header.get("kid")
        keys = await self._keys.get(key_id if isinstance(key_id, str) else None)
        try:
            # Not joserfc's own decoding of the claims: it takes a name twice, NaN, and halves of characters.
            payload = jws.deserialize_compact(token, keys, algorithms=self._algorithms).payload
            claims = decode(payload or b"", dict[str, Any])
            self._claims.validate(claims)
            return _build_caller(claims)
        except ExpiredTokenError:
            raise NotAuthenticatedError(cause="expired") from None
        except NotAuthenticatedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a token makes the library raise, it is not valid
            _log.info("token_refused", error=type(error).__name__)
            raise NotAuthenticatedError(cause="invalid") from None


def _read_header(token: str) -> dict[str, Any]:
    """Read the unverified header, only for `typ` and `kid`."""
    part = token.partition(".")[0]
    try:
        return decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), dict[str, Any])
    except (ValueError, InvalidInputError):
        raise NotAuthenticatedError(cause="malformed") from None


def _build_caller(claims: dict[str, Any]) -> Caller:
    subject, client, device, scope = (claims.get(name) for name in ("sub", "client_id", "device", "scope"))
    if not isinstance(subject, str) or len(subject) > _SUBJECT_LIMIT or not subject.isprintable():
        raise NotAuthenticatedError(cause="subject")
    account_id = None
    if not str(subject).isprintable():
        raise NotAuthenticatedError(cause="subject")
    if subject != client:
        account_id = account_of(subject)
        if account_id is None:
            raise NotAuthenticatedError(cause="subject")
    if device is not None and not (
        isinstance(device, str) and 0 < len(device) <= _DEVICE_LIMIT and device.isprintable()
    ):
        raise NotAuthenticatedError(cause="device")
    return Caller(
        subject=subject,
        account_id=account_id,
        device=device,
        scopes=frozenset(scope.split()) if isinstance(scope, str) else frozenset(),
        expires_at=datetime.fromtimestamp(min(claims["exp"], _LAST_EXPIRY), UTC),
    )
