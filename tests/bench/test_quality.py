"""The benchmark of quality: its protocols, its arithmetic, and that it runs on a folder unseen."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.detectors import environment, published, sets, splits
from bench.detectors.dirt import dirtied
from bench.detectors.figures import auc, margin, over_sets, rejection
from bench.detectors.flag_rates import kept, redrawn, uniform
from bench.detectors.measure import NORM, Detector, measure
from bench.detectors.picture import Point, picture
from bench.detectors.sets import BadSet, Tabular
from bench.detectors.splits import FOLDS, connections, folded, halves
from bench.detectors.tables import lhc57_table
from bench.detectors.trials import Failure, Outcome, Trial
from bench.quality import main

RNG = np.random.default_rng(0)
NORMAL, ANOMALOUS = RNG.normal(size=(1_001, 4)), RNG.normal(4, 1, size=(40, 4))
# Anomalies among the normals, as in a real file.
ORDER = RNG.permutation(1_041)
TABLE = Tabular(
    "waves", np.concatenate([NORMAL, ANOMALOUS])[ORDER], (np.arange(1_041) > 1_000)[ORDER]
)
FLOOR = Detector(NORM, "floor", "1", random=False)


def rows_of(rows):
    return {row.tobytes() for row in np.ascontiguousarray(rows)}


def an_outcome(normal, anomalous, *, calibration=None, seed=0, split=0, threshold=None):
    kinds = np.repeat(np.array([0, 1], np.uint8), [len(normal), len(anomalous)])
    scores = np.concatenate([normal, anomalous]).astype("<f8")
    return Outcome(
        protocol="shuffled",
        of="waves",
        split=split,
        seed=seed,
        detector="default",
        version="1",
        train_rows=1,
        features=1,
        anomalies=("anomaly",),
        dirt_percent=None,
        fit_cpu_s=0.0,
        kinds=kinds.tobytes(),
        scores=scores.tobytes(),
        calibration=None if calibration is None else np.asarray(calibration, "<f8").tobytes(),
        threshold=threshold,
        target_flag_rate=None if threshold is None else 0.01,
    )


def test_the_dte_split_trains_on_the_first_half_of_the_normals_in_file_order():
    trial = halves(TABLE, "dte", seed=3, train_max=0)
    normal = TABLE.rows[~TABLE.anomalous]
    assert np.array_equal(trial.train, normal[:500])  # Half of 1,001, rounded to even.
    assert np.array_equal(trial.test[trial.kinds == 0], normal[500:])
    assert np.array_equal(trial.test[trial.kinds == 1], TABLE.rows[TABLE.anomalous])


def test_shuffled_splits_differ_by_seed_and_hold_the_same_rows():
    one, other = (halves(TABLE, "shuffled", seed, 0) for seed in (0, 1))
    assert rows_of(one.train) != rows_of(other.train)
    for trial in (one, other):
        assert not rows_of(trial.train) & rows_of(trial.test)
        assert rows_of(trial.train) | rows_of(trial.test) == rows_of(TABLE.rows)


def test_training_rows_are_capped_by_a_random_choice_and_the_test_is_whole():
    trial = halves(TABLE, "dte", 0, train_max=100)
    assert len(trial.train) == 100
    assert rows_of(trial.train) < rows_of(halves(TABLE, "dte", 0, 0).train)
    assert len(trial.test) == len(halves(TABLE, "dte", 0, 0).test)


def test_every_background_event_is_tested_once_in_five_folds():
    signals = {name: RNG.normal(size=(5, 3)) for name in sets.SIGNALS}
    background = RNG.normal(size=(53, 3))
    trials = [folded(background, signals, fold, seed=0) for fold in range(FOLDS)]
    tested = [row for trial in trials for row in trial.test[trial.kinds == 0]]
    assert len(tested) == 53
    assert rows_of(tested) == rows_of(background)
    for trial in trials:
        assert not rows_of(trial.train) & rows_of(trial.test)
        assert [int((trial.kinds == kind).sum()) for kind in (1, 2, 3)] == [5, 5, 5]


def test_categories_become_columns_of_the_values_that_were_trained_on():
    cells = np.array([["1", "tcp"], ["2", "udp"]] * 20 + [["3", "icmp"]])
    attack = np.array([False] * 40 + [True])
    trial = connections(cells, np.array([False, True]), attack, seed=0, train_max=0)
    assert trial.train.shape[1] == 1 + 2
    assert len(trial.train) + len(trial.test) >= 40
    assert (trial.train[:, 1:].sum(axis=1) == 1).all()
    assert (trial.test[trial.test[:, 0] == 3, 1:] == 0).all()


def test_dirt_leaves_the_test_the_same_whatever_its_share():
    clean = halves(TABLE, "dte", 0, 0)
    none, some, most = (dirtied(clean, TABLE, percent, 10) for percent in (0, 1, 10))
    assert np.array_equal(none.train, clean.train)
    assert [len(trial.train) - 500 for trial in (some, most)] == [5, 20]  # Half of 40 at most.
    assert rows_of(some.train) < rows_of(most.train)
    for trial in (none, some, most):
        assert np.array_equal(trial.test, none.test)
        assert not rows_of(trial.train) & rows_of(trial.test)


def test_the_floor_is_the_squared_norm_of_the_standardised_row():
    trial = Trial(
        "dte",
        "still",
        0,
        0,
        train=np.array([[0.0, 5.0], [2.0, 5.0]]),
        test=np.array([[1.0, 5.0], [4.0, 6.0]]),
        kinds=np.array([0, 1], np.uint8),
    )
    outcome = measure(FLOOR, trial, False)
    assert isinstance(outcome, Outcome)
    assert outcome.scores_of(0).tolist() == [0]
    assert outcome.scores_of(1).tolist() == [9 + 1]  # A feature that never varied keeps its unit.
    assert auc(outcome) == 1


def test_rows_without_a_score_count_nowhere_and_are_told():
    outcome = an_outcome([1.0, np.nan], [2.0, np.nan])
    assert outcome.unscored == 2
    assert auc(outcome) == 1


def test_what_a_detector_dies_of_is_its_failure():
    trial = halves(TABLE, "dte", 0, 0)
    broken = replace(FLOOR, name="default", maker="ours", flags=("--no-such-flag",))
    failure = measure(broken, trial, False)
    assert isinstance(failure, Failure)
    assert "the trainer ended with 2" in failure.reason
    assert "no-such-flag" in failure.reason


def test_the_mean_is_over_sets_and_its_deviation_over_seeds():
    assert over_sets({"a": [90.0, 92.0], "b": [80.0, 80.0]}).text() == "85.50 ±0.71"
    assert over_sets({"a": [90.0], "b": [80.0]}).text() == "85.00"
    floors = [{"a": [89.0], "b": [85.0]}, {"a": [95.0], "b": [70.0]}]
    assert margin({"a": [90.0], "b": [84.0]}, floors) == (-5.0, "a")


def test_false_alarms_add_up_over_folds_and_are_averaged_over_seeds():
    """Of ten background events in each fold 2 lie above the signal's level in one seed, 4 in the
    other: 3 of 10 in the mean of five folds."""
    signal = np.full(10, 0.5)
    folds = [
        an_outcome(np.r_[np.ones(count), np.zeros(10 - count)], signal, seed=seed, split=fold)
        for seed, count in ((0, 2), (1, 4))
        for fold in range(FOLDS)
    ]
    found = rejection(folds, 1)
    assert (found.false_alarms, found.background) == (15, 50)
    assert found.one_over_fpr.low < 50 / 15 < found.one_over_fpr.high


def test_the_table_of_collision_events_adds_up_the_folds():
    """The floor alone: signals farther and farther out are told apart better and better."""
    rng = np.random.default_rng(4)
    signals = {
        name: rng.normal(0, wide, size=(60, 4))
        for name, wide in zip(sets.SIGNALS, (2, 3, 9), strict=True)
    }
    trials = [folded(NORMAL, signals, fold, seed=0) for fold in range(FOLDS)]
    found = [measure(FLOOR, trial, False) for trial in trials]
    outcomes = [one for one in found if isinstance(one, Outcome)]
    assert len(outcomes) == FOLDS
    *_, line = lhc57_table(outcomes, [])
    areas = [float(cell) for cell in re.findall(r"\b[01]\.\d{4}\b", line)]
    assert areas == sorted(areas)
    assert areas == pytest.approx(
        [np.mean([auc(one, kind) for one in outcomes]) for kind in (1, 2, 3)], abs=1e-4
    )
    assert line.endswith("inf [272, inf]")  # No false alarm in 1,001: at most 3.7 in 1,000.


def test_flag_rates_are_judged_by_the_band_and_a_wrong_threshold_is_found_out():
    rng = np.random.default_rng(5)
    honest = an_outcome(rng.normal(size=3_000), [9.0], calibration=rng.normal(size=999))
    shifted = an_outcome(rng.normal(1, 1, 3_000), [9.0], calibration=rng.normal(size=999))
    (fair,) = kept([honest], 0.01)
    (unfair,) = kept([shifted], 0.01)
    assert fair.inside
    assert fair.reachable == 0.01
    assert not unfair.inside
    assert not kept([an_outcome([1.0], [9.0], calibration=[1.0] * 98)], 0.01)
    assert uniform([honest])[0].chance > 0.01 > uniform([shifted])[0].chance


def test_drawn_anew_the_mean_rate_is_the_one_that_n_can_reach():
    rng = np.random.default_rng(6)
    outcome = an_outcome(rng.normal(size=1_000), [9.0], calibration=rng.normal(size=250))
    assert redrawn(outcome, 0.05, draws=400) == pytest.approx(12 / 251, rel=0.06)


def test_published_columns_are_read_with_their_spread_and_stars(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published/dte_semi_aucroc.csv").write_text(
        '"# source: somebody"\nDataset,KNN,Other\nwaves,92.0(0.0),**96.55(0.1)**\n'
    )
    columns = published.read(tmp_path, "dte")
    assert [column.areas for column in columns] == [{"waves": 92.0}, {"waves": 96.55}]
    assert [column.name for column in published.chosen(columns, ["Waves"])] == ["Other", "KNN"]
    assert published.chosen(columns, ["Waves", "unknown"]) == []
    assert published.read(tmp_path, "dean") == []


@pytest.mark.parametrize(
    ("rows", "labels", "told"),
    [
        (np.zeros((4, 2)), np.array([0, 1, 2, 0]), "wanted 0 for normal rows"),
        (np.zeros((4, 2)), np.zeros(4), "some of both"),
        (np.zeros((4, 2, 2)), np.array([0, 1, 0, 0]), r"wanted numbers \[n, d\]"),
    ],
)
def test_a_set_that_is_none_is_refused_by_name(tmp_path, rows, labels, told):
    np.savez(tmp_path / "odd.npz", X=rows, y=labels)
    with pytest.raises(BadSet, match=told):
        sets.read_tabular("odd", tmp_path / "odd.npz")


def test_the_other_sets_are_read_in_their_own_forms(tmp_path):
    (tmp_path / "dean").mkdir()
    (tmp_path / "streams").mkdir()
    np.savez(tmp_path / "dean/Awaves.npz", x=NORMAL, tx=NORMAL[:4], ty=[0, 1, 1, 0])
    np.savez(tmp_path / "streams/m1.npz", train=NORMAL, test=NORMAL[:3], label=[0, 1, 0])
    (tmp_path / "streams/nsl-kdd-fields.csv").write_text("a,continuous\nb,symbolic\n")
    with gzip.open(tmp_path / "streams/nsl-kdd-train20.csv.gz", "wt") as file:
        file.write("1,tcp,normal,20\n2,udp,neptune,15\n")
    (dean,) = splits.split_tasks(sets.dean_files(tmp_path), "dean", [0], 500)
    (stream,) = splits.split_tasks(sets.stream_files(tmp_path), "streams", [0], 0)
    (one, two) = dean.make(), stream.make()
    assert (one.of, len(one.train), one.kinds.tolist()) == ("waves", 500, [0, 1, 1, 0])
    assert np.array_equal(one.standardised()[1], NORMAL[:4])  # As the published figures: unscaled.
    assert (two.of, len(two.train), two.kinds.tolist()) == ("m1", 1_001, [0, 1, 0])
    cells, symbolic, attack = sets.read_nsl_kdd(tmp_path)
    assert cells.tolist() == [["1", "tcp"], ["2", "udp"]]
    assert (symbolic.tolist(), attack.tolist()) == ([False, True], [False, True])


def test_a_quick_run_measures_a_folder_never_seen_and_a_rerun_is_from_the_cache(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "07_waves.npz", X=TABLE.rows, y=TABLE.anomalous.astype(int))
    np.savez(folder / "tiny.npz", X=TABLE.rows[:200], y=TABLE.anomalous[:200].astype(int))
    out = tmp_path / "quality.json"
    (folder / "streams").mkdir()
    labels = np.arange(300) >= 260
    stream = np.where(labels[:, None], NORMAL[700:1_000] + 5, NORMAL[700:1_000])
    np.savez(folder / "streams/m1.npz", train=NORMAL[:700], test=stream, label=labels)
    told_to = "--quick --protocols shuffled,streams,dean,cost --calibration --contaminate 5"
    told_to += " --preset dense --pyod none --jobs 0"  # What takes the least time to fit.
    places = ["--data", str(folder), "--cache", str(tmp_path / "cache"), "--json", str(out)]
    arguments = [*told_to.split(), *places]

    assert main(arguments) == 0

    said = capsys.readouterr()
    told = json.loads(out.read_text())
    assert told["failures"] == []
    assert told["other_sets"] == ["m1", "waves"]
    assert told["visible_sets"] == []
    assert {one["protocol"] for one in told["outcomes"]} == {"shuffled", "streams", "cost"}
    assert {one["dirt_percent"] for one in told["outcomes"]} == {None, 0, 5}
    assert told["auroc_percent"]["shuffled"]["dense"]["mean"]["mean"] > 90
    assert [one["inside"] for one in told["flag_rates"]["dense"]] == [True]
    assert "fewer than 1,000 rows (--sets takes them all the same): tiny" in said.out
    assert "Not seen by whoever chose them: m1, waves." in said.out
    assert "got (half of their anomalies at most): waves 4.0" in said.out
    assert "dean: left out" in said.out
    costs = {one["detector"]: one["us_per_event"] for one in told["outcomes"]}
    assert costs["dense"] > 0
    ElementTree.fromstring(out.with_suffix(".svg").read_text())  # noqa: S314  # Our own.

    assert main(arguments) == 0

    assert capsys.readouterr().err.count("(kept)") == len(told["outcomes"])


@pytest.mark.parametrize(("flags", "least", "most"), [([], 60, 100), (["--one-hot"], 0, 20)])
def test_the_trainer_takes_categories_as_texts_unless_told_not_to(flags, least, most, tmp_path):
    """Attacks have a text that no column of 0 and 1 is for, and are else like all others."""
    streams = tmp_path / "streams"
    streams.mkdir()
    (streams / "nsl-kdd-fields.csv").write_text("bytes,continuous\nservice,symbolic\n")
    rng = np.random.default_rng(0)
    texts = [f"service {place % 20}" for place in range(2_000)] + ["rare"] * 20 + ["new"] * 200
    lines = [f"{rng.normal()},{text},{'normal' if text != 'new' else 'x'},1" for text in texts]
    with gzip.open(streams / "nsl-kdd-train20.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    out = tmp_path / "quality.json"
    told_to = "--protocols nsl-kdd --seeds 0 --pyod none --jobs 0"
    places = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--json", str(out)]
    detector = ["--detector", "bare=--set detectors=norm"]

    assert main([*told_to.split(), *detector, *places, *flags]) == 0

    area = json.loads(out.read_text())["auroc_percent"]["nsl-kdd"]["bare"]["mean"]["mean"]
    assert least <= area <= most


def test_labels_of_the_picture_do_not_lie_on_each_other():
    points = [Point(f"detector {place}", 10.0 + place, 90.0, place == 0) for place in range(4)]
    held = picture(points, {"best published": 90.2}, "about")
    drawn = ElementTree.fromstring(held)  # noqa: S314  # Our own.
    labels = [
        (float(text.attrib["x"]), float(text.attrib["y"]))
        for text in drawn.iter("{http://www.w3.org/2000/svg}text")
        if "detector" in (text.text or "")
    ]
    assert len(labels) == 4
    for place, (x, y) in enumerate(labels):
        assert all(abs(x - a) > 70 or abs(y - b) > 11 for a, b in labels[:place])


def test_what_the_options_cannot_mean_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ODRADEK_DATA", raising=False)
    for arguments, told in [
        ([], "name one with --data or ODRADEK_DATA"),
        (["--data", str(tmp_path), "--protocols", "dta"], "unknown protocols ['dta']"),
        (["--data", str(tmp_path), "--pyod", "KNM"], "KNM; wanted fast, all, none"),
        (["--data", str(tmp_path), "--detector", "gru"], "gru; wanted a name, =, and flags"),
        (["--data", str(tmp_path), "--set", "seed=3"], "is what --seeds is for"),
        (["--data", str(tmp_path), "--contaminate", "120"], "percentages from 0"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert told in capsys.readouterr().err


@pytest.mark.skipif(
    not environment.is_made(), reason="PyOD's environment is made by bench.quality: 3 GB with torch"
)
def test_pyods_neighbours_are_the_fifth_nearest_of_the_training_rows():
    trial = replace(halves(TABLE, "dte", 0, 0), standardise=False)
    python = environment.interpreter(print)
    outcome = measure(Detector("KNN", "pyod", "1", random=False, python=python), trial, False)
    assert isinstance(outcome, Outcome)
    distances = np.linalg.norm(trial.test[:, None] - trial.train, axis=2)
    fifth = np.sort(distances, axis=1)[:, 4]
    assert outcome.scores_of(0) == pytest.approx(fifth[trial.kinds == 0])
