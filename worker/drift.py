"""Are events still what the model was trained on? Told of a sample, over a window.

Counted by blocks of events, of which the latest make the window. It is as long as it is told to
be, and on a quiet topic as long as it takes to have `WINDOW_EVENTS_MIN` events: fewer would show
drift where chance alone is at work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from prometheus_client import CollectorRegistry

from schemas.contract import Contract
from schemas.reference import BINS, Counts, Reference, count, stability_index
from worker import declared_model as declared
from worker.declared_model import FEATURES_LABELLED_MAX, OTHERS
from worker.logs import fields
from worker.metric import Asked, Metric, Series
from worker.sample import STRIDE
from worker.turn import Sample

WINDOW_EVENTS_MIN = 1_000
# Without drift the index of a feature over so many is 0.045 on average, and above 0.14 once in
# 1,000 (a chi-squared of nine, by the number of events).
SHOWN_EVENTS_MIN = 200
BLOCKS, BLOCK_EVENTS_MIN = 10, 100
# Counted together, since the first of each costs as much as fifty: 60 us.
ROWS_AT_ONCE, ROWS_WAIT_S = 256, 2.0
P_VALUE_BINS = 10
SHIFT, SHIFT_OVER = 0.25, 0.2  # The usual reading of an index; apart, so that one change is told.
LABEL_CHARS_MAX = 80

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Block:
    """Events since `start`, epoch seconds, counted by bin: features [f, 11], p-values [10]."""

    start: float
    events: int
    features: Counts
    p_values: Counts

    def __add__(self, other: _Block) -> _Block:
        return _Block(
            min(self.start, other.start),
            self.events + other.events,
            self.features + other.features,
            self.p_values + other.p_values,
        )

    def thinned_to(self, events: int) -> _Block:
        """Return a block of so many events at most, spread over the bins as these are."""
        if events >= self.events:
            return self
        share = events / self.events
        features, p_values = (
            np.rint(counts * share).astype(np.int64) for counts in (self.features, self.p_values)
        )
        return _Block(self.start, events, features, p_values)


class _Watched:
    """One model's features, as they are labelled, and what is counted of them so far."""

    def __init__(self, contract: Contract, model_digest: str) -> None:
        self.model_digest = model_digest
        self.names = contract.feature_names
        self.reference: Reference | None = (
            None if contract.drift_reference is UNSET else contract.drift_reference
        )
        self.columns = np.array(_known(contract), np.intp)
        self.labels = [*labels_of(contract).values()]
        self.has_others = len(self.columns) > len(self.labels)
        self.edges = None if self.reference is None else self.reference.edges_by_feature
        self.counts = None if self.reference is None else self.reference.counts_by_feature
        self.p_values = _calibration_p_values(contract)


