"""Dirty training data: which fit rows are left out, and what the model gains by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from schemas.datafiles import FileOptions
from schemas.errors import DataError
from tests.trainer.conftest import normal_rows, write_csv
from trainer.calibrate import plan_calibration
from trainer.data import load, split
from trainer.metrics import roc_auc
from trainer.model import fit_model
from trainer.settings import TrainingSettings
from trainer.trim import trimmed

ROWS, DIRT = 1000, 50
SETTINGS = TrainingSettings(trim=0.1, epochs=1, steps_min=400, width=32, stored_rows=64)


def clusters(n, seed):
    """Anomalies as a detector learns them by heart: a tight cluster beside the normal rows."""
    draws = np.random.default_rng(seed)
    return (np.tile([3.0, -3.0], 3) + 0.1 * draws.normal(size=(n, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    """Normal rows with anomalies among them; the last rows of the table are the anomalies."""
    rows = np.vstack([normal_rows(ROWS), clusters(DIRT, seed=1)])
    path = write_csv(tmp_path_factory.mktemp("dirt") / "dirty.csv", rows)
    table, policies, _ = load([path], FileOptions(), {})
    parts = split(len(table), 6, plan_calibration(len(table), None), 0, combines=True)
    return table, policies, parts, trimmed(table, parts, policies, SETTINGS)


def test_the_share_asked_for_is_left_out_and_every_row_stays_in_one_part(dirty):
    _, _, before, after = dirty

    assert len(after.trimmed) == round(0.1 * len(before.fit))
    assert sorted([*after.fit, *after.trimmed]) == sorted(before.fit)
    for part in ("stop", "combine", "calibrate"):
        assert getattr(after, part).tolist() == getattr(before, part).tolist()
    # Whoever takes the first of the fit rows takes random ones.
    assert after.fit.tolist() == [row for row in before.fit if row not in set(after.trimmed)]


def test_the_dirt_is_what_goes(dirty):
    _, _, before, after = dirty
    anomalies = before.fit[before.fit >= ROWS]

    assert len(anomalies) > 20
    assert np.isin(anomalies, after.trimmed).mean() > 0.9


def test_a_model_without_its_dirt_finds_more_of_the_same(dirty):
    table, policies, before, after = dirty
    normal, anomalous = normal_rows(2000)[ROWS:], clusters(100, seed=2)

    def quality(parts):
        scorer = fit_model(table, parts, policies, SETTINGS).scorer
        with torch.no_grad():
            scores = (scorer(torch.from_numpy(rows))[0] for rows in (normal, anomalous))
            return roc_auc(*(part.numpy() for part in scores))

    assert quality(after) > 0.99
    assert quality(before) < quality(after) - 0.02


def test_nothing_is_left_out_unless_it_is_asked_for(dirty):
    table, policies, parts, _ = dirty

    assert TrainingSettings().trim == 0
    assert trimmed(table, parts, policies, SETTINGS.model_copy(update={"trim": 0.0})) is parts


def test_what_is_left_out_depends_on_no_other_part_of_the_rows(dirty):
    table, policies, parts, after = dirty
    features = table.features.copy()
    features[parts.calibrate] += np.float32(1000)

    others = trimmed(replace(table, features=features), parts, policies, SETTINGS)

    assert others.trimmed.tolist() == after.trimmed.tolist()


def test_fewer_rows_than_features_are_not_left_by_trimming(dirty):
    table, policies, parts, _ = dirty
    few = replace(parts, fit=parts.fit[:7])

    with pytest.raises(DataError, match=r"trim=0\.3 leaves 5 of 7 fit rows for 6 features; wanted"):
        trimmed(table, few, policies, SETTINGS.model_copy(update={"trim": 0.3}))


@pytest.mark.parametrize(
    ("text", "missing", "options"),
    [
        ("a", "no fit row has a text for 'site'", FileOptions(category_columns=("site",))),
        ("1.5", "no fit row has a value for 'site'", FileOptions()),
    ],
)
def test_a_feature_of_which_one_half_knows_nothing_is_told_as_trims_doing(
    text, missing, options, tmp_path
):
    path = tmp_path / "one.csv"
    lines = [f"{text if row < 10 else ''},{row % 7}.5\n" for row in range(400)]
    path.write_text("".join(["site,x\n", *lines]))
    table, policies, _ = load([path], options, {})
    parts = split(400, 2, plan_calibration(400, 0.05), 0, combines=True)
    # Every second row is half of them: all that hold a site stand in the first half.
    pairs = zip(range(10), range(10, 20), strict=True)
    fit = np.array([*(row for pair in pairs for row in pair), *range(20, 200)])

    with pytest.raises(DataError, match=f"to trim, detectors .*{missing}.*without --set trim"):
        trimmed(table, replace(parts, fit=fit), policies, SETTINGS)
