"""The application: routes, doors and handlers joined. No globals, no settings: everything comes in as `deps`."""

from __future__ import annotations

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide

from jiebang.api.codes import CODES
from jiebang.api.deps import BODY_LIMIT, Deps
from jiebang.api.documented import openapi_config
from jiebang.api.money import MONEY
from jiebang.api.observed import Observed, hardened
from jiebang.api.operation import OPERATION
from jiebang.api.problems import HANDLERS
from jiebang.api.remedies import REMEDIES
from jiebang.api.routes import CASES


def create_app(deps: Deps) -> Litestar:
    """Return the API over objects already built; whoever built them closes them."""

    async def end_streams(_: Litestar) -> None:
        await deps.follower.aclose()

    return Litestar(
        route_handlers=[*CASES, *CODES, *MONEY, *REMEDIES, *OPERATION],
        dependencies={"deps": Provide(lambda: deps, sync_to_thread=False)},
        exception_handlers=HANDLERS,
        middleware=[Observed()],
        before_send=[hardened],
        on_shutdown=[end_streams],
        openapi_config=openapi_config(),
        request_max_body_size=BODY_LIMIT,
        state=State({"deps": deps}, deep_copy=False),
        logging_config=None,
        debug=False,
    )
