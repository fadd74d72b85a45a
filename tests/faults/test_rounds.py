"""A late round is the broker's own fault only where its log shows it."""

from __future__ import annotations

import pytest

from tests.faults.rounds import forgets_members

LOADED = "[GroupCoordinator id=1 topic=x partition=0] Loaded {} group g with 3 members.\n"
UNLOADED = "[GroupCoordinator id=1] [GroupId=g] Unloading group metadata for generation 3.\n"
CLASSIC, CONSUMER = LOADED.format("classic"), LOADED.format("consumer")


@pytest.mark.parametrize("log", [UNLOADED, CLASSIC + UNLOADED])
def test_a_group_that_was_unloaded_and_never_loaded_again_is_forgotten(log):
    assert forgets_members(log)


@pytest.mark.parametrize(
    "log", ["", CLASSIC, UNLOADED + CLASSIC, UNLOADED + CONSUMER, CLASSIC + UNLOADED + CLASSIC]
)
def test_a_group_that_was_loaded_last_is_not(log):
    assert not forgets_members(log)