class Drift:
    """Counts samples of one model's events. One thread adds; another may ask at any time."""

    def __init__(self, registry: CollectorRegistry, window_s: float) -> None:
        self._window_s = window_s
        self._watched: _Watched | None = None
        self._waiting: list[Sample] = []
        self._waiting_rows, self._waiting_since = 0, 0.0
        self._blocks: deque[_Block] = deque()
        self._window: _Block | None = None
        self._other_drifts = False
        self._sampled = 0
        self._missing: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        metrics = (
            declared.SAMPLED,
            declared.SAMPLE_STRIDE,
            declared.MISSING,
            declared.REFERENCE_MISSING,
            declared.DRIFT,
            declared.SCORE_DRIFT,
            declared.DRIFT_EVENTS,
            declared.DRIFT_SECONDS,
            declared.DRIFT_START,
        )
        Asked(registry, metrics, self._ask)

    def begin(self, contract: Contract, model_digest: str) -> None:
        """Measure against the contract of this model from here on."""
        watched = _Watched(contract, model_digest)
        if self._watched is None or watched.labels != self._watched.labels:
            self._missing = np.zeros(len(watched.labels) + 1, np.int64)
        self._waiting, self._waiting_rows = [], 0
        self._blocks.clear()
        self._window, self._watched, self._other_drifts = None, watched, False

    def add(self, sample: Sample, now: float) -> None:
        """Take a sample into account; `now` is epoch seconds. One of another model is left out."""
        if self._watched is None or not len(sample.features):
            return
        if sample.model_digest != self._watched.model_digest:
            return
        if not self._waiting:
            self._waiting_since = now
        self._waiting.append(sample)
        self._waiting_rows += len(sample.features)
        if self._waiting_rows >= ROWS_AT_ONCE or now - self._waiting_since >= ROWS_WAIT_S:
            self._count(self._watched, now)

    def _count(self, watched: _Watched, now: float) -> None:
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        features = np.concatenate([sample.features[:, watched.columns] for sample in waiting])
        p_values = np.concatenate([sample.p_values for sample in waiting])
        missing, n = np.count_nonzero(np.isnan(features), axis=0), len(watched.labels)
        self._missing = self._missing + np.append(missing[:n], missing[n:].sum())
        self._sampled += len(features)
        counts = np.zeros((0, BINS), np.int64)
        if watched.edges is not None:
            counts = count(features, watched.edges)
        self._add(_Block(self._waiting_since, len(features), counts, _binned(p_values)), now)

    def _add(self, more: _Block, now: float) -> None:
        blocks = self._blocks
        if blocks and (
            now - blocks[-1].start < self._window_s / BLOCKS or blocks[-1].events < BLOCK_EVENTS_MIN
        ):
            blocks[-1] += more
        else:
            blocks.append(more)
        events = sum(block.events for block in blocks)
        while len(blocks) > 1 and now - blocks[1].start >= self._window_s:
            rest = events - blocks[0].events
            if rest < WINDOW_EVENTS_MIN:
                # What a busy time left must not outweigh a quiet one for hours.
                blocks[0] = blocks[0].thinned_to(WINDOW_EVENTS_MIN - rest)
                break
            blocks.popleft()
            events = rest
        window = blocks[0]
        for block in [*blocks][1:]:
            window += block
        self._window = window
        if self._watched is not None and self._watched.has_others:
            self._say_which_other_drifts(self._watched, window)

    def _say_which_other_drifts(self, watched: _Watched, window: _Block) -> None:
        """Name, in the log, what the pooled label hides: when it begins to drift, and when not."""
        if watched.counts is None or window.events < SHOWN_EVENTS_MIN:
            return
        n = len(watched.labels)
        indices = stability_index(window.features[n:], watched.counts[n:])
        if not len(indices):
            return
        worst = int(indices.argmax())
        psi = round(float(indices[worst]), 3)
        if psi > SHIFT and not self._other_drifts:
            name = watched.names[watched.columns[n + worst]]
            log.warning(
                "The feature %r, which has no label of its own, has drifted: its stability index "
                "is %g over %d sampled events.",
                name,
                psi,
                window.events,
                extra=fields(feature=name, psi=psi),
            )
        elif psi < SHIFT_OVER and self._other_drifts:
            log.info("No feature without a label has drifted any more.", extra=fields(psi=psi))
        self._other_drifts = psi > (SHIFT_OVER if self._other_drifts else SHIFT)

    def _ask(self) -> Iterator[Series]:
        yield Series(declared.SAMPLED, self._sampled)
        yield Series(declared.SAMPLE_STRIDE, STRIDE)
        yield Series(declared.DRIFT_SECONDS, self._window_s)
        watched, window = self._watched, self._window
        yield Series(declared.DRIFT_EVENTS, 0 if window is None else window.events)
        if watched is None:
            return
        yield from _labelled(declared.MISSING, watched, self._missing.tolist())
        yield from _reference_missing(watched)
        if window is None:
            return
        yield Series(declared.DRIFT_START, window.start)
        if window.events < SHOWN_EVENTS_MIN:
            return
        psi = stability_index(window.p_values, watched.p_values)
        yield Series(declared.SCORE_DRIFT, float(psi))
        if watched.counts is not None and len(window.features) == len(watched.counts):
            indices = stability_index(window.features, watched.counts)
            labelled = indices[: len(watched.labels)].tolist()
            others = indices[len(watched.labels) :].tolist()
            yield from _labelled(declared.DRIFT, watched, [*labelled, max(others, default=0.0)])


def _known(contract: Contract) -> Sequence[int]:
    """Return the features that there is a reference of, the most telling first; without, all."""
    if contract.drift_reference is UNSET:
        return range(len(contract.features))
    return contract.drift_reference.columns


def labels_of(contract: Contract) -> dict[str, str]:
    """Return the labels of the features that have one of their own, by their names."""
    all_names = contract.feature_names
    names = [all_names[column] for column in _known(contract)[:FEATURES_LABELLED_MAX]]
    return dict(zip(names, feature_labels(names), strict=True))


def feature_labels(names: Sequence[str]) -> list[str]:
    """Return a label for each feature: its name, cut where it is long, with its place if need be.

    No two are the same, and none is that of all others.
    """
    labels: list[str] = []
    taken = {OTHERS}
    for place, name in enumerate(names):
        label = name if len(name) <= LABEL_CHARS_MAX else f"{name[:LABEL_CHARS_MAX]}..."
        while label in taken:
            label = f"{label} #{place}"
        taken.add(label)
        labels.append(label)
    return labels


def _labelled(metric: Metric, watched: _Watched, values: Sequence[float]) -> Iterator[Series]:
    """Yield a metric's series for the labelled features, and for all others if there are any."""
    labels = [*watched.labels, OTHERS] if watched.has_others else watched.labels
    for label, value in zip(labels, values, strict=False):
        yield Series(metric, value, (label,))


def _reference_missing(watched: _Watched) -> Iterator[Series]:
    if watched.reference is None or watched.counts is None:
        return
    shares = (watched.counts[:, -1] / watched.reference.rows).tolist()
    n = len(watched.labels)
    yield from _labelled(declared.REFERENCE_MISSING, watched, [*shares[:n], sum(shares[n:])])


def _calibration_p_values(contract: Contract) -> Counts:
    """Count the calibration events' own p-values by bin, as [10].

    They are uniform, but where scores are tied: a bin may then be empty without any drift.
    """
    found = np.zeros(P_VALUE_BINS, np.float64)
    for calibration in contract.calibrations:
        scores, counts = calibration.weighted
        places = _bins(calibration.p_values(scores))
        found += np.bincount(places, counts, minlength=P_VALUE_BINS)
    return found.astype(np.int64)


def _bins(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return (np.ceil(p_values * P_VALUE_BINS).astype(np.int64) - 1).clip(0, P_VALUE_BINS - 1)


def _binned(p_values: npt.NDArray[np.float64]) -> Counts:
    """Count p-values in (0, 0.1], (0.1, 0.2] and so on, NaN left out, as [10]."""
    known = p_values[~np.isnan(p_values)]
    return np.bincount(_bins(known), minlength=P_VALUE_BINS)
