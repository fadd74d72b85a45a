"""Which starts of a broker are false is told by its own log."""

from __future__ import annotations

import pytest

from tests.faults.loading import loading

LOADED = "[GroupCoordinator id=1 topic=x partition=0] Loaded {} group g with 3 members.\n"
UNLOADED = "[GroupCoordinator id=1] [GroupId=g] Unloading group metadata for generation 3.\n"
CLASSIC, CONSUMER = LOADED.format("classic"), LOADED.format("consumer")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", None),
        (CLASSIC, True),
        (CONSUMER, True),
        (CLASSIC + UNLOADED, None),
        (CLASSIC + UNLOADED + CLASSIC, True),
        (UNLOADED, False),
        (UNLOADED + CLASSIC, False),
    ],
)
def test_a_group_that_was_unloaded_before_it_was_loaded_makes_a_false_start(log, said):
    assert loading(log) is said
