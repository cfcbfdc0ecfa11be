"""Rotation: a new master or retention key, every data key wrapped anew, nothing sealed again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jiebang.keys import begin_rotation, end_rotation, make_keys, read_keys, read_previous
from jiebang.store.retention import data_keys
from jiebang.store.retention.key_wrapping import MASTER, RETENTION, FileWrappingKey
from jiebang.usecases.retention.rewrap import Rewrapped, has_other_wraps, rewrap
from tests.store.key_world import NAME, World, open_world, turn

if TYPE_CHECKING:
    from jiebang.store.postgres.pool import Pool

COLUMNS = {MASTER: ("wrapped", b"m" * 32), RETENTION: ("retained", b"r" * 32)}


@pytest.fixture
async def world(pools: Mapping[str, Pool]) -> World:
    return await open_world(pools)


@pytest.mark.parametrize("name", [MASTER, RETENTION])
async def test_every_key_is_wrapped_anew_and_no_name_sealed_again(world: World, name: str) -> None:
    """A key that leaked must be changed without touching every identity there is; the old one then opens nothing."""
    column, old = COLUMNS[name]
    await world.bind(range(1, 8))
    sealed = await world.pools["identity_shenzhen"].fetch("SELECT account_id, sealed FROM identity.account ORDER BY 1")
    new = FileWrappingKey(name, b"n" * 32, os.urandom, (old,))
    stopped = FileWrappingKey(name, b"n" * 32, os.urandom, (old,))
    counts = list[int]()

    class Stop(Exception):  # noqa: N818 - it is no error of ours
        pass

    def stop(done: int) -> None:
        counts.append(done)
        raise Stop

    with pytest.raises(Stop):
        await rewrap(world.keys, name, stopped, page=3, progress=stop)
    assert counts == [3]
    assert await has_other_wraps(world.keys, name, new)
    assert await rewrap(world.keys, name, new, page=3) == Rewrapped(4, 0)
    assert not await has_other_wraps(world.keys, name, new)
    alone = FileWrappingKey(name, b"n" * 32, os.urandom)
    for account in range(1, 8):
        assert await world.read_with(alone, column, account) == NAME.name
    with pytest.raises(AssertionError):
        await world.read_with(FileWrappingKey(name, old, os.urandom), column, 1)
    after = await world.pools["identity_shenzhen"].fetch("SELECT account_id, sealed FROM identity.account ORDER BY 1")
    assert after == sealed


async def test_what_is_destroyed_stays_destroyed_and_what_does_not_open_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation that raced a destruction would bring a name back from the dead."""
    await world.take_back([1])
    await world.bind([2])
    new = FileWrappingKey(MASTER, b"n" * 32, os.urandom, (b"m" * 32,))
    replace = data_keys.replace_wraps

    async def late(*args: object) -> None:
        await turn(world.chore())  # between the read and the write
        await replace(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(data_keys, "replace_wraps", late)
    assert (await rewrap(world.keys, MASTER, new)).wraps == 2
    assert await world.read_with(new, "wrapped", 1) is None
    assert await world.read_with(new, "wrapped", 2) == NAME.name
    stranger = FileWrappingKey(MASTER, b"x" * 32, os.urandom)
    assert await rewrap(world.keys, MASTER, stranger) == Rewrapped(0, 1)
    assert await world.read_with(new, "wrapped", 2) == NAME.name, "what it cannot open it leaves alone"


def test_a_rotation_of_files_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """A third key, made because the second was forgotten, would lock out everything under the first."""
    make_keys(tmp_path)
    first = read_keys(tmp_path)
    (tmp_path / "master.previous.key").write_bytes(first.master)  # cut off before the new one was written
    (tmp_path / "master.previous.key").chmod(0o600)
    begin_rotation(tmp_path, MASTER)
    second = read_keys(tmp_path)
    assert second.master != first.master
    assert read_previous(tmp_path, MASTER) == (first.master,)
    begin_rotation(tmp_path, MASTER)
    assert read_keys(tmp_path) == second, "begun once, and gone on with"
    assert second.retention == first.retention
    end_rotation(tmp_path, MASTER)
    assert read_previous(tmp_path, MASTER) == ()
    end_rotation(tmp_path, MASTER)
    begin_rotation(tmp_path, MASTER)
    assert read_previous(tmp_path, MASTER) == (second.master,)
