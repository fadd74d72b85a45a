"""What the page says of a model at work: scores, alarms, what they rest on, what they cost.

Without labelled events half of it cannot be known; the page then says what is missing and how to
get it, and shows nothing in its place. So too for features: the golden rows inside the file are
drawn, not seen, and what gives them away says nothing of anybody's anomalies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import UNSET

from schemas.contract import Contract
from schemas.false_alarms import describe_tail, flag_rate, per_million
from trainer.bands import binomial_interval, kolmogorov_smirnov
from trainer.narrate import tied
from trainer.report_page import alarm_plots, feature_plots, score_plots
from trainer.report_page.labelled import Labelled
from trainer.report_page.parts import Absent, Listing, Section, percent, written

_DAILY_EVENTS = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
_DAILY_COLUMNS = (
    *("normal events a day", "false alarms a day"),
    *("nine chances in ten: from", "to"),
)
_COMMAND = "odradek-trainer report MODEL.onnx --labelled FILE --label-column COLUMN"
_ALMOST_NEVER = 0.001


def scores(contract: Contract, labelled: Labelled | None) -> Section:
    """Say where scores lie and what lies beyond the threshold."""
    threshold = contract.threshold
    calibration = score_plots.calibration_series(contract.calibration)
    # Of a model with groups they are judged by many thresholds: against one they would mislead.
    drawn = labelled if contract.groups is UNSET else None
    anomalies = [score_plots.anomaly_series(drawn.anomalous)] if drawn else []
    normal = [score_plots.normal_series(drawn.normal)] if drawn else []
    judged = f"An event is flagged if it scores above {threshold.value:.6g}."
    if contract.groups is not UNSET:
        judged = (
            f"An event is flagged if it scores above the threshold of its {contract.groups.name}, "
            f"or, where that has none, above {threshold.value:.6g}. The pictures show this one "
            "alone, with its own calibration events; of each group, see the table below."
        )
    sentence = (
        f"{judged} Calibration events are "
        f"{contract.calibration.n:,} normal events that the model was not fitted on, scored by "
        "the sealed file itself."
    )
    return Section(
        "scores",
        "Scores and threshold",
        (sentence,),
        plots=(
            score_plots.distribution([calibration, *anomalies], threshold.value),
            score_plots.exceedance(
                [calibration, *normal, *anomalies],
                threshold.value,
                threshold.target_flag_rate,
                contract.calibration.tail or None,
            ),
        ),
    )


def false_alarms(contract: Contract) -> Section:
    """Say how many normal events will be flagged, at several numbers of events a day."""
    calibration, threshold = contract.calibration, contract.threshold
    rate = flag_rate(calibration, threshold.target_flag_rate)
    rows = [
        tuple(_count(events * share) for share in (1, rate.mean, rate.low, rate.high))
        for events in _DAILY_EVENTS
    ]
    said = [per_million(calibration, threshold.target_flag_rate)]
    said += [describe_tail(calibration.tail)] if calibration.tail is not UNSET else []
    said += [told] if (told := tied(calibration, threshold)) else []
    return Section(
        "false-alarms",
        "Expected false alarms",
        (
            *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in said),
            "This holds while normal events stay what they were; a drift moves it.",
        ),
        listings=(Listing.of("False alarms a day", _DAILY_COLUMNS, rows),),
    )


def detection(contract: Contract, labelled: Labelled | None) -> Section:
    """Say how many labelled anomalies are found, and at what price."""
    title = "Detection on labelled events"
    if labelled is None:
        what = (
            "How many anomalies the model finds, and the ROC curve, take labelled events: some "
            f"normal, some anomalous, and this page was made without any. {_labels_used(contract)}"
        )
        return Section("detection", title, absent=Absent(what, _COMMAND))
    at = labelled.evaluation
    rejection = (
        f"fewer than 1 in {at.normal_events:,}"
        if at.one_over_fpr is None
        else f"1 in {at.one_over_fpr:,.0f}"
    )
    rows = [
        ("normal events", at.normal_events),
        ("anomalies", at.anomalies),
        ("events without a score", at.unscorable),
        ("area under the ROC curve", f"{at.auc:.4f}"),
        ("average precision", f"{at.average_precision:.4f}"),
        ("anomalies found at the threshold", _share(at.tpr, at.anomalies)),
        ("normal events flagged at the threshold", _share(at.fpr, at.normal_events)),
        (f"normal events flagged where {percent(at.at_tpr)} of the anomalies are found", rejection),
        ("digest of the labelled rows", labelled.rows_sha256[:16]),
    ]
    return Section(
        "detection",
        title,
        tuple(_about(contract, labelled)),
        plots=(alarm_plots.roc(labelled),),
        listings=(Listing.of("Figures, with 95% intervals", ("", labelled.source), rows),),
    )


def promise(contract: Contract, labelled: Labelled | None) -> Section:
    """Say whether fresh normal events are flagged at the rate that was promised."""
    title = "Does the threshold keep its promise?"
    if labelled is None:
        what = (
            "Whether fresh normal events are flagged at the target rate takes events that are "
            "labelled normal and that the model has never seen."
        )
        return Section("promise", title, absent=Absent(what, _COMMAND))
    calibration, target = contract.calibration, contract.threshold.target_flag_rate
    stored = score_plots.calibration_series(calibration)
    distance = kolmogorov_smirnov(np.repeat(stored.scores, stored.counts), labelled.normal)
    even = (
        "as even as chance allows"
        if distance.chance > _ALMOST_NEVER
        else "not even: these events are not like those of the calibration"
    )
    evenness = (
        f"The p-values of the labelled normal events are {even}. Their largest distance from an "
        f"even spread is {distance.largest:.3f}, which chance alone would reach or exceed with a "
        f"probability of {written(distance.chance)} (Kolmogorov-Smirnov, two samples)."
    )
    return Section(
        "promise",
        title,
        (*_seen_before(labelled), _kept(contract, labelled), evenness),
        plots=(
            alarm_plots.calibration_plot(calibration, labelled.normal, target),
            alarm_plots.p_value_plot(calibration, labelled.normal),
        ),
    )


def features(contract: Contract, labelled: Labelled | None) -> Section:
    """Say which features give anomalies away."""
    title = "Features"
    if labelled is None:
        what = (
            "Which features give anomalies away takes labelled anomalies. The golden rows inside "
            "the file are drawn at random, not seen, so nothing is said of them here. For a "
            "single event the worker names its top features with every score."
        )
        return Section("features", title, absent=Absent(what, _COMMAND))
    plot = feature_plots.contributions(contract.feature_names, labelled)
    return Section("features", title, plots=(plot,))


def _kept(contract: Contract, labelled: Labelled) -> str:
    """Return what the target flag rate came to."""
    calibration, target = contract.calibration, contract.threshold.target_flag_rate
    at, m = labelled.evaluation, len(labelled.normal)
    seen = (
        f"At the target of {percent(target)}, {round(at.fpr * m):,} of {m:,} labelled normal "
        f"events are flagged: {percent(at.fpr)}."
    )
    if contract.threshold.extrapolates:
        return f"{seen} The target is an extrapolation, which has no exact band."
    (point,) = alarm_plots.flag_rates(calibration, labelled.normal, [target])
    verdict = "Chance explains" if point.explained else "That is outside what chance explains,"
    return f"{seen} {verdict} {percent(point.low)} to {percent(point.high)} (99%)."


def _labels_used(contract: Contract) -> str:
    """Return what labels had to do with the model."""
    quality = contract.training.get("data_quality")
    left_out = quality.get("anomalies_left_out") if isinstance(quality, dict) else None
    if left_out:
        return f"Labels were used to leave {left_out:,} anomalies out of training, and no further."
    return "No label was used to fit or to calibrate the model."


def _about(contract: Contract, labelled: Labelled) -> Iterator[str]:
    at = labelled.evaluation
    yield (
        f"On {at.normal_events:,} normal events and {at.anomalies:,} anomalies of "
        f"{labelled.source}. {_labels_used(contract)}"
    )
    if contract.groups is not UNSET:
        yield (
            "The dot is of the groups' own thresholds; the curve is of one threshold for all, so "
            "that the dot may lie beside it."
        )
    yield from _seen_before(labelled)


def _seen_before(labelled: Labelled) -> Iterator[str]:
    """Yield what is to be known of labelled rows that the model may have been made from."""
    if labelled.rows_seen is None:
        yield (
            "Whether some of these rows also trained the model cannot be seen from the sealed "
            "file; if so, the figures flatter it."
        )
    elif labelled.rows_seen:
        yield (
            f"{labelled.rows_seen:,} of these rows also trained or calibrated the model: the "
            "figures flatter it."
        )


def _share(share: float, events: int) -> str:
    """Return a share with its exact interval."""
    interval = binomial_interval(round(share * events), events)
    return f"{percent(share)} ({percent(interval.low)} to {percent(interval.high)})"


def _count(events: float) -> str:
    """Return a number of events to two digits."""
    return f"{float(f'{events:.2g}'):,.10g}"
