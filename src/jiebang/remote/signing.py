"""Signed HTTP between the platform and a remote party: RFC 9421 message signatures over an RFC 9530 content digest.

Both directions are signed with Ed25519, with one key pair per direction and party: a request meant for one network is
refused by every other, and a reply that was changed on the way, or belongs to another request, is detected.
docs/remote-participants.md says the same in words, for whoever implements the other side.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, HTTPSignatureKeyResolver, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from jiebang.model.check import Text
from jiebang.model.errors import BadSignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable

LABEL: Final = "jiebang"
REQUEST_TAG: Final = "jiebang-request"
REPLY_TAG: Final = "jiebang-reply"
LIFETIME: Final = timedelta(seconds=30)
"""From `created` to `expires`; a receiver remembers a nonce for this long (and the clock skew of 5 s on top)."""
SKEW: Final = timedelta(seconds=5)
REQUEST_COVERS: Final = ("@method", "@authority", "@path", "@query", "content-type", "content-digest")
REPLY_COVERS: Final = (
    '"@status"',
    '"content-type"',
    '"content-digest"',
    f'"signature";req;key="{LABEL}"',
)
"""A reply covers the signature of the request that it answers, and through it the whole request."""
NONCE_LENGTHS: Final = range(16, 65)
_NONCE_MISSING: Final = Text("签名须带 16 至 64 个字符的 nonce", "nonce must have 16 to 64 characters")
_TOO_LONG_LIVED: Final = Text(
    "签名须带 expires,且距 created 不超过 30 秒", "expires must be set, at most 30 s after created"
)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a signed connection: the party's name and address, its own private key and its peer's public one.

    Keys are PEM: PKCS 8, and SubjectPublicKeyInfo.
    """

    name: str
    base_url: str
    private_key: bytes
    peer_key: bytes


class SignedRequest(msgspec.Struct, frozen=True):
    """A request as its signature covers it. `headers` has each field once, repeated lines joined with ", "."""

    method: str
    url: str
    headers: dict[str, str]


class SignedReply(msgspec.Struct, frozen=True):
    """A reply as its signature covers it, with the request that it answers."""

    status_code: int
    headers: dict[str, str]
    request: SignedRequest


class RequestParameters(msgspec.Struct, frozen=True):
    """The parameters of a valid request signature. The receiver must refuse a nonce that it has seen before."""

    nonce: str
    expires: int


def join_headers(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join repeated header lines in order, names in lower case (RFC 9110, 5.3)."""
    headers = dict[str, str]()
    for name, value in fields:
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


class Requester:
    """Our end of a link: signs requests, verifies replies."""

    def __init__(self, link: Link) -> None:
        """Read both keys. Raises ValueError for a PEM that is not an Ed25519 key."""
        self._key_id = f"{link.name}-request"
        self._signer = _build_signer(self._key_id, link.private_key)
        self._verifier = _build_verifier(f"{link.name}-reply", link.peer_key)

    def sign(self, method: str, url: str, body: bytes, *, now: datetime, nonce: str) -> SignedRequest:
        """Return the request with its headers: content type and digest, and the signature."""
        sent = SignedRequest(method, url, {"content-type": "application/json"})
        self._signer.sign(
            sent,
            key_id=self._key_id,
            created=now,
            expires=now + LIFETIME,
            nonce=nonce,
            label=LABEL,
            tag=REQUEST_TAG,
            covered_component_ids=REQUEST_COVERS,
            body=body,
        )
        return sent

    def verify(self, sent: SignedRequest, status: int, headers: dict[str, str], body: bytes) -> None:
        """Verify that the reply is the peer's, unchanged, and answers `sent`. Raises BadSignatureError."""
        try:
            self._verifier.verify(
                SignedReply(status, headers, sent),
                max_age=LIFETIME,
                expect_tag=REPLY_TAG,
                require_components=REPLY_COVERS,
                body=body,
            )
        except Exception as error:  # its library raises errors of any type for a malformed header
            raise BadSignatureError(reason=_build_reason(error)) from error


class Responder:
    """The other end of a link: verifies requests, signs replies."""

    def __init__(self, link: Link) -> None:
        """Read both keys. Raises ValueError for a PEM that is not an Ed25519 key."""
        self._key_id = f"{link.name}-reply"
        self._signer = _build_signer(self._key_id, link.private_key)
        self._verifier = _build_verifier(f"{link.name}-request", link.peer_key)

    def verify(self, sent: SignedRequest, body: bytes) -> RequestParameters:
        """Verify that the request is the platform's, unchanged and current. Raises BadSignatureError."""
        try:
            (result,) = self._verifier.verify(
                sent, max_age=LIFETIME, expect_tag=REQUEST_TAG, require_components=REQUEST_COVERS, body=body
            )
        except Exception as error:  # as above
            raise BadSignatureError(reason=_build_reason(error)) from error
        nonce, expires, created = result.nonce, result.parameters.get("expires"), result.parameters.get("created")
        if nonce is None or len(nonce) not in NONCE_LENGTHS:
            raise BadSignatureError(reason=_NONCE_MISSING)
        if not isinstance(expires, int) or not isinstance(created, int) or expires - created > LIFETIME.total_seconds():
            raise BadSignatureError(reason=_TOO_LONG_LIVED)
        return RequestParameters(nonce, expires)

    def sign(
        self, sent: SignedRequest, status: int, content_type: str, body: bytes, *, now: datetime
    ) -> dict[str, str]:
        """Return the headers of a signed reply to `sent`."""
        answered = SignedReply(status, {"content-type": content_type}, sent)
        self._signer.sign(
            answered,
            key_id=self._key_id,
            created=now,
            expires=now + LIFETIME,
            label=LABEL,
            tag=REPLY_TAG,
            covered_component_ids=REPLY_COVERS,
            body=body,
        )
        return answered.headers


def _build_reason(error: Exception) -> Text:
    if not isinstance(error, HTTPMessageSignaturesException | ValueError):
        return Text("签名头部无法读取", "the signature's headers cannot be read")
    return Text(f"签名校验未通过({error})", str(error) or "the signature does not match")


def _build_signer(key_id: str, pem: bytes) -> HTTPMessageSigner:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        message = f"{key_id}: not an Ed25519 private key"
        raise ValueError(message)  # noqa: TRY004 - the value of the file is wrong, not its type
    return HTTPMessageSigner(
        signature_algorithm=ED25519, key_resolver=MappingKeyResolver(public_keys={}, private_keys={key_id: key})
    )


def _build_verifier(key_id: str, pem: bytes) -> HTTPMessageVerifier:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        message = f"{key_id}: not an Ed25519 public key"
        raise ValueError(message)  # noqa: TRY004 - the value of the file is wrong, not its type
    resolver: HTTPSignatureKeyResolver = MappingKeyResolver(public_keys={key_id: key}, private_keys={})
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=resolver)
    verifier.max_clock_skew = SKEW
    return verifier
