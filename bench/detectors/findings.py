"""All that was found, put together: the tables, the picture, and the results for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.detectors import flag_rates, published
from bench.detectors.figures import areas, by_detector, figures, over_sets, rejection
from bench.detectors.measure import NORM
from bench.detectors.picture import Point, picture
from bench.detectors.rate_tables import dirt_table, flag_table
from bench.detectors.runner import Found
from bench.detectors.sets import VISIBLE
from bench.detectors.tables import area_table, cost_table, lhc57_table, streams_table
from bench.detectors.trials import Outcome, Protocol

HOW_CHOSEN = (
    "Nothing is chosen by a test's labels: one recipe for all sets, thresholds from training rows, "
    "every seed counted. The trainer's defaults were chosen with the visible sets at hand, so on "
    "those its figures flatter it; PyOD's defaults are its makers'."
)
_AREA_PROTOCOLS: tuple[Protocol, ...] = ("dte", "shuffled", "dean", "nsl-kdd")

# What the picture shows the quality of: the first that was measured.
_DRAWN: tuple[Protocol, ...] = ("dte", "shuffled", "lhc57")


def tables(
    found: Found,
    ours: Sequence[str],
    notes: Sequence[str],
    seen: Iterable[str],
    folder: Path,
    calibration: bool,
) -> str:
    """Return everything for people to read."""
    lines = [HOW_CHOSEN, *_whose(seen), *notes]
    for protocol in _AREA_PROTOCOLS:
        if outcomes := clean(found, protocol):
            lines += area_table(protocol, outcomes, ours, published.read(folder, protocol))
    if outcomes := clean(found, "lhc57"):
        lines += lhc57_table(outcomes, ours)
    if outcomes := clean(found, "streams"):
        lines += streams_table(outcomes, ours)
    if calibration and (outcomes := _calibrated(clean(found, "shuffled", "lhc57"))):
        lines += flag_table(outcomes, _calibrated(clean(found, "dte")))
    for split in ("dte", "shuffled"):
        if outcomes := [one for one in _dirty(found) if one.protocol == split]:
            lines += dirt_table(outcomes, ours)
    if outcomes := clean(found, "cost"):
        lines += cost_table(outcomes)
    lines += _failures(found)
    return "\n".join(lines)


def plot_of(found: Found, ours: Sequence[str], folder: Path) -> str | None:
    """Return quality against cost; None where one of the two was not measured."""
    protocol = next((one for one in _DRAWN if clean(found, one)), _DRAWN[-1])
    quality = areas(clean(found, protocol))
    costs = {one.detector: one.us_per_event for one in clean(found, "cost")}
    points = [
        Point(name, cost, over_sets(quality[name]).mean, name in ours)
        for name, cost in costs.items()
        if cost is not None and name in quality
    ]
    if not points:
        return None
    names = list(dict.fromkeys(one.of for one in clean(found, protocol)))
    lines = {"squared norm": over_sets(quality[NORM]).mean} if NORM in quality else {}
    for column in published.chosen(published.read(folder, protocol), names)[:1]:
        mean = sum(column.areas[name.lower()] for name in names) / len(names)
        lines[f"best published: {column.name}"] = mean
    of = f"mean of {len(names)} sets, {protocol} split"
    if protocol == "lhc57":
        signal = clean(found, protocol)[0].anomalies[0]
        of = f"collision events against the signal {signal}, five folds"
    about = f"{of}; blue: odradek-trainer, grey: PyOD"
    return picture(points, lines, about)


def results(
    found: Found, folder: Path, seen: Iterable[str], calibration: bool
) -> dict[str, object]:
    """Return everything for programs."""
    in_all: dict[str, object] = {
        protocol: {
            detector: {"mean": over_sets(of)._asdict(), "by_set": of}
            for detector, of in areas(clean(found, protocol)).items()
        }
        for protocol in _AREA_PROTOCOLS
    }
    folds = by_detector(clean(found, "lhc57"))
    in_all["lhc57"] = {
        detector: {
            name: rejection(of, kind).figures()
            for kind, name in enumerate(of[0].anomalies, start=1)
        }
        for detector, of in folds.items()
    }
    flags = by_detector(_calibrated(clean(found, "shuffled", "lhc57"))) if calibration else {}
    return {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "how_chosen": HOW_CHOSEN,
        "visible_sets": sorted(set(seen) & VISIBLE),
        "other_sets": sorted(set(seen) - VISIBLE),
        "published": {
            protocol: {column.name: column.areas for column in published.read(folder, protocol)}
            for protocol in published.FILES
        },
        "auroc_percent": in_all,
        "flag_rates": {
            preset: [
                {**one._asdict(), "inside": one.inside}
                for rate in flag_rates.RATES
                for one in flag_rates.kept(of, rate)
            ]
            for preset, of in flags.items()
        },
        "p_values_uniform": {
            preset: [one._asdict() for one in flag_rates.uniform(of)]
            for preset, of in flags.items()
        },
        "outcomes": [figures(one) for one in found.outcomes],
        "failures": [failure._asdict() for failure in found.failures],
    }


def clean(found: Found, *protocols: Protocol) -> list[Outcome]:
    """Return the outcomes of protocols without dirt."""
    return [one for one in found.outcomes if one.protocol in protocols and one.dirt_percent is None]


def _dirty(found: Found) -> list[Outcome]:
    return [one for one in found.outcomes if one.dirt_percent is not None]


def _calibrated(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.calibration is not None]


def _whose(seen: Iterable[str]) -> list[str]:
    names = set(seen)
    visible, others = sorted(names & VISIBLE), sorted(names - VISIBLE)
    return [
        f"Visible when the defaults were chosen: {', '.join(visible) or 'none'}.",
        f"Not seen by whoever chose them: {', '.join(others) or 'none'}.",
    ]


def _failures(found: Found) -> list[str]:
    lines = ["", *(f"{one.detector} FAILED on {one.trial}: {one.reason}" for one in found.failures)]
    unscored = {
        f"{one.detector} gave {one.unscored:,} rows of {one.of} no score: they count nowhere."
        for one in found.outcomes
        if one.unscored
    }
    lines += sorted(unscored)
    return lines if len(lines) > 1 else []
