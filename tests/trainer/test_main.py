"""The program as a person runs it: exit codes, and one clear message for each mistake."""

from __future__ import annotations

import json
import re
import signal
import sys

import numpy as np
import pytest

from schemas.contract import SCORE_SCALE_MIN, ModelRefused
from tests.trainer.conftest import NAMES, QUICK, normal_rows, write_csv
from trainer.__main__ import cli, main
from trainer.commands import EvaluateCommand, FitCommand
from trainer.flags import parse
from trainer.runtime import open_sealed
from trainer.seal import staged


@pytest.fixture(scope="module")
def labelled_csv(tmp_path_factory):
    rows = normal_rows(400, seed=9)
    rows[300:, 2] = -500.0
    path = tmp_path_factory.mktemp("labelled") / "labelled.csv"
    return write_csv(path, rows, labels=["normal"] * 300 + ["anomaly"] * 100)


def fails(capsys, *arguments):
    """Run the program, expect the user's mistake, and return the message."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("error: ") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["arguments are required: command"]),
        (["fitt"], ["invalid choice: 'fitt'"]),
        (["fit"], ["DATA", "--out is missing"]),
        (["fit", "a.csv", "--ou", "m.onnx"], ["no flag --ou; did you mean '--out'?"]),
        (["fit", "a.csv", "--out", "m.onnx", "--set", "epoch=3"], ["did you mean 'epochs'?"]),
        (
            ["fit", "a.csv", "--out", "m.onnx", "--out", "n.onnx", "--out", "o.onnx"],
            ["--out is given 3 times; wanted once"],
        ),
        (
            ["fit", "a.csv", "--out", "m.onnx", "--set", "seed=1", "--set", "seed=2"],
            ["--set: seed: set more than once; wanted each name once"],
        ),
        (["evaluate", "m.onnx", "--json", "a.csv", "b.csv"], ["'b.csv' belongs to no flag"]),
        (["fit", "a.csv", "--out", "m.onnx", "--set", "fast"], ["wanted name=value, got 'fast'"]),
        (
            ["fit", "a.csv", "--out", "m.onnx", "--target-flag-rate", "7", "--set", "seed=x"],
            ["--target-flag-rate: input should be less than 1 (seen: '7')", "--set seed: "],
        ),
        (
            ["fit", "a.csv", "--out", "m.onnx", "--set", "transforms=pt:log"],
            ["'auto', 'standardise' or 'asinh' (seen: 'log')"],
        ),
        (["fit", "a.csv", "--out", "m.onnx"], ["a.csv cannot be read: No such file"]),
        (["fit", "a.csv", "--out", "m.pt"], ["wanted a name that ends in .onnx"]),
        (["evaluate", "m.onnx"], ["LABELLED is missing"]),
        (["evaluate", "absent.onnx", "a.csv"], ["absent.onnx was refused: it cannot be read"]),
    ],
)
def test_wrong_arguments_are_one_message_and_exit_code_2(
    arguments, messages, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    error = fails(capsys, *arguments)

    assert all(message in error for message in messages), error


def test_every_problem_is_in_one_message(capsys):
    error = fails(capsys, "fit", "a.csv", "--tagret-flag-rate", "1", "--set", "epohcs=1")

    assert "did you mean '--target-flag-rate'?" in error
    assert "--out is missing" in error
    assert "did you mean 'epochs'?" in error


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (normal_rows(1), "1 usable row(s), of which at most 0 calibrate"),
        (normal_rows(40), "takes 19 calibration events, 48 rows in all"),
        (np.ones((100, 6), np.float32), "no column varies among the fit rows, of 6; wanted"),
        (normal_rows(100) * [1, 1, np.nan, 1, 1, 1], "no fit row has a value for 'mass'"),
    ],
)
def test_data_that_cannot_train_a_model_is_refused(rows, message, capsys, tmp_path):
    path = write_csv(tmp_path / "a.csv", rows)

    assert message in fails(capsys, "fit", path, "--out", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == [path]


def test_a_rate_out_of_reach_is_refused_before_training(capsys, normal_csv, tmp_path):
    out = tmp_path / "m.onnx"

    error = fails(capsys, "fit", normal_csv, "--out", out, "--target-flag-rate", "0.0001")

    assert "takes 9,999 calibration events, 24,998 rows in all" in error


def test_a_labelled_file_without_labels_is_found_out_before_training(capsys, normal_csv, tmp_path):
    out = tmp_path / "m.onnx"

    error = fails(capsys, "fit", normal_csv, "--out", out, "--labelled", normal_csv)

    assert "has no labels; name the column" in error
    assert "epoch" not in error


def test_a_feature_that_is_not_there_is_refused_in_a_setting(capsys, normal_csv, tmp_path):
    out = tmp_path / "m.onnx"

    error = fails(capsys, "fit", normal_csv, "--out", out, "--set", "transforms=ptt:asinh")

    assert "no feature is named 'ptt'; did you mean 'pt'?" in error


def test_a_wrong_build_time_is_refused(capsys, normal_csv, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")

    error = fails(capsys, "fit", normal_csv, "--out", tmp_path / "m.onnx")

    assert "SOURCE_DATE_EPOCH is 'yesterday'; wanted seconds since 1970" in error


def test_help_shows_the_settings_and_their_reasons(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--help"])

    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "learning_rate=0.001" in text
    assert "--features-path" in text
    assert "ends in .onnx (required)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("fit", "usage: odradek-trainer fit DATA... --out OUT [option...]"),
        ("evaluate", "usage: odradek-trainer evaluate MODEL LABELLED [option...]"),
        ("report", "usage: odradek-trainer report MODEL [option...]"),
    ],
)
def test_the_usage_line_brackets_nothing_that_must_be_given(command, usage, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"{usage}\n")


def test_evaluate_gives_its_figures_as_text_and_as_json(sealed_path, labelled_csv, capsys):
    arguments = ["evaluate", str(sealed_path), str(labelled_csv), "--label-column", "label"]

    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert main([*arguments, "--json", "--at-tpr", "0.5"]) == 0
    figures = json.loads(capsys.readouterr().out)

    assert "on 300 normal events and 100 anomalies" in text
    assert figures["at_tpr"] == 0.5
    assert figures["anomalies"] == 100
    assert figures["auc"] > 0.95
    assert figures["model"] == "tiny 20261124T142100Z"


def test_flags_may_stand_before_between_and_after_what_they_belong_to():
    evaluate = {"evaluate": EvaluateCommand, "fit": FitCommand}
    for words in ("--json m.onnx l.csv", "m.onnx --json l.csv", "m.onnx l.csv --json"):
        command = parse("program", "about", evaluate, ["evaluate", *words.split()])
        assert (str(command.model), str(command.labelled), command.as_json) == (
            "m.onnx", "l.csv", True,
        )  # fmt: skip
    for words in ("a.csv --out m.onnx b.csv", "--out m.onnx a.csv b.csv --set seed=1"):
        command = parse("program", "about", evaluate, ["fit", *words.split()])
        assert list(map(str, command.data)) == ["a.csv", "b.csv"]
        assert str(command.out) == "m.onnx"


def test_evaluate_reads_a_file_that_also_names_its_events(sealed_path, labelled_csv, tmp_path):
    header, *lines = labelled_csv.read_text().splitlines()
    lines = [f"e{place},{place},x,{line}" for place, line in enumerate(lines)]
    path = tmp_path / "named.csv"
    path.write_text("\n".join([f"id,at,note,{header}", *lines]))
    flags = "--label-column label --id-column id --timestamp-column at --drop-column note"

    assert main(["evaluate", str(sealed_path), str(path), *flags.split()]) == 0


def test_evaluate_refuses_what_it_cannot_use(
    sealed_path, labelled_csv, normal_csv, capsys, tmp_path
):
    unlabelled = fails(capsys, "evaluate", sealed_path, normal_csv)
    one_kind = write_csv(tmp_path / "one.csv", normal_rows(20), labels=[0] * 20)
    single = fails(capsys, "evaluate", sealed_path, one_kind, "--label-column", "label")
    fewer = write_csv(tmp_path / "few.csv", normal_rows(9)[:, :5], names=NAMES[:5])
    narrow = fails(capsys, "evaluate", sealed_path, fewer)
    no_model = fails(capsys, "evaluate", labelled_csv, labelled_csv)

    assert "has no labels; name the column that marks anomalies with --label-column" in unlabelled
    assert "holds normal events alone; wanted both kinds" in single
    assert "has no column 'steady'" in narrow
    assert "was refused: it carries no digest" in no_model


def test_fit_evaluates_warns_and_says_what_it_made(labelled_csv, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    arguments = ["--labelled", str(labelled_csv), "--label-column", "label"]
    normal = write_csv(tmp_path / "normal.csv", normal_rows(400, seed=9)[:300])

    assert main(["fit", str(normal), "--out", str(out), *QUICK, *arguments]) == 0

    written = capsys.readouterr()
    assert "rows: fit 171, stop 30, calibrate 99; best epoch " in written.out
    assert re.search(r"hold on other machines to [125]e-05 relative", written.out)
    assert "1 column(s) never vary: steady;" in written.err
    assert "AUC" in written.out
    assert "smallest supported one, 0.01, was taken" in written.err
    assert "of the 400 labelled rows were also trained or calibrated on" in written.err


def test_nested_json_events_train_a_model_that_expects_them(tmp_path):
    lines = [
        {
            "meta": {"id": f"e{place}", "at": place},
            "payload": {"a": {"x": float(row[0])}, "b": float(row[1])},
        }
        for place, row in enumerate(np.nan_to_num(normal_rows(200)))
    ]
    path, out = tmp_path / "events.jsonl", tmp_path / "model.onnx"
    path.write_text("\n".join(map(json.dumps, lines)))
    flags = ["--features-path", "payload", "--event-id-path", "meta.id"]
    flags += ["--timestamp-path", "meta.at", "--timestamp-kind", "s"]

    assert main(["fit", str(path), "--out", str(out), *QUICK, *flags]) == 0

    contract = open_sealed(out).contract
    assert contract.feature_names == ("a.x", "b")
    assert contract.paths == (("a", "x"), ("b",))
    assert contract.layout.event_id == ("meta", "id")
    assert contract.layout.features == ("payload",)
    assert contract.layout.timestamp_kind == "s"


@pytest.mark.parametrize("preset", ["default", "dense"])
def test_data_that_is_reconstructed_almost_exactly_is_sealed(tmp_path, preset, capsys):
    """Trained to the end, residuals are rounding: no digit of them holds on other kernels."""
    celsius = np.random.default_rng(0).normal(20, 8, (800, 1))
    columns = np.hstack([celsius, 1.8 * celsius + 32])
    path, out = tmp_path / "temperatures.csv", tmp_path / "model.onnx"
    write_csv(path, columns, ["celsius", "fahrenheit"])
    steps = ["--set", "epochs=1", "--set", "steps_min=600"]

    assert main(["fit", str(path), "--out", str(out), "--preset", preset, *steps]) == 0

    first = {"default": "denoiser, 1/40 of its training: loss ", "dense": "epoch 1/"}[preset]
    assert f"\n{first}" in capsys.readouterr().err
    contract = open_sealed(out).contract
    scores = contract.calibration.scores
    if preset == "dense":
        assert scores[len(scores) // 2] < 1e-4
        assert contract.score_tolerance.scale == SCORE_SCALE_MIN
    else:  # The logarithm of a p-value, which is about 0.7 whatever the residuals.
        assert 0.3 < scores[len(scores) // 2] < 1.5


def test_a_model_of_ours_that_is_refused_is_our_fault_and_no_traceback(
    normal_csv, tmp_path, monkeypatch, capsys
):
    def refuse(*_):
        raise ModelRefused("torch and the file differ")

    monkeypatch.setattr("trainer.__main__.verify", refuse)

    assert main(["fit", str(normal_csv), "--out", str(tmp_path / "m.onnx"), *QUICK]) == 1

    error = capsys.readouterr().err
    assert "error: the model that was made does not keep its contract: torch and" in error
    assert "Nothing was written" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_integers_that_float32_cannot_tell_apart_are_pointed_out(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(30, 3))
    rows[:, 1] = 1_767_225_600_000 + np.arange(30)
    path = write_csv(tmp_path / "a.csv", rows, ["a", "when", "b"])

    assert main(["fit", str(path), "--out", str(tmp_path / "m.onnx")]) == 2

    error = capsys.readouterr().err
    assert "warning: the column 'when' holds integers that a 32-bit float cannot tell" in error


def test_being_told_to_stop_leaves_no_draft_of_the_sealed_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["odradek-trainer", "evaluate", "absent.onnx", "absent.csv"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli() == 2
        with pytest.raises(SystemExit) as ended, staged(tmp_path / "m.onnx"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert ended.value.code == 143
    assert not [*tmp_path.iterdir()]
