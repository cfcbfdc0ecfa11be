"""What a team writes a remote participant with, in Python: the protocol is here, its own business is theirs.

A team writes one class, a `Holder`: its operations, and what refuses, reserves, applies and gives back, each for a
batch. `run_service` does the rest over HTTP: signatures, repeats, the form of messages, the fence, looks and marks, all
in one SQLite file. `FenceFile` is that file, for whoever has an HTTP server already.
"""

from jiebang.participants.serving.fence_file import FenceFile
from jiebang.participants.serving.holder import Holder
from jiebang.participants.serving.service import ServedParticipant, run_service

__all__ = ["FenceFile", "Holder", "ServedParticipant", "run_service"]
