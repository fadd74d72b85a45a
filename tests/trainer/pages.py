"""A report's page for tests: made from a stand-in model, and taken apart again."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from schemas.datafiles import Table
from tests.builders import Recipe, a_sealed_model
from trainer.report import render
from trainer.report_page.labelled import score_labelled
from trainer.report_page.record import Cost
from trainer.runtime import open_sealed

PLAIN = Recipe()
COST = Cost(1.5, 1.4, 1.7, 200, "a processor")
HOSTILE = (
    "<script>document.title = 'hacked'</script>",
    '"><img src=x onerror="document.title = \'hacked\'">',
    "</svg></div><h2>hacked</h2>",
    "{{ 7 * 7 }}",
    "&amp;&lt;",
    "' onmouseover='hacked",
    "datum['x'].y",
    "\u202egnp.exe\x00\n",
    "x" * 5000,
    "x" * 5001,
    "Größe 变量",
)
# Everything that the template and Vega write; whatever else appears came out of a name.
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav"),
    *("section", "p", "h1", "h2", "h3", "dl", "div", "dt", "dd", "ul", "li", "a", "pre", "code"),
    *("figure", "figcaption", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "g", "path", "line", "text"),
}
VOID = {"meta"}
DRAWN_ALWAYS = ["How scores are distributed", "How many events reach a score"]
DRAWN_WITH_LABELS = [
    "Anomalies found against false alarms",
    "Flag rate: promised and observed",
    "p-values of labelled normal events",
    "Which features give anomalies away",
]


class Page(HTMLParser):
    """A page taken apart; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.said: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag in VOID:
            return
        self._open.append(tag)
        self.said.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        for tag in set(self._open):
            self.said[tag][-1] += data
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def plots(self) -> list[str]:
        return self.said.get("h3", [])

    @property
    def table(self) -> dict[str, list[str]]:
        """The cells of each row of a table, by the row's header; the first of each header."""
        return {header: cells for header, *cells in reversed(self.rows)}


def a_model(tmp_path: Path, recipe: Recipe = PLAIN, **changes):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model(recipe, **changes))
    return open_sealed(path)


def a_labelled_table(model, normal=300, anomalies=100, seed=1) -> Table:
    width = len(model.contract.features)
    rows = np.random.default_rng(seed).normal(size=(normal + anomalies, width))
    rows[normal:] += 4
    labels = np.arange(normal + anomalies) >= normal
    return Table(
        model.contract.feature_names, model.contract.paths, rows.astype(np.float32), labels
    )


def labelled(model, **changes):
    return score_labelled(model, a_labelled_table(model, **changes), "labelled.csv")


def page_of(model, events=None, cost=COST) -> Page:
    return Page(render(model, events, cost))
