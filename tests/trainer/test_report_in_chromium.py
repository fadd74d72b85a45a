"""The report's page as a reader sees it: opened in a headless Chromium, which comes in a wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from schemas.contract import Feature
from tests.builders import Recipe
from tests.trainer.chromium import UNAVAILABLE
from tests.trainer.pages import (
    COST,
    DRAWN_ALWAYS,
    DRAWN_WITH_LABELS,
    HOSTILE,
    a_model,
    labelled,
)
from trainer.report import render


def open_in_chromium(page: Path, *flags: str) -> dict:
    """What a reader would see of a page; a skip where Chromium cannot start, but not in CI."""
    script = Path(__file__).with_name("measure_page.js")
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.chromium", page, "--script", script, *flags],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        if os.environ.get("CI"):
            pytest.fail(f"no Chromium, and CI is set: {done.stderr}")
        pytest.skip(f"no Chromium here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Path:
    """A page with every plot, of a model whose features bear hostile names."""
    folder = tmp_path_factory.mktemp("page")
    features = tuple(Feature(name=name, path=(name,)) for name in HOSTILE)
    curves = {"training": [3.0, 0.1, 0.01], "validation": [3, 0.2, 0.1], "best_epoch": 3}
    model = a_model(
        folder, Recipe(features=len(HOSTILE)), features=features, training={"curves": curves}
    )
    page = folder / "page.html"
    page.write_text(render(model, labelled(model), COST), encoding="utf-8")
    return page


@pytest.mark.parametrize(
    "flags", [[], ["--dark"], ["--width", "390"]], ids=["light", "dark", "narrow"]
)
def test_chromium_shows_every_plot_whole_and_legible(hostile_page, flags):
    seen = open_in_chromium(hostile_page, *flags)

    titles = [plot["title"] for plot in seen["plots"]]
    assert titles == [*DRAWN_ALWAYS, *DRAWN_WITH_LABELS, "Loss in training"]
    assert seen["title"] == "stand-in 1: report"
    assert seen["requests"] == []
    assert seen["sideways"] == 0
    assert seen["weakest_text"] >= 4.5
    for plot in seen["plots"]:
        assert plot["clipped"] == [], plot["title"]
        assert plot["crossing"] == [], plot["title"]
        assert plot["height"] > 150, plot["title"]
        assert plot["marks"] >= 2, plot["title"]
        assert plot["weakest_text"] >= 4.5, plot["title"]


def colours_in(pdf: Path) -> set[str]:
    """The colours that a PDF of Chromium's fills and strokes with, in hexadecimal."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", pdf.read_bytes(), re.DOTALL)
    drawing = b"".join(
        zlib.decompressobj().decompress(one) for one in streams if one.startswith(b"x")
    )
    found = re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) (?:rg|RG)\b", drawing)
    return {"".join(f"{round(255 * float(part)):02x}" for part in colour) for colour in found}


def test_chromium_shows_other_colours_in_the_dark_and_the_light_ones_in_print(
    hostile_page, tmp_path
):
    light, dark = open_in_chromium(hostile_page), open_in_chromium(hostile_page, "--dark")

    assert light["ground"] == "rgb(255, 255, 255)"
    assert dark["ground"] != light["ground"]
    for bright, dim in zip(light["plots"], dark["plots"], strict=True):
        assert not set(bright["colours"]) & set(dim["colours"]), bright["title"]
    out = tmp_path / "page.pdf"
    open_in_chromium(hostile_page, "--dark", "--pdf", str(out))
    printed = colours_in(out)
    for colour in ("normal", "fresh", "anomaly"):
        in_light, in_dark = re.findall(rf"--{colour}: #(\w+);", hostile_page.read_text())
        assert in_light in printed
        assert in_dark not in printed
