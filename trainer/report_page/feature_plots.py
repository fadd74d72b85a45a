"""Which features give anomalies away, and how the network learnt to reconstruct them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from trainer.metrics import Shares
from trainer.report_page.drawing import (
    ANOMALY,
    FRESH,
    INK,
    NORMAL,
    axis,
    coloured,
    dashed,
    draw,
    layer,
    log_axis,
    shares,
)
from trainer.report_page.labelled import Labelled
from trainer.report_page.parts import Listing, Plot, percent, written

_BARS_MAX = 15
_BAR_HEIGHT = 30
# A column of the widest of the usual fonts, and room for so many.
_COLUMN_PX, _COLUMNS_MAX = 8, 26
_EPOCHS_MAX = 400
_HELD_OUT = "held-out rows"
# Losses that span more than this are easier to read on a logarithmic axis.
_SPAN_LINEAR_MAX = 8.0


def contributions(names: Sequence[str], labelled: Labelled) -> Plot:
    """Plot the features with the largest part in the scores of labelled anomalies."""
    order = np.argsort(-labelled.anomalous_shares, kind="stable")
    shown = [_short(written(names[place])) for place in order[:_BARS_MAX]]
    # Names that are equal once cut would share a bar.
    labels = [
        name if shown.count(name) == 1 else f"{place + 1}. {name}"
        for place, name in enumerate(shown)
    ]
    most = f"the {len(labels)} largest of {len(names):,} features"
    largest = most if len(labels) < len(names) else "largest first"
    kinds = {
        "anomalies": labelled.anomalous_shares[order],
        "normal events": labelled.normal_shares[order],
    }
    listed = [
        (names[place], *(percent(float(values[rank])) for values in kinds.values()))
        for rank, place in enumerate(order)
    ]
    return Plot(
        "Which features give anomalies away",
        f"Bars of the mean share that features have of a score; among anomalies first is "
        f"{labels[0]} with {listed[0][1]}.",
        _bars(labels, kinds),
        f"Mean share of the score, {largest}. Features of equal part "
        f"would have {percent(1 / len(names))} each. A large part says where an "
        "event is odd, not why.",
        Listing.of("Shares of the score", ("feature", *kinds), listed),
    )


def _bars(labels: Sequence[str], kinds: Mapping[str, Shares]) -> str:
    """Draw a pair of bars for each label; the shares of `kinds` are in the labels' order."""
    names = list(kinds)
    rows = [
        {"feature": label, "series": kind, "share": float(values[rank])}
        for rank, label in enumerate(labels)
        for kind, values in kinds.items()
    ]
    room = {"labelLimit": 0, "minExtent": _COLUMN_PX * max(map(_columns, labels))}
    y = {"field": "feature", "type": "nominal", "sort": None, "title": None, "axis": room}
    bars = layer(
        rows,
        {"type": "bar"},
        y=y,
        x=shares("share", "share of the score, mean over events"),
        yOffset={"field": "series", "type": "nominal", "sort": names},
        color=coloured(names, [ANOMALY, FRESH]),
    )
    return draw([bars], height=90 + _BAR_HEIGHT * len(labels))


def _short(name: str) -> str:
    """Return a name cut to fit beside its bar; the listing has it whole."""
    if _columns(name) <= _COLUMNS_MAX:
        return name
    while _columns(name) >= _COLUMNS_MAX:
        name = name[:-1]
    return name + "…"


def _columns(text: str) -> int:
    """Return how many columns a terminal would give the text: Chinese takes two each."""
    return sum(2 if east_asian_width(mark) in "WF" else 1 for mark in text)


def loss_curve(
    head: str, training: Sequence[float | None], validation: Sequence[float | None], best: int
) -> Plot:
    """Plot the loss by epoch, or by whatever equal steps a network's training has.

    `best` is the step, from 1, whose weights were kept, or 0 where none is on record. A loss that
    was not finite is null in a contract, and left out.
    """
    epochs = len(training)
    kinds = {"fit rows": np.array(training, float), _HELD_OUT: np.array(validation, float)}
    rows = [
        {"epoch": int(place) + 1, "loss": float(losses[place]), "series": kind}
        for kind, losses in kinds.items()
        for place in _spread(epochs, _EPOCHS_MAX)
        if np.isfinite(losses[place])
    ]
    seen = [losses[np.isfinite(losses)] for losses in kinds.values()]
    lowest, highest = (float(edge) for edge in np.quantile(np.concatenate(seen), [0, 1]))
    x = axis(
        "epoch",
        "step of the training: an epoch, or an equal part of it",
        scale={"domain": [1, max(2, epochs)], "nice": False},
        axis={"tickMinStep": 1, "format": "d"},
    )
    y = (
        log_axis("loss", "loss", lowest, highest)
        if 0 < lowest * _SPAN_LINEAR_MAX < highest
        else axis("loss", "loss", scale={"zero": False}, axis={"tickCount": 5, "format": ".4~g"})
    )
    line = {"type": "line", "strokeWidth": 2, "point": epochs == 1}
    names = list(kinds)
    colour, dash = coloured(names, [NORMAL, FRESH]), dashed(names, _HELD_OUT)
    rule = {"type": "rule", "color": INK, "strokeDash": [6, 4]}
    kept = [layer([{"epoch": best}], rule, x=x)] if best else []
    numbers = [
        (int(place) + 1, *(float(losses[place]) for losses in kinds.values()))
        for place in _spread(epochs, 12)
    ]
    which = f"step {best} (dashed upright line)" if best else "a step that is not on record"
    return Plot(
        f"Loss in training: {head}" if head else "Loss in training",
        f"Two lines of the loss over {epochs:,} steps, from {highest:.4g} to {lowest:.4g}; the "
        f"weights kept are those of {which}.",
        draw([layer(rows, line, x=x, y=y, color=colour, strokeDash=dash), *kept]),
        f"Fit rows are trained on, held-out rows are not. The weights kept are those of {which}.",
        Listing.of("Loss", ("step", *names), numbers),
    )


def _spread(number: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many of 0 .. number - 1, evenly, both ends among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(np.int64))
