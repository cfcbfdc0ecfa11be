"""A person's games."""
# ruff: noqa: RUF012 - msgspec makes every object an empty list of its own

from __future__ import annotations

from jiebang.sandbox.population.format.fields import Id, Instant, PopulationRecord, ShortText


class AccessRecord(PopulationRecord):
    """A game that the person may play."""

    game_id: Id
    granted_at: Instant
    name: ShortText
    withdrawn_at: Instant | None = None


class PlaySessionRecord(PopulationRecord):
    """A time of playing one of those games."""

    session_id: Id
    game_id: Id
    started_at: Instant
    ended_at: Instant | None = None


class GamingRecord(PopulationRecord):
    """The playing-time guard and games."""

    game_guard: bool = False
    access: list[AccessRecord] = []
    play_sessions: list[PlaySessionRecord] = []
