"""`odradek-worker check` and `score`, and the scores of a file."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from schemas.errors import DataError, SettingsError
from schemas.event import EventLayout
from tests.builders import (
    Recipe,
    a_model,
    a_sealed_model,
    an_event,
    an_extrapolation,
    records,
)
from worker import offline
from worker.results import to_results


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model())
    return path


def score(*arguments: object, capsys) -> tuple[list[dict], str]:
    assert offline.score([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], err


def test_a_good_model_is_said_to_be_with_what_it_is(model_path, capsys):
    assert offline.check([str(model_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "is fit to serve on cpu: stand-in 1, 3 features, threshold" in out
    assert "for a flag rate of 0.1 from 199 calibration events, digest" in out
    assert re.search(r"digest [0-9a-f]{64}$", out.strip())


def test_check_says_the_false_alarms_a_day(model_path, capsys):
    assert offline.check([str(model_path), "--events-per-second", "2000"]) == 0
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith("about 17,300,000 false alarms a day at 2,000 normal events a second;")
    assert "with nine chances in ten 12,000,000 to 24,000,000" in said


def test_check_says_that_a_threshold_is_extrapolated(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model(**an_extrapolation(Recipe())))
    assert offline.check([str(path), "--events-per-second", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "for a flag rate of 0.0001 extrapolated from 199 calibration events, digest" in first
    assert second == (
        "about 8.64 false alarms a day at 1 normal events a second; with nine chances in ten "
        "0.86 to 35, by extrapolation"
    )


@pytest.mark.parametrize("rate", ["0", "-1", "inf", "nan", "many"])
def test_a_rate_of_events_that_is_none_is_the_users_mistake(rate, model_path):
    with pytest.raises(SettingsError, match="events_per_second: "):
        offline.check([str(model_path), "--events-per-second", rate])


def test_json_lines_come_out_as_the_worker_would_score_them(model_path, tmp_path, capsys):
    values = [an_event(1, -9, 2, event_id="a"), an_event(0.1, None, 0.1, event_id="b")]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(values) + b"\n")
    lines, err = score(model_path, path, capsys=capsys)
    model = a_model()
    taken = records(values, "events.jsonl")
    batch = model.decoder.decode(taken)
    outputs = to_results(taken, batch, model.score(batch.features), model, 5)
    assert lines == [json.loads(value or b"") for value in outputs.scores.values]
    assert not err
    assert [line["verdict"] for line in lines] == ["anomalous", "normal"]
    assert lines[0]["source"] == {"topic": "events.jsonl", "partition": 0, "offset": 0}


def test_a_bad_line_is_a_dead_letter_on_stderr_and_the_others_are_scored(
    model_path, tmp_path, capsys
):
    path = tmp_path / "events.jsonl"
    path.write_bytes(an_event(1, 2, 3) + b"\n\nrubbish\n" + an_event(1, 2, 3) + b"\r\n")
    lines, err = score(model_path, path, capsys=capsys)
    assert [line["source"]["offset"] for line in lines] == [0, 2]
    letter, told = err.splitlines()
    assert json.loads(letter.removeprefix("dead letter: "))["reason"] == "not_json"
    assert told == "1 events could not be scored; their reasons stand above"


def test_csv_and_npz_give_the_scores_of_the_same_events(model_path, tmp_path, capsys):
    rows = np.array([[1.5, -2.25, 3], [0.5, 0.25, -0.125]], np.float32)
    (tmp_path / "rows.csv").write_text("id,x2,x0,x1\na,3,1.5,-2.25\nb,-0.125,0.5,0.25\n")
    np.savez(tmp_path / "rows.npz", X=rows, feature_names=np.array(["x0", "x1", "x2"]))
    from_csv, _ = score(model_path, tmp_path / "rows.csv", "--id-column", "id", capsys=capsys)
    from_npz, _ = score(model_path, tmp_path / "rows.npz", capsys=capsys)
    wanted = a_model().score(rows).scores.tolist()
    assert [line["score"] for line in from_csv] == wanted
    assert [line["score"] for line in from_npz] == wanted
    assert [line["event_id"] for line in from_csv] == ["a", "b"]
    assert [line["event_id"] for line in from_npz] == ["rows.npz-0-0", "rows.npz-0-1"]


def test_the_size_of_a_batch_changes_no_score(model_path, tmp_path, capsys):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(an_event(place, 1, -place) for place in range(25)))
    at_once, _ = score(model_path, path, capsys=capsys)
    by_sevens, _ = score(model_path, path, "--batch-max", 7, capsys=capsys)
    assert at_once == by_sevens
    assert [line["source"]["offset"] for line in at_once] == [*range(25)]


@pytest.mark.parametrize("kind", ["ms", "s", "rfc3339"])
def test_a_models_own_layout_is_used_for_files(kind, tmp_path, capsys):
    layout = EventLayout(
        event_id=("meta", "id"), timestamp=("at",), timestamp_kind=kind, features=("data",)
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model(Recipe(layout=layout)))
    (tmp_path / "rows.csv").write_text("id,when,x0,x1,x2\na,2023-11-14T22:13:20Z,1,2,3\n")
    columns = ["--id-column", "id", "--timestamp-column", "when"]
    if kind != "rfc3339":
        when = "1700000000000" if kind == "ms" else "1700000000"
        (tmp_path / "rows.csv").write_text(f"id,when,x0,x1,x2\na,{when},1,2,3\n")
    lines, _ = score(path, tmp_path / "rows.csv", *columns, capsys=capsys)
    assert (lines[0]["event_id"], lines[0]["timestamp"]) == ("a", 1700000000000)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.csv", None, "absent.csv"),
        ("absent.jsonl", None, "absent.jsonl"),
        ("empty.csv", "", "empty"),
        ("short.csv", "x0,x1\n1,2\n", "x2"),
        ("words.csv", "x0,x1,x2\n1,two,3\n", "two"),
        ("infinite.csv", "x0,x1,x2\n1,inf,3\n", "inf"),
        ("rows.txt", "1,2,3\n", "rows.txt"),
    ],
)
def test_a_file_that_cannot_be_used_is_the_users_mistake(name, content, told, model_path, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as refused:
        offline.score([str(model_path), str(tmp_path / name)])
    assert told in str(refused.value)


def test_a_bad_model_scores_nothing(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"model\.onnx is refused: it carries .*nothing is scored"):
        offline.score([str(tmp_path / "model.onnx"), "events.csv"])


@pytest.mark.parametrize(
    "arguments", [[], ["m.onnx"], ["m.onnx", "f.csv", "--no-such"], ["m", "f", "--batch-max", "0"]]
)
def test_wrong_arguments_are_the_users_mistake(arguments):
    with pytest.raises(SettingsError, match="see --help"):
        offline.score(arguments)
