"""What an activation would change, for the person who is asked to approve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jiebang.model.errors import UnknownPackError
from jiebang.policy.difference import Difference, compare_packs
from jiebang.store.policy import packs as store
from jiebang.usecases.policy.lifecycle import read_pack_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jiebang.model.participants import ParticipantRegistry
    from jiebang.policy.weakening import Weakening
    from jiebang.store.postgres.pool import Database


class ActivationPreview(msgspec.Struct, frozen=True, kw_only=True):
    """Who proposed a version, which one it would replace, every difference, and where protection weakens."""

    pack: str
    proposed_by: str
    replaces: str
    differences: Sequence[Difference]
    weakenings: Sequence[Weakening]


async def preview_activation(db: Database, declared: ParticipantRegistry, pack: str) -> ActivationPreview | None:
    """Return what approving the proposal of `pack` would change; None where nobody has proposed it.

    Changes nothing. Raises UnknownPackError, PackInvalidError.
    """
    state, proposed = await store.load_state(db), await store.load_proposal(db, pack)
    if state is None:
        raise UnknownPackError(pack=pack, known=[])
    if proposed is None:
        return None
    before, after = await read_pack_text(db, state.pack), await read_pack_text(db, pack)
    found, weaker = compare_packs((before, f"{state.pack}.yaml"), (after, f"{pack}.yaml"), declared)
    return ActivationPreview(
        pack=pack, proposed_by=proposed.proposed_by, replaces=state.pack, differences=found, weakenings=weaker
    )
