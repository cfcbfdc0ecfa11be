"""The super-app around the platform, as a process of its own: what people do there outside the platform.

`python -m jiebang.sandbox.superapp --data FILE --jwks FILE`, with the wallet's database in `WALLET_VARIABLE`. One
subject, one router: money.py sends money.
"""

from typing import Final

NAME: Final = "superapp"
WALLET_VARIABLE: Final = "SUPERAPP_WALLET"
"""The environment variable with the DSN of the wallet's database; it may hold a password, so no argument carries it."""
