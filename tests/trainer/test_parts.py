"""What each part of the rows decides, and what it must not: no leakage between the parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.datafiles import FileOptions
from tests.trainer.conftest import normal_rows, write_csv
from trainer import rows
from trainer.calibrate import plan_calibration
from trainer.data import load, split
from trainer.model import fit_model
from trainer.runtime import run
from trainer.settings import TrainingSettings

TINY = TrainingSettings(epochs=3, steps_min=30, hidden=(16,))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = write_csv(tmp_path_factory.mktemp("parts") / "normal.csv", normal_rows(400))
    table, policies, _ = load([path], FileOptions(), {})
    return table, policies, split(len(table), 6, plan_calibration(len(table), None), 0)


def fitted(loaded, *changed, settings=TINY):
    """Fit with the rows of the changed parts replaced by others."""
    table, policies, parts = loaded
    features = table.features.copy()
    for part in changed:
        features[getattr(parts, part)] = np.float32(-3) * features[getattr(parts, part)] + 1000
    return fit_model(replace(table, features=features), parts, policies, settings)


def same_state(first, second, of=""):
    ours, theirs = first.scorer.state_dict(), second.scorer.state_dict()
    names = [name for name in ours if name.startswith(of)]
    assert names
    return all(torch.equal(ours[name], theirs[name]) for name in names)


def test_more_fit_rows_than_are_held_are_sampled_for_all_but_the_networks(loaded, monkeypatch):
    table, policies, parts = loaded
    monkeypatch.setattr(rows, "SAMPLE_VALUES_MAX", 6 * 100)
    settings = TrainingSettings(epochs=3, steps_min=30, width=8)
    model = fit_model(table, parts, policies, settings)
    sampled, rest = parts.fit[:100], parts.fit[100:]
    features = table.features.copy()
    features[rest] = features[rest] + np.float32(0.01)

    others = fit_model(replace(table, features=features), parts, policies, settings)

    assert model.sampled_rows == len(sampled) < len(parts.fit)
    assert same_state(model, others, "transforms.")
    assert same_state(model, others, "detectors.1.view.")
    assert same_state(model, others, "detectors.2.")
    assert not same_state(model, others, "detectors.0.network.")
    again = fit_model(table, parts, policies, settings)
    assert same_state(model, again)


def test_the_calibration_is_of_the_calibrate_rows_alone(sealed, normal_csv):
    table, _, _ = load([normal_csv], FileOptions(), {})
    parts = split(len(table), 6, plan_calibration(len(table), None), 0)

    scores = run(sealed.session, table.features[parts.calibrate]).score

    assert np.sort(scores).tobytes() == sealed.contract.calibration.scores.tobytes()


def test_the_calibrate_rows_change_no_weight(loaded):
    assert same_state(fitted(loaded), fitted(loaded, "calibrate"))


def test_the_stop_rows_say_when_to_stop_and_no_more(loaded):
    before, after = fitted(loaded), fitted(loaded, "stop", "calibrate")

    assert before.transforms == after.transforms
    assert before.curves["autoencoder"].validation != after.curves["autoencoder"].validation


def test_the_combine_rows_say_what_the_detectors_scores_mean_and_no_more(loaded):
    table, policies, _ = loaded
    parts = split(len(table), 6, plan_calibration(len(table), None), 0, stops=False, combines=True)
    several = TrainingSettings(epochs=1, steps_min=20, width=8)
    before, after = (
        fitted((table, policies, parts), *changed, settings=several)
        for changed in ((), ("combine", "calibrate"))
    )

    assert set(before.curves) == {"denoiser"}
    assert same_state(before, after, "detectors")
    assert same_state(before, after, "transforms")
    assert not same_state(before, after, "combination.surprise")


def test_the_fit_rows_change_the_weights_and_the_transforms(loaded):
    before, after = fitted(loaded), fitted(loaded, "fit")

    assert before.transforms != after.transforms
    assert not same_state(before, after)
