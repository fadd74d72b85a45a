"""Which detectors the settings ask for, and what is refused because none would heed it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.settings import DEFAULT_DETECTORS, TrainingSettings


def chosen(**values):
    return [*TrainingSettings(**values).chosen_detectors()]


def test_networks_come_first_whatever_the_order_they_are_named_in():
    assert chosen(detectors="norm,neighbours,denoiser") == ["denoiser", "neighbours", "norm"]


@pytest.mark.parametrize("setting", [{"family": "dense"}, {"hidden": "16"}, {"bottleneck": 2}])
def test_who_sets_the_layers_of_an_autoencoder_asks_for_one(setting):
    assert chosen(**setting) == ["autoencoder"]


def test_where_rows_may_not_be_stored_there_are_no_neighbours():
    assert chosen(stored_rows=0) == [name for name in DEFAULT_DETECTORS if name != "neighbours"]
    with pytest.raises(ValidationError, match="0 leaves no detector"):
        TrainingSettings(detectors="neighbours", stored_rows=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 20}, "patience: of autoencoder"),
        ({"preset": "best", "hidden": "64"}, "hidden: of autoencoder"),
        ({"preset": "dense", "width": 64}, "width: of denoiser"),
        ({"detectors": "norm", "stored_rows": 64}, "stored_rows: of neighbours"),
        ({"detectors": "norm,norm:5"}, "wanted each detector once"),
        ({"detectors": "norm:"}, "detectors.norm"),
        ({"detectors": "norm:1e-46"}, "detectors.norm"),
        ({"stored_rows": 3}, "multiple of 4"),
    ],
)
def test_what_no_detector_would_heed_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainingSettings(**settings)


@pytest.mark.parametrize("preset", ["default", "best", "dense", "seed"])
def test_settings_on_record_are_settings_again(preset):
    settings = TrainingSettings(preset=preset)
    record = settings.model_dump(mode="json") | {"detectors": settings.chosen_detectors()}

    again = TrainingSettings.model_validate(record)

    assert again.chosen_detectors() == settings.chosen_detectors()
