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
        ({"patience": 20}, "patience: only autoencoder would heed it"),
        ({"learning_rate": 0.01}, "learning_rate: only autoencoder would heed it"),
        ({"preset": "best", "hidden": "64"}, "hidden: only autoencoder would heed it"),
        ({"preset": "dense", "width": 64}, "width: only denoiser would heed it"),
        ({"detectors": "norm", "stored_rows": 64}, "stored_rows: only neighbours would heed it"),
        (
            {"detectors": "norm,neighbours", "epochs": 5},
            "epochs: only denoiser and autoencoder would heed it, and the detectors are neighbours",
        ),
        ({"detectors": "norm", "steps_min": 0}, "steps_min: only denoiser and autoencoder"),
        ({"detectors": "norm", "steps_max": 9}, "steps_max: only denoiser and autoencoder"),
        ({"detectors": "norm", "batch_size": 64}, "batch_size: only denoiser and autoencoder"),
        ({"detectors": "norm", "clip": 5}, "clip: only denoiser and autoencoder"),
        ({"detectors": "norm,norm:5"}, "wanted each detector once"),
        ({"detectors": "norm:"}, "detectors.norm"),
        ({"detectors": "norm:1e-46"}, "detectors.norm"),
        ({"stored_rows": 3}, "multiple of 4"),
    ],
)
def test_what_no_detector_would_heed_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainingSettings(**settings)


def test_what_every_detector_heeds_may_be_set_for_any_of_them():
    settings = TrainingSettings(detectors="norm", seed=4, threads=2, transforms="asinh")

    assert settings.chosen_detectors() == {"norm": 1.0}


@pytest.mark.parametrize("preset", ["default", "best", "dense", "seed"])
def test_settings_on_record_are_settings_again(preset):
    settings = TrainingSettings(preset=preset)
    record = settings.model_dump(mode="json") | {"detectors": settings.chosen_detectors()}

    again = TrainingSettings.model_validate(record)

    assert again.chosen_detectors() == settings.chosen_detectors()
