"""The report's page: what it says, that all of it is text, and the commands that write it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.contract import Feature
from tests.builders import Recipe, an_extrapolation
from tests.trainer.conftest import QUICK, normal_rows, write_csv
from tests.trainer.pages import (
    COST,
    DRAWN_ALWAYS,
    DRAWN_WITH_LABELS,
    HOSTILE,
    PLAIN,
    TAGS,
    Page,
    a_labelled_table,
    a_model,
    labelled,
    page_of,
)
from trainer.__main__ import main
from trainer.evaluate import evaluate
from trainer.report import render
from trainer.report_page.labelled import score_labelled
from trainer.runtime import open_sealed


def test_the_page_says_what_the_model_is_and_was_made_of(sealed):
    page = page_of(sealed)
    contract, table = sealed.contract, page.table

    assert page.said["h1"] == [contract.name]
    assert table["digest (SHA-256)"] == [sealed.digest]
    assert table["version"] == [contract.version]
    for part in ("fit", "stop", "calibrate"):
        assert table[part][0] == f"{contract.training['rows'][part]:,}"
    assert contract.training["rows_sha256"] in page.said["section"][6]
    assert table["epochs"] == ["3"]
    assert table["torch"] == [contract.training["versions"]["torch"]]
    assert table["steady"][3] == "constant"
    assert table["tail"][3] == "asinh"
    assert (
        "1.50 CPU microseconds per event, the median of 200 batches of 1,024"
        in (page.said["section"][8])
    )
    *others, loss = page.plots
    assert others == DRAWN_ALWAYS
    assert loss.startswith("Loss in training")


def test_without_labels_the_page_says_what_is_missing_and_how_to_get_it(sealed):
    page = page_of(sealed)

    assert not set(DRAWN_WITH_LABELS) & set(page.plots)
    assert page.said["code"][:3] == 3 * [
        "odradek-trainer report MODEL.onnx --labelled FILE --label-column COLUMN"
    ]


def test_with_labels_the_page_has_every_plot_and_the_figures_of_evaluate(tmp_path):
    model = a_model(tmp_path)
    figures = evaluate(model, a_labelled_table(model), at_tpr=0.3)

    page = page_of(model, labelled(model))

    assert page.plots == DRAWN_ALWAYS + DRAWN_WITH_LABELS
    assert page.table["area under the ROC curve"] == [f"{figures.auc:.4f}"]
    assert page.table["anomalies"] == ["100"]
    assert page.table["normal events flagged at the threshold"][0].startswith(
        f"{100 * figures.fpr:.3g}%"
    )
    assert (
        "Whether some of these rows also trained the model cannot be seen"
        in (page.said["section"][2])
    )


def test_names_stay_text_whatever_they_hold(tmp_path):
    features = tuple(Feature(name=name, path=(name,)) for name in HOSTILE)
    training = {
        "notes": [HOSTILE[0]],
        HOSTILE[1]: {HOSTILE[2]: HOSTILE[0]},
        "curves": {HOSTILE[2]: {"training": [3, 2], "validation": [3, 2.5], "best_epoch": 2}},
        "transforms": {name: {"kind": HOSTILE[0], HOSTILE[1]: 1.0} for name in HOSTILE},
    }
    recipe = Recipe(features=len(HOSTILE), name=HOSTILE[0], version=HOSTILE[1])
    model = a_model(tmp_path, recipe, features=features, training=training)

    page = page_of(model, replace(labelled(model), source=HOSTILE[0]))

    assert page.tags <= TAGS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.said["h1"] == [HOSTILE[0]]
    assert len(page.said["h2"]) == 10
    for name in HOSTILE[:6]:
        assert name in page.said["th"]
    drawn = page.said["text"]
    assert "<script>document.title = …" in drawn
    assert sum("xxxxx" in text for text in drawn) == 2, "two long names share no bar"
    assert not [text for text in page.said["body"] if "\u202e" in text or "\x00" in text]


def test_the_page_asks_nothing_of_a_network_and_runs_nothing(tmp_path):
    model = a_model(tmp_path)
    text = render(model, labelled(model), COST)
    page = Page(text)

    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    loading = {"src", "srcset", "data", "action", "poster", "xlink:href", "style"}
    assert not [pair for pair in page.attributes if pair[0] in loading]
    assert all(value[0] == "#" for name, value in page.attributes if name == "href")
    assert not {"url(", "@import", "<script"} & {
        mark for mark in ("url(", "@import", "<script") if mark in text
    }


def test_every_link_goes_somewhere_and_every_plot_has_words_and_a_table(tmp_path):
    model = a_model(tmp_path)
    page = page_of(model, labelled(model))

    names = [value for name, value in page.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert {value[1:] for name, value in page.attributes if name == "href"} == set(names)
    described = [value for name, value in page.attributes if name == "aria-label"]
    assert all(described)
    assert page.attributes.count(("role", "img")) == len(page.plots)
    assert sum(text.startswith("The numbers: ") for text in page.said["summary"]) == len(page.plots)


@pytest.mark.parametrize("features", [1, 4096])
def test_the_page_keeps_its_size_whatever_the_number_of_features(features, tmp_path):
    transforms = {f"x{place}": {"kind": "standardise", "centre": 0.0} for place in range(features)}
    transforms[f"x{features - 1}"]["kind"] = "constant"
    model = a_model(tmp_path, Recipe(features=features), training={"transforms": transforms})

    text = render(model, labelled(model), COST)

    assert len(text) < 160_000
    page = Page(text)
    if features > 1:
        assert "50 of 4,096 are listed; 4,046 more are not." in text
        assert page.table["x4095"] == ["number", "scored without it", "constant", "0"]
        assert "Of 4,096 features: 4,095 standardised, 1 never varied." in text


def test_the_page_is_the_same_for_the_same_model_and_events(tmp_path):
    pages = set()
    for _ in range(2):
        model = a_model(tmp_path)
        pages.add(render(model, labelled(model), COST))

    assert len(pages) == 1


def test_keys_of_the_record_that_nobody_knows_are_listed(tmp_path):
    curves = {"training": [2.0, 1.0], "validation": [2.0, 1.5], "best_epoch": 2}
    training = {
        "curves": curves,
        "curves_by_detector": {
            "denoiser": curves,
            "memory": {"curves": curves},
            "odd": {"training": ["x"]},
        },
        "parts": [{"name": "denoiser"}],
        "groups": {"host": {"a": 10_000, "b": None, "c": [1, 2]}},
        "rows": {"fit": 7, "trim": 3},
        "data_quality": {"new_count": 12},
    }
    page = page_of(a_model(tmp_path, training=training))

    assert page.plots[2:] == ["Loss in training: denoiser", "Loss in training: memory curves"]
    assert page.table["groups.host.a"] == ["10,000"]
    assert page.table["groups.host.b"] == ["not set"]
    assert page.table["groups.host.c"] == ["1, 2"]
    assert page.table["parts"] == ["1 in all"]
    assert page.table["trim"][0] == "3"
    assert page.table["new count"] == ["12"]


def test_a_model_that_holds_training_rows_says_so(tmp_path):
    page = page_of(a_model(tmp_path, holds_training_rows=True))

    assert page.table["training rows inside the file"] == ["some"]
    assert "who has the file can read them" in page.said["section"][5]


def test_an_extrapolating_threshold_says_so_wherever_it_counts(tmp_path):
    model = a_model(tmp_path, PLAIN, **an_extrapolation(PLAIN))
    page = page_of(model, labelled(model))

    assert (
        "The fine line is the fitted tail: beyond the events, an extrapolation."
        in (page.said["figcaption"][1])
    )
    assert "false alarms per million normal events, by extrapolation" in page.said["section"][1]
    assert "The target is an extrapolation, which has no exact band." in page.said["section"][3]
    assert page.table["rule of the threshold"] == ["generalised_pareto"]


def test_normal_events_that_are_not_like_the_calibrations_are_told_apart(tmp_path):
    model = a_model(tmp_path)
    table = a_labelled_table(model)
    alike = page_of(model, score_labelled(model, table, "alike.csv")).said["section"][3]
    drifted = replace(table, features=2 * table.features)
    apart = page_of(model, score_labelled(model, drifted, "apart.csv")).said["section"][3]

    assert "Chance explains" in alike
    assert "as even as chance allows" in alike
    assert "That is outside what chance explains" in apart
    assert "not even" in apart


def test_report_writes_its_page_with_labels_and_without(sealed_path, tmp_path, capsys):
    rows = normal_rows(400, seed=9)
    rows[300:, 2] = -500.0
    events = write_csv(tmp_path / "labelled.csv", rows, labels=[0] * 300 + [1] * 100)
    out = tmp_path / "page.html"
    flags = ["--labelled", str(events), "--label-column", "label"]

    assert main(["report", str(sealed_path), "--out", str(out), *flags]) == 0
    page = Page(out.read_text())

    assert page.plots[:6] == DRAWN_ALWAYS + DRAWN_WITH_LABELS
    assert "labelled.csv" in page.said["section"][2]
    assert "Written by odradek-trainer report" in " ".join(page.said["footer"][0].split())
    assert str(tmp_path) not in out.read_text(), "a page names no folder of this machine"
    assert f"{out}: a page about model tiny" in capsys.readouterr().err


def test_fit_writes_a_report_that_knows_which_rows_were_seen(tmp_path):
    rows = normal_rows(400, seed=9)
    rows[300:, 2] = -500.0
    events = write_csv(tmp_path / "labelled.csv", rows, labels=[0] * 300 + [1] * 100)
    normal = write_csv(tmp_path / "normal.csv", rows[:300])
    out, page = tmp_path / "model.onnx", tmp_path / "page.html"
    flags = ["--labelled", str(events), "--label-column", "label", "--report", str(page)]

    assert main(["fit", str(normal), "--out", str(out), *QUICK, *flags]) == 0

    said = Page(page.read_text())
    assert said.table["digest (SHA-256)"] == [open_sealed(out).digest]
    assert "Written by odradek-trainer fit --report" in " ".join(said.said["footer"][0].split())
    seen = said.said["section"][2]
    assert "of these rows also trained or calibrated the model: the figures flatter it" in seen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "{model}", "--out", "page.pdf"], "--out page.pdf: wanted a name that ends in"),
        (["report", "{model}", "--out", "no/page.html"], "there is no folder no; make it first"),
        (["report", "absent.onnx"], "absent.onnx was refused: it cannot be read"),
        (["report", "{model}", "--labelled", "{csv}"], "has no labels; name the column"),
        (["report"], "MODEL is missing"),
        (["fit", "{csv}", "--out", "m.onnx", "--report", "p.txt"], "--report p.txt: wanted a name"),
    ],
)
def test_what_cannot_be_reported_is_one_message(
    arguments, message, sealed_path, normal_csv, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    filled = [one.format(model=sealed_path, csv=normal_csv) for one in arguments]

    assert main(filled) == 2

    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
