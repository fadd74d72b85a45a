"""From scores to score records and dead letters. Pure; each row decided by the contract.

A score that is not finite is never compared with the threshold (NaN > t is false, which would
make it normal): such an event is `unscorable`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat, starmap
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import replace

from schemas.calibration import Floats
from schemas.contract import Contract
from schemas.dead_letter import (
    DEAD_LETTER_VERSION,
    DETAIL_CHARS_MAX,
    DeadLetter,
    Headers,
    attempts_before,
    without_ours,
)
from schemas.groups import GroupCodes
from schemas.packed_event import CONTENT_TYPE_HEADER
from schemas.score import (
    SCORE_VERSION,
    ModelRef,
    Score,
    Source,
    TopFeature,
    UnscorableReason,
    Verdict,
    encode_score,
    written_once,
)
from worker.category_names import name_categories
from worker.model import Model, Scored
from worker.sample import sample_of
from worker.turn import Batch, Outgoing, Outputs, Records, Tally

_VERDICTS = np.array(["normal", "anomalous", "unscorable"], object)


def to_results(
    records: Records, batch: Batch, scored: Scored, model: Model, top_features_max: int
) -> Outputs:
    """Return one output for every record of the turn: a score record or a dead letter."""
    groups = model.groups.codes(records, batch) if model.groups else None
    judged = judge(scored.scores, model.contract, groups)
    p_values = judged.p_values
    tally = Tally(
        outcomes={**Counter(judged.verdicts), "dead_letter": len(batch.rejects)},
        reasons=Counter(reject.reason for reject in batch.rejects),
        p_values=p_values[np.isfinite(p_values)] if judged.unscorable else p_values,
        timestamps_ms=batch.timestamps_ms,
        ungrouped=(judged.groups or []).count(None),
        flagged_by=_leading(scored.contributions, judged.flagged, model.contract),
        sample=sample_of(records, batch, p_values, model.digest),
    )
    return Outputs(
        _score_records(records, batch, scored, judged, model, top_features_max),
        _dead_letters(records, batch, model.reference),
        tally,
    )


class Judged(NamedTuple):
    """What the contract makes of n scores: p-values [n], NaN where there is none, and verdicts.

    `flagged` and `unscorable` are the places of those verdicts. With groups, `thresholds` and
    `groups` say of each event what judged it: the threshold, and whose; None: the pooled one.
    """

    p_values: npt.NDArray[np.float64]
    verdicts: list[Verdict]
    flagged: list[int]
    unscorable: list[int]
    thresholds: list[float] | None = None
    groups: list[str | None] | None = None


def judge(scores: Floats, contract: Contract, codes: GroupCodes | None = None) -> Judged:
    """Judge scores, float32 [n]; `codes` [n] are their groups', if the contract has any."""
    if contract.groups is UNSET or contract.by_group is None or codes is None:
        return _judged(scores, contract.calibration.p_values(scores), contract.threshold.value)
    thresholds = contract.by_group.thresholds(codes)
    judged = _judged(scores, contract.by_group.p_values(scores, codes), thresholds)
    texts: list[str | None] = [*contract.groups.texts, None]
    return judged._replace(
        thresholds=thresholds.tolist(), groups=[texts[code] for code in codes.tolist()]
    )


def _judged(scores: Floats, p_values: npt.NDArray[np.float64], threshold: float | Floats) -> Judged:
    flagged = scores > np.float32(threshold)
    kinds = flagged.astype(np.intp)
    finite = np.isfinite(scores)
    if finite.all():
        unscorable: list[int] = []
    else:
        unscorable = np.flatnonzero(~finite).tolist()
        kinds[unscorable], p_values[unscorable] = 2, np.nan
        flagged &= finite
    verdicts: list[Verdict] = _VERDICTS[kinds].tolist()
    return Judged(p_values, verdicts, np.flatnonzero(flagged).tolist(), unscorable)


