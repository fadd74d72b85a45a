"""The model file is watched between turns: a good one takes over, a bad one changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from tests.builders import Recipe, a_sealed_model
from worker.model import Model, ModelOptions, open_model
from worker.model_slot import ModelSlot

GOOD = a_sealed_model()
BETTER = a_sealed_model(Recipe(gain=2.0, version="2"))
WIDER = a_sealed_model(Recipe(features=4))


class Place:
    """A model file, its slot, and what the slot did; `now` passes by `look`."""

    def __init__(
        self, path: Path, *, allow_contract_change: bool = False, first: bytes = GOOD
    ) -> None:
        self.path = path
        self.opened = 0
        self.loads: list[tuple[str, str]] = []
        self.now = 100.0
        self.put(first)
        self.slot = ModelSlot(
            path,
            self._open,
            check_interval_s=2.0,
            allow_contract_change=allow_contract_change,
            on_load=lambda outcome, model: self.loads.append((outcome, model.contract.version)),
        )

    def _open(self, sealed: bytes) -> Model:
        self.opened += 1
        return open_model(sealed, ModelOptions("cpu", batch_max=1))

    def put(self, sealed: bytes) -> None:
        unnamed = self.path.with_suffix(".new")
        unnamed.write_bytes(sealed)
        unnamed.replace(self.path)

    def look(self) -> str:
        self.now += 3.0
        self.slot.refresh(self.now)
        return self.slot.current.contract.version


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "model.onnx")


def test_the_first_model_is_there_from_the_start(place):
    assert place.slot.current.contract.version == "1"
    assert place.loads == [("accepted", "1")]


def test_a_new_file_is_tried_and_takes_over(place):
    place.put(BETTER)
    assert place.look() == "2"
    assert place.loads[1:] == [("accepted", "2")]


def test_a_file_is_looked_at_no_more_often_than_the_interval(place):
    place.slot.refresh(place.now)
    place.put(BETTER)
    place.slot.refresh(place.now + 1.9)
    assert place.slot.current.contract.version == "1"
    place.slot.refresh(place.now + 2.0)
    assert place.slot.current.contract.version == "2"


def test_a_refused_file_is_not_tried_again_until_it_changes(place, caplog):
    place.put(BETTER[:-1])
    assert [place.look() for _ in range(5)] == ["1"] * 5
    assert place.opened == 2
    assert place.loads[1:] == [("refused", "1")]
    assert caplog.text.count("was refused") == 1
    place.put(BETTER)
    assert place.look() == "2"


def test_a_file_that_is_half_written_in_place_is_refused_and_the_whole_one_accepted(place):
    """Whoever does not rename is not served the half, and not shut out either."""
    for end in (0, 10, len(BETTER) // 2, len(BETTER) - 1):
        place.path.write_bytes(BETTER[:end])
        assert place.look() == "1"
    place.path.write_bytes(BETTER)
    assert place.look() == "2"


def test_a_file_that_was_only_touched_is_the_same_model(place):
    first = place.slot.current
    os.utime(place.path, (1, 1))
    assert place.look() == "1"
    assert place.slot.current is first
    assert place.loads == [("accepted", "1"), ("unchanged", "1")]


def test_a_file_that_goes_away_leaves_the_model_in_place(place):
    place.path.unlink()
    assert place.look() == "1"
    place.put(BETTER)
    assert place.look() == "2"


def test_a_file_that_stays_away_is_told_once_until_it_is_there_again(place, caplog):
    place.path.unlink()
    for _ in range(4):
        place.look()
    assert place.loads[1:] == []
    for _ in range(4):
        place.look()
    assert place.loads[1:] == [("refused", "1")]
    (line,) = caplog.messages
    assert "is gone. Still scoring with" in line
    place.put(GOOD)
    place.look()
    place.put(BETTER)
    assert place.look() == "2"
    assert place.loads[2:] == [("unchanged", "1"), ("accepted", "2")]


def test_a_file_that_comes_back_as_it_was_is_the_same_model(place):
    place.put(BETTER[:-1])
    place.look()
    place.put(GOOD)
    first = place.slot.current
    assert place.look() == "1"
    assert place.slot.current is first


def test_other_features_are_refused(place, caplog):
    place.put(WIDER)
    assert place.look() == "1"
    assert len(place.slot.current.contract.features) == 3
    assert "ODRADEK_ALLOW_CONTRACT_CHANGE=true would allow it" in caplog.text
    assert place.loads[1:] == [("refused", "1")]


def test_other_features_are_accepted_where_that_is_allowed(tmp_path):
    place = Place(tmp_path / "model.onnx", allow_contract_change=True)
    place.put(WIDER)
    place.look()
    assert len(place.slot.current.contract.features) == 4


def test_another_policy_for_missing_values_is_another_contract(place):
    place.put(a_sealed_model(Recipe(refuse_missing=frozenset({"x0"}), version="2")))
    assert place.look() == "1"


@pytest.mark.parametrize(
    ("sealed", "why"),
    [(None, "cannot be read (No such file or directory)"), (b"rubbish", "was refused: it carries")],
)
def test_without_a_good_first_file_nothing_starts(sealed, why, tmp_path):
    path = tmp_path / "model.onnx"
    if sealed is not None:
        path.write_bytes(sealed)
    with pytest.raises(SettingsError) as refused:
        ModelSlot(
            path,
            lambda sealed: open_model(sealed, ModelOptions("cpu")),
            check_interval_s=1.0,
            allow_contract_change=False,
            on_load=lambda *_: None,
        )
    assert why in str(refused.value)
    assert str(path) in str(refused.value)
    assert "Not starting" in str(refused.value)


def test_a_refused_file_that_is_put_back_is_the_current_model_once_more(place):
    good = place.path.read_bytes()
    place.put(b"rubbish")
    assert place.look() == "1"
    place.put(good)
    assert place.look() == "1"
    assert place.loads == [("accepted", "1"), ("refused", "1"), ("unchanged", "1")]
