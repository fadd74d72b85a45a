"""What the report says of the training data, against the data itself."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from schemas.contract import Feature
from tests.builders import Recipe
from tests.trainer.pages import HOSTILE, Page, a_model, page_of
from trainer.__main__ import main
from trainer.runtime import open_sealed

ROWS = 900
CHOSEN = [
    "--category-column",
    "country",
    "--set",
    "unseen=country:refuse",
    "--set",
    "detectors=norm",
]


@pytest.fixture(scope="module")
def payments():
    """Payments as they would be written: some have no age, some come from rare shops."""
    rng = np.random.default_rng(3)
    shops = rng.choice(["a", "b", "c", "d"], ROWS, p=[0.5, 0.3, 0.15, 0.05]).astype(object)
    shops[rng.random(ROWS) < 0.02] = "corner shop"
    shops[:5] = ["x1", "x2", "x2", "x3", ""]
    return {
        "amount": [f"{value:.2f}" for value in rng.lognormal(3, 0.5, ROWS)],
        "age": ["" if rng.random() < 0.3 else f"{value:.1f}" for value in rng.normal(40, 9, ROWS)],
        "rate": ["1.19"] * ROWS,
        "wild": [f"{value:.4f}" for value in rng.standard_cauchy(ROWS)],
        "country": [*rng.choice(["DE", "FR"], ROWS - 1, p=[0.8, 0.2]), "IS"],
        "shop": [*shops],
    }


@pytest.fixture(scope="module")
def page(payments, tmp_path_factory):
    """The page about a model of these payments, as `fit --report` writes it."""
    folder = tmp_path_factory.mktemp("payments")
    with (folder / "payments.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(payments)
        writer.writerows(zip(*payments.values(), strict=True))
    out = folder / "payments.onnx"
    written = ["--out", str(out), "--report", str(out.with_suffix(".html"))]
    flags = [*written, "--category-column", "shop", *CHOSEN]

    assert main(["fit", str(folder / "payments.csv"), *flags]) == 0

    missing = open_sealed(out).contract.training["data_quality"]["missing_rows"]
    assert missing == {"age": payments["age"].count(""), "shop": 1}
    return Page(out.with_suffix(".html").read_text())


def percent(rows):
    return f"{100 * rows / ROWS:.3g}%"


def test_missing_values_are_those_of_the_file(page, payments):
    ages = payments["age"].count("")

    assert page.table["age"][1:3] == [percent(ages), "scored without it"]
    assert page.table["amount"][1] == "0%"
    said = page.said["section"][7]
    assert f"Of 5,400 values {ages + 1:,} are missing ({100 * (ages + 1) / 5400:.3g}%)" in said
    assert f"in 2 of the features; most often age, in {percent(ages)} of the events." in said


def test_constants_heavy_tails_and_categories_are_counted(page):
    said = page.said["section"][7]

    assert "Of 6 features:" in said
    for kind in ("2 standardised", "2 categories", "1 never varied", "1 with heavy tails (asinh)"):
        assert kind in said
    assert page.table["rate"][3] == "constant"
    assert page.table["wild"][3] == "asinh"
    assert page.table["events used"] == ["900"]


def test_a_category_tells_its_texts_the_rare_ones_and_what_becomes_of_others(page, payments):
    counted = Counter(payments["shop"])
    known = [text for text, rows in counted.items() if rows >= 10]
    rows = {row[0]: row[1:] for row in page.rows if row[0] in {"shop", "country"} and len(row) == 5}

    most = ", ".join(f"{text} {percent(rows)}" for text, rows in counted.most_common(3))
    assert rows["shop"] == [str(len(known)), most, f"3 in {percent(4)} of events", "scored as rare"]
    countries = Counter(payments["country"]).most_common(3)
    most = ", ".join(f"{text} {percent(rows)}" for text, rows in countries)
    assert rows["country"] == ["3", most, "none", "not scored"]


def test_settings_that_nothing_heeded_are_not_on_the_page(page):
    settings = {row[0] for row in page.rows if len(row) == 2}

    assert {"detectors.norm", "seed", "unseen.country"} <= settings
    assert not {"epochs", "learning_rate", "family", "width", "hidden", "clip"} & settings


def test_of_many_features_those_with_holes_come_before_those_with_heavy_tails(tmp_path):
    kinds = ["constant"] + ["asinh"] * 30 + ["standardise"] * 89
    training = {
        "transforms": {f"x{place}": {"kind": kind} for place, kind in enumerate(kinds)},
        "data_quality": {"rows_used": 1000, "missing_values": 504, "missing_rows": {}},
    }
    training["data_quality"]["missing_rows"] = {"x119": 300, "x118": 200, "x117": 4}
    page = page_of(a_model(tmp_path, Recipe(features=120), training=training))

    listed = [row[0] for row in page.rows if row[0].startswith("x")]
    assert listed[:4] == ["x0", "x119", "x118", "x1"]
    assert listed[33] == "x117"
    assert len(listed) == 50
    assert page.table["x119"][1] == "30%"


def test_a_file_without_a_record_of_missing_values_says_nothing_of_them(tmp_path):
    transforms = {"x0": {"kind": "standardise"}}
    page = page_of(a_model(tmp_path, training={"transforms": transforms}))

    assert page.table["x0"][:2] == ["number", "scored without it"]
    assert "missing" not in page.said["section"][7].replace("if missing", "")


def test_texts_of_categories_stay_text_and_short(tmp_path):
    texts = tuple(dict.fromkeys(text[:256] for text in HOSTILE))
    feature = Feature(name="c", path=("c",), kind="category", categories=texts)
    counted = {"known": [30 - place for place in range(len(texts))], "rare_texts": 0}
    quality = {"rows_used": 300, "categories": {"c": counted}}
    model = a_model(
        tmp_path, Recipe(features=1), features=(feature,), training={"data_quality": quality}
    )
    page = page_of(model)

    (frequent,) = [row[2] for row in page.rows if row[0] == "c" and len(row) == 5]
    assert frequent.startswith("<script>document.title … 10%, ")