def _score_records(
    records: Records,
    batch: Batch,
    scored: Scored,
    judged: Judged,
    model: Model,
    top_features_max: int,
) -> Outgoing:
    rows = batch.rows
    sources = map(
        Source, repeat(records.topic), _at(rows, records.partitions), _at(rows, records.offsets)
    )
    threshold = repeat(model.contract.threshold.value, len(rows))
    # Column by column in C: a loop that names the fields costs half as much again.
    columns: list[Iterable[Any]] = [
        repeat(SCORE_VERSION, len(rows)),
        batch.event_ids,
        batch.timestamps_ms,
        scored.scores.tolist(),
        judged.p_values.tolist(),
        threshold if judged.thresholds is None else judged.thresholds,
        judged.verdicts,
        repeat(written_once(model.reference), len(rows)),
        sources,
    ]
    if judged.groups is not None:
        columns.append(judged.groups)
    scores = [*starmap(Score, zip(*columns, strict=True))]
    if flagged := judged.flagged:
        names = model.contract.feature_names
        explained = _top_features(flagged, batch.features, scored, names, top_features_max)
        values = (records.values[rows[place]] for place in flagged)
        explained = name_categories(explained, values, model.contract)
        for place, top_features in zip(flagged, explained, strict=True):
            scores[place] = replace(scores[place], top_features=top_features)
    for place in judged.unscorable:
        reason = _why_unscorable(batch.features[place], model.contract)
        scores[place] = replace(scores[place], score=None, p_value=None, reason=reason)
    return Outgoing(
        [*map(encode_score, scores)], _at(rows, records.keys), _passed_on(records.headers, rows)
    )


_T = TypeVar("_T")


def _at(rows: list[int], column: list[_T]) -> list[_T]:
    """Return these rows of a column; mostly, all of them."""
    return column if len(rows) == len(column) else [column[row] for row in rows]


def _passed_on(headers: list[Headers | None], rows: list[int]) -> list[Headers]:
    """Return what score records carry of their events' headers; nothing, if none carries any.

    A content type is that of the event, and a score record is another thing.
    """
    if not any(headers):
        return []
    carried = [
        [header for header in without_ours(headers[row]) if header[0] != CONTENT_TYPE_HEADER]
        for row in rows
    ]
    return carried if any(carried) else []


def _top_features(
    places: list[int],
    features: Floats,
    scored: Scored,
    names: Sequence[str],
    top_features_max: int,
) -> list[list[TopFeature]]:
    """Return, for each event at `places`, the features with the largest parts in its score.

    All events at once: in a wave of anomalies, one by one would cost more than the model.
    """
    parts = scored.contributions[places]
    largest = np.argsort(-parts, axis=1, kind="stable")[:, :top_features_max]

    def columns(matrix: Floats) -> list[list[float]]:
        rows: list[list[float]] = np.take_along_axis(matrix[places], largest, axis=1).tolist()
        return rows

    totals = parts.sum(axis=1).tolist()
    rows = zip(
        largest.tolist(),
        columns(features),
        columns(scored.expected),
        columns(scored.contributions),
        totals,
        strict=True,
    )
    return [
        [
            TopFeature(names[feature], _finite(value), _finite(expected), round(part / total, 6))
            for feature, value, expected, part in zip(*columns_of_row, strict=True)
            if part > 0
        ]
        for *columns_of_row, total in rows
    ]


def _leading(parts: Floats, flagged: list[int], contract: Contract) -> Counter[str]:
    """Count the events at `flagged` by the feature with the largest part in their score.

    Of equal ones it is the first, as in the event's record; `parts` is float32 [n, d].
    """
    if not flagged:
        return Counter()
    names = contract.feature_names  # Made anew each time: not for a turn without flags.
    return Counter(names[feature] for feature in parts[flagged].argmax(axis=1).tolist())


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _why_unscorable(features: Floats, contract: Contract) -> UnscorableReason:
    missing = np.isnan(features)
    refusing = np.array([feature.missing == "refuse" for feature in contract.features])
    if (missing & refusing).any() and not missing.all():
        return UnscorableReason.MISSING_REFUSED
    for code, feature in zip(features.tolist(), contract.features, strict=True):
        if feature.unseen == "refuse" and code >= len(feature.categories):
            return UnscorableReason.UNSEEN_REFUSED
    if missing.any():
        return UnscorableReason.ALL_MISSING
    return UnscorableReason.NOT_FINITE


def _dead_letters(records: Records, batch: Batch, model: ModelRef) -> Outgoing:
    letters = Outgoing()
    for reject in batch.rejects:
        row = reject.row
        letter = DeadLetter(
            schema_version=DEAD_LETTER_VERSION,
            reason=reject.reason,
            detail=reject.detail[:DETAIL_CHARS_MAX],
            source_topic=records.topic,
            source_partition=records.partitions[row],
            source_offset=records.offsets[row],
            model_name=model.name,
            model_version=model.version,
            model_digest=model.digest,
            source_timestamp=records.timestamps_ms[row],
            attempts=attempts_before(records.headers[row]) + 1,
        )
        letters.values.append(records.values[row])
        letters.keys.append(records.keys[row])
        letters.headers.append(without_ours(records.headers[row]) + letter.to_headers())
    return letters
