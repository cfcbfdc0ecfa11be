"""How long a test waits for what must come, however busy the machine is: no test depends on an idle one.

Nothing is slower for it: who waits goes on as soon as it is there. A limit that is itself under test is set by the
test, so small that it is reached, or so that what must come before it comes by an event and not by time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PATIENCE_S: Final = 90
PATIENT_PROCESS: Final[Mapping[str, str]] = {
    "JIEBANG_HTTP_PORT": "0",
    "JIEBANG_CAPACITY_WAIT": str(PATIENCE_S),
    "JIEBANG_CAPACITY_WITHIN": str(PATIENCE_S),
    "JIEBANG_REPEATS_WAIT": str(PATIENCE_S),
}
"""The settings of a process of the product in a test of anything but these limits: any free port, and time."""
