"""The sandbox's token issuer: it stands in for the platform's sign-in, for the demo, the command line and the tests.

Its private key stays in the home folder, readable by its owner alone; the API reads only the public half, as it would
from any issuer. It issues a token for any account: not for production.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from jiebang.files import write, write_once
from jiebang.remote.stand_ins import AUDIENCE, ISSUER, JWKS

if TYPE_CHECKING:
    from collections.abc import Iterable

PERSON_SCOPES: Final = (
    "check",
    "case:read",
    "case:write",
    "transfer",
    "limits:read",
    "social:write",
    "login",
    "play",
    "api:call",
)
"""What a person may do with their own account."""
SERVICE_SCOPES: Final = (*PERSON_SCOPES, "service")
"""What a service of the platform may do with any account."""


class SandboxIssuer:
    """Mints access tokens (RFC 9068) under a key kept in `home`, made at first use."""

    def __init__(self, home: Path, *, issuer: str = ISSUER, audience: str = AUDIENCE) -> None:
        """Take where the key is kept and the names that the API expects. Raises OSError."""
        self.issuer, self.audience = issuer, audience
        self.jwks_path = home / JWKS
        self._key = _key(home / "issuer-key.json")
        write(self.jwks_path, msgspec.json.encode({"keys": [self._public()]}), 0o644)

    def _public(self) -> dict[str, object]:
        return {**self._key.as_dict(private=False), "use": "sig", "alg": "ES256", "kid": self._key.kid}

    def person(
        self,
        account_id: int,
        now: datetime,
        token_id: str,
        *,
        device: str | None = None,
        scopes: Iterable[str] = PERSON_SCOPES,
        lives: timedelta = timedelta(hours=1),
    ) -> str:
        """Return a token of one person, at one of their devices. `token_id`: the claim `jti`."""
        return self._mint(str(account_id), "jiebang-sandbox", now, token_id, scopes, lives, device)

    def service(
        self,
        client_id: str,
        now: datetime,
        token_id: str,
        *,
        scopes: Iterable[str] = SERVICE_SCOPES,
        lives: timedelta = timedelta(hours=1),
    ) -> str:
        """Return a token of a service of the platform."""
        return self._mint(client_id, client_id, now, token_id, scopes, lives, None)

    def _mint(
        self,
        subject: str,
        client_id: str,
        now: datetime,
        token_id: str,
        scopes: Iterable[str],
        lives: timedelta,
        device: str | None,
    ) -> str:
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "client_id": client_id,
            "iat": int(now.timestamp()),
            "exp": int((now + lives).timestamp()),
            "jti": token_id,
            "scope": " ".join(scopes),
        } | ({"device": device} if device else {})
        return jwt.encode(
            {"typ": "at+jwt", "alg": "ES256", "kid": self._key.kid}, claims, self._key, algorithms=["ES256"]
        )


def _key(path: Path) -> ECKey:
    """Read the private key, creating it where it is missing; processes that start at once end up with the same one."""
    if not path.exists():
        made = ECKey.generate_key("P-256", auto_kid=True)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(path, msgspec.json.encode(made.as_dict(private=True)))
    key = ECKey.import_key(msgspec.json.decode(path.read_bytes()))
    key.ensure_kid()
    return key
