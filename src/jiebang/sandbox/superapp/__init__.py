"""The super-app around the platform, as a process of its own: what people do there outside the platform.

`python -m jiebang.sandbox.superapp --data FILE --jwks FILE`, with the databases of the participants whose gates it
calls in `DATABASES_VARIABLE`. One subject, one router: money.py sends money, social.py posts moments
and asks for friends, login.py logs in, games.py starts games,
interfaces.py lets other systems call.
"""

from typing import Final

NAME: Final = "superapp"
DATABASES_VARIABLE: Final = "SUPERAPP_DATABASES"
"""The environment variable with the DSNs, by participant, as JSON; they may hold passwords, so no argument has them."""
CALLED: Final = ("wallet", "social", "security", "gaming", "openplatform", "enterprise")
"""The participants whose gates it calls."""
