"""APIs that others' systems call: those of the open platform, and those for enterprises, through their gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from jiebang.model.ids import ACCOUNT_PATTERN
from jiebang.participants.enterprise.gate import EnterpriseCall, EnterpriseGate
from jiebang.participants.openplatform.gate import OpenApiCall, OpenApiGate
from jiebang.remote.bodies import parse_account
from jiebang.remote.tokens import TokenScope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jiebang.sandbox.service import Handler, HttpAnswer, HttpCall
    from jiebang.sandbox.superapp.door import Door

Account = Annotated[str, Meta(pattern=ACCOUNT_PATTERN)]
ApiName = Annotated[str, Meta(min_length=1, max_length=64)]


class OpenApiBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of an API by an app or mini program, by its id, of a developer's account."""

    account: Account
    subject: Annotated[str, Meta(min_length=1, max_length=64)]
    api: ApiName


class EnterpriseApiBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of an API under a credential that was issued to an account for an enterprise."""

    account: Account
    credential: Annotated[str, Meta(pattern="^[1-9][0-9]{0,15}$")]
    api: ApiName


class OpenApiCalled(msgspec.Struct, frozen=True, kw_only=True):
    """A call that went through. `left`: how many more today; null: as many as are wanted."""

    account: str
    subject: str
    api: str
    calls: int
    left: int | None


class EnterpriseApiCalled(msgspec.Struct, frozen=True, kw_only=True):
    """A call that went through."""

    account: str
    credential: str
    api: str


class Interfaces:
    """The routes that others' systems call."""

    def __init__(self, door: Door, openplatform: OpenApiGate, enterprise: EnterpriseGate) -> None:
        """Take the door, and the gates that calls go through."""
        self._door, self._openplatform, self._enterprise = door, openplatform, enterprise

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Return the handlers by method and path."""
        return {
            ("POST", "/v1/open-api/calls"): self.call_open_api,
            ("POST", "/v1/enterprise-api/calls"): self.call_enterprise_api,
        }

    async def call_open_api(self, call: HttpCall) -> HttpAnswer:
        """Call an API of the open platform. Refused as `OpenApiGate.call_apis` says."""
        caller, asked = await self._door.enter(call, TokenScope.API_CALL, OpenApiBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)

        async def work(_: UUID) -> OpenApiCalled:
            one = OpenApiCall(account_id=account_id, subject_id=asked.subject, api=asked.api)
            [answer] = await self._openplatform.call_apis([one])
            if answer.refusal is not None:
                raise answer.refusal
            left = None if answer.most is None else answer.most - answer.calls
            return OpenApiCalled(
                account=asked.account, subject=asked.subject, api=asked.api, calls=answer.calls, left=left
            )

        return await self._door.once(call, caller, work, gate=self._openplatform.name)

    async def call_enterprise_api(self, call: HttpCall) -> HttpAnswer:
        """Call an API for enterprises. Refused as `EnterpriseGate.call` says."""
        caller, asked = await self._door.enter(call, TokenScope.API_CALL, EnterpriseApiBody)
        account_id = parse_account(asked.account)
        caller.require_account(account_id)

        async def work(_: UUID) -> EnterpriseApiCalled:
            one = EnterpriseCall(account_id=account_id, credential_id=int(asked.credential))
            [refusal] = await self._enterprise.call([one])
            if refusal is not None:
                raise refusal
            return EnterpriseApiCalled(account=asked.account, credential=asked.credential, api=asked.api)

        return await self._door.once(call, caller, work, gate=self._enterprise.name)
