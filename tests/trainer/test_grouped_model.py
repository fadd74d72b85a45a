"""From a file with groups to a sealed model that judges by them: the whole way, and the flags."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from schemas.contract import GROUPED_FORMAT_VERSION
from schemas.datafiles import FileOptions, read_table
from schemas.datafiles.groups import GroupColumn, RowGroups
from schemas.errors import SettingsError
from schemas.score import decode_score
from trainer.__main__ import main
from trainer.commands import FitCommand
from trainer.flags import parse
from trainer.groups import GroupPlace, plan_by_group, planned
from trainer.narrate import say_how_groups_calibrate, say_what_was_made
from trainer.runtime import open_sealed
from worker.model import ModelOptions, open_model
from worker.score_file import score_file

RATE = 0.05
# By share of the rows; the noise of each is as many times as large.
SITES = {"oslo": (0.4, 1.0), "rome": (0.3, 5.0), "bonn": (0.2, 0.2), "tiny": (0.05, 2.0)}
QUICK = ["--set", "detectors=norm", "--target-flag-rate", str(RATE)]


def write_events(path, rows, seed, labels=False):
    """Write events of some sites, a few without one; with labels, one in ten is an anomaly."""
    rng = np.random.default_rng(seed)
    shares = [share for share, _ in SITES.values()]
    of = rng.choice(len(SITES) + 1, rows, p=[*shares, 1 - sum(shares)])
    scale = np.array([*(scale for _, scale in SITES.values()), 1.0])[of]
    x = rng.normal(size=(rows, 3)) * scale[:, None]
    anomalous = labels & (rng.random(rows) < 0.1)
    x[anomalous] += 30
    names = [*SITES, ""]
    lines = ["x0,x1,x2,site" + ",y" * labels]
    for row, site, label in zip(x, of, anomalous, strict=True):
        lines.append(",".join([*map(repr, row.tolist()), names[site]]) + f",{int(label)}" * labels)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grouped")
    write_events(folder / "train.csv", 3_000, 0)
    write_events(folder / "labelled.csv", 12_000, 1, labels=True)
    return folder


def fitted(folder, name, *flags):
    out = folder / f"{name}.onnx"
    assert main(["fit", str(folder / "train.csv"), "--out", str(out), *QUICK, *flags]) == 0
    return open_sealed(out)


@pytest.fixture(scope="module")
def by_site(folder):
    return fitted(folder, "by-site", "--group-by", "site")


@pytest.fixture(scope="module")
def for_all(folder):
    return fitted(folder, "for-all", "--drop-column", "site")


def evaluated(folder, name, capsys, *flags):
    labelled = [str(folder / "labelled.csv"), "--label-column", "y", "--json"]
    assert main(["evaluate", str(folder / f"{name}.onnx"), *labelled, *flags]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("by_site")
def test_every_group_keeps_the_rate_that_one_threshold_for_all_does_not(folder, for_all, capsys):
    capsys.readouterr()
    groups = evaluated(folder, "by-site", capsys)["groups"]
    assert [group["group"] for group in groups] == ["bonn", "oslo", "rome", "tiny", None]
    for group in groups:
        assert group["low"] <= group["flagged"] <= group["high"]
    evaluated(folder, "for-all", capsys, "--drop-column", "site")
    table = np.genfromtxt(folder / "labelled.csv", delimiter=",", skip_header=1, dtype=str)
    scores = for_all.session.run(["score"], {"features": table[:, :3].astype(np.float32)})[0]
    above = scores > np.float32(for_all.contract.threshold.value)
    rate = {site: above[(table[:, 3] == site) & (table[:, 4] == "0")].mean() for site in SITES}
    assert rate["rome"] > 2 * RATE
    assert rate["oslo"] < 0.2 * RATE
    assert rate["bonn"] == 0


def test_the_contract_holds_what_was_found_and_the_format_says_so(by_site, for_all):
    contract = by_site.contract
    assert (contract.format_version, for_all.contract.format_version) == (
        GROUPED_FORMAT_VERSION,
        1,
    )
    assert contract.groups.texts == ("bonn", "oslo", "rome", "tiny")
    assert contract.groups.place == ("event", ("site",))
    assert contract.groups.pooled == "others"
    assert contract.feature_names == for_all.contract.feature_names == ("x0", "x1", "x2")
    assert contract.training["rows"]["calibrate"] == sum(
        calibration.n
        for calibration in (contract.calibration, *(m.calibration for m in contract.groups.members))
    )


@pytest.mark.usefixtures("by_site")
def test_the_worker_judges_a_file_as_evaluate_does(folder, capsys):
    capsys.readouterr()
    told = evaluated(folder, "by-site", capsys)
    model = open_model((folder / "by-site.onnx").read_bytes(), ModelOptions("cpu", batch_max=64))
    scores = [
        decode_score(record)
        for records, letters in score_file(
            folder / "labelled.csv", FileOptions(drop_columns=("y",)), model, 1_000, 0
        )
        for record in records
        if not letters
    ]
    labels = np.loadtxt(folder / "labelled.csv", delimiter=",", skiprows=1, usecols=4) == 1
    flagged = np.array([score.verdict == "anomalous" for score in scores])
    assert flagged[labels].mean() == told["tpr"]
    assert flagged[~labels].mean() == told["fpr"]
    for group in told["groups"]:
        of = np.array([score.calibration_group == group["group"] for score in scores]) & ~labels
        assert (of.sum(), flagged[of].sum()) == (group["normal_events"], group["flagged"])


def test_the_trainer_says_how_many_groups_have_their_own_threshold(folder, by_site, capsys):
    table = read_table(folder / "train.csv", FileOptions(group=GroupColumn("site")))
    place = GroupPlace("site", "event", ("site",))
    say_how_groups_calibrate(planned(table, place, 0.01, extrapolate=False)[0], place)
    told = capsys.readouterr().err
    assert "3 group(s) of 'site' have a threshold of their own for a flag rate of 0.01" in told
    assert "1 smaller group(s), and events that name none, share the pooled one" in told
    assert "of which 99 calibrate it" in told
    few = RowGroups(np.repeat([0, 1], [300, 10]).astype(np.int32), ("a", "b"))
    say_how_groups_calibrate(plan_by_group(few, "site", 0.01), place)
    assert "10 rows, too few to calibrate it: it is of all groups'" in capsys.readouterr().err
    say_what_was_made(by_site, folder / "by-site.onnx", 100.0)
    told = capsys.readouterr().out
    assert "4 group(s) of 'site' have thresholds of their own" in told
    assert "about 50,000 false alarms per million normal events of each group" in told
    assert "about 432,000 false alarms a day at 100 events a second of such groups" in told


def test_a_category_may_be_the_group_as_well(folder):
    model = fitted(folder, "feature", "--group-by", "site", "--category-column", "site")
    assert model.contract.groups.place == ("feature", "site")
    assert model.contract.feature_names == ("x0", "x1", "x2", "site")
    assert model.contract.groups.texts == ("bonn", "oslo", "rome", "tiny")


PLACES = {
    ("--group-by", "a.b"): GroupPlace("a.b", "event", ("a", "b")),
    ("--group-by", "site", "--group-path", "meta.at"): GroupPlace("site", "event", ("meta", "at")),
    ("--group-by", "site", "--group-from", "key"): GroupPlace("site", "key"),
    ("--group-by", "c", "--category-column", "c"): GroupPlace("c", "feature"),
    (): None,
}
CONTRADICTIONS = {
    ("--group-path", "a"): "go with --group-by",
    ("--group-from", "key"): "go with --group-by",
    ("--group-by", "s", "--group-from", "key", "--group-path", "a"): "--group-from key",
    ("--group-by", "c", "--category-column", "c", "--group-from", "key"): "is a feature",
    ("--group-by", "s", "--id-column", "s"): "named as something else as well",
    ("--group-by", "s", "--drop-column", "s"): "named as something else as well",
}


def command_of(flags) -> FitCommand:
    command = parse("t", "", {"fit": FitCommand}, ["fit", "x.csv", "--out", "x.onnx", *flags])
    assert isinstance(command, FitCommand)
    return command


@pytest.mark.parametrize("flags", PLACES, ids=" ".join)
def test_the_flags_say_where_a_record_has_its_group(flags):
    assert command_of(flags).group_place == PLACES[flags]


@pytest.mark.parametrize("flags", CONTRADICTIONS, ids=" ".join)
def test_flags_that_contradict_each_other_are_refused(flags):
    with pytest.raises(SettingsError, match=CONTRADICTIONS[flags]):
        command_of(flags).options()


def test_a_group_that_is_not_in_the_file_is_refused_before_the_training(folder, tmp_path, capsys):
    out = tmp_path / "m.onnx"
    assert main(["fit", str(folder / "train.csv"), "--out", str(out), "--group-by", "sites"]) == 2
    assert "has no column 'sites'; did you mean 'site'" in capsys.readouterr().err
    assert not out.exists()


def test_the_page_says_of_each_group_its_threshold_and_whether_it_keeps_it(folder, by_site):
    page = folder / "page.html"
    model = str(folder / "by-site.onnx")
    labelled = ["--labelled", str(folder / "labelled.csv"), "--label-column", "y"]
    assert main(["report", model, "--out", str(page)]) == 0
    text = page.read_text()
    for member in by_site.contract.groups.members:
        assert f"{member.threshold:.6g}" in text
    assert "Expected false alarms, by group" in text
    assert "Flag rates by group" not in text
    assert main(["report", model, "--out", str(page), *labelled]) == 0
    text = page.read_text()
    assert "In 5 of 5 groups the number of labelled normal events flagged is within" in text
    assert "above the threshold of its site" in text
    # Of all groups, they would lie anywhere about the one threshold that is drawn.
    drawn = text[text.index("How scores are distributed") : text.index("by group</h2>")]
    assert "calibration events" in drawn
    assert not re.search("labelled (normal events|anomalies)", drawn)
