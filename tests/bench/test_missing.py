"""The benchmark of missing values: its holes, its arithmetic, and a run on a folder unseen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.missing import Area, main, table, with_holes

RNG = np.random.default_rng(0)


def an_area(**changes):
    known = {"preset": "dense", "of": "waves", "seed": 0, "train_percent": 0.0}
    return Area(**{**known, "test_percent": 0.0, "auc": 0.8, "unscored": 0, **changes})


def test_holes_are_as_many_as_asked_for_and_the_rest_is_as_it_was():
    rows = RNG.normal(size=(2_000, 10))

    punched = with_holes(rows, 30, np.random.default_rng(1))

    present = ~np.isnan(punched)
    np.testing.assert_array_equal(punched[present], rows[present])
    assert abs(present.mean() - 0.7) < 5 * np.sqrt(0.21 / rows.size)
    np.testing.assert_array_equal(with_holes(rows, 0, np.random.default_rng(1)), rows)


def test_the_table_tells_the_area_and_how_much_of_the_complete_one_it_is():
    found = [
        an_area(),
        an_area(test_percent=10.0, auc=0.6),
        an_area(test_percent=10.0, auc=0.7, seed=1),
        an_area(test_percent=10.0, train_percent=10.0, auc=0.76, unscored=2),
    ]

    told = table(found, [10.0])

    assert "80.0 (100.0 %)" in told
    assert "65.0 (81.2 %)" in told
    assert "95.0 (" not in told
    assert "76.0 (95.0 %)" in told
    assert "2 rows had too little left for a score" in told


def test_a_run_measures_every_kind_of_hole(tmp_path, capsys):
    anomalous = np.arange(1_300) >= 1_200
    rows = RNG.normal(size=(1_300, 6)) + 1.5 * anomalous[:, None]
    np.savez(tmp_path / "waves.npz", X=rows, y=anomalous)
    out = tmp_path / "missing.json"
    told_to = "--sets waves --preset default --set detectors=norm --seeds 0"
    places = ["--data", str(tmp_path), "--json", str(out)]

    assert main([*told_to.split(), "--percents", "40", *places]) == 0

    areas = json.loads(out.read_text())["areas"]
    kinds = [(area["train_percent"], area["test_percent"]) for area in areas]
    assert kinds == [(0, 0), (0, 40), (40, 40)]
    complete, holes, _ = (area["auc"] for area in areas)
    assert complete > 0.9
    assert 0.6 < holes < complete
    assert "default, nothing missing" in capsys.readouterr().out


def test_what_the_options_cannot_mean_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ODRADEK_DATA", raising=False)
    for arguments, told in [
        ([], "name one with --data or ODRADEK_DATA"),
        (["--data", str(tmp_path)], "cardio, pendigits, thyroid, lhc57"),
        (["--data", str(tmp_path), "--percents", "0"], "wanted percentages above 0"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert told in capsys.readouterr().err
