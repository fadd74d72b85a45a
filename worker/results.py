"""From scores to score records and dead letters. Pure; each row decided by the contract.

A score that is not finite is never compared with the threshold (NaN > t is false, which would
make it normal): such an event is `unscorable`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from schemas.calibration import Floats
from schemas.contract import Contract
from schemas.dead_letter import (
    DEAD_LETTER_VERSION,
    DETAIL_CHARS_MAX,
    DeadLetter,
    without_ours,
)
from schemas.score import (
    SCORE_VERSION,
    ModelRef,
    Score,
    Source,
    TopFeature,
    UnscorableReason,
    Verdict,
    encode_score,
)
from worker.model import Model, Scored
from worker.turn import Batch, Outgoing, Outputs, Records, Tally

_VERDICTS: tuple[Verdict, ...] = ("normal", "anomalous", "unscorable")


def to_results(
    records: Records, batch: Batch, scored: Scored, model: Model, top_features_max: int
) -> Outputs:
    """Return one output for every record of the turn: a score record or a dead letter."""
    p_values, verdicts = judge(scored.scores, model.contract)
    scores = _score_records(records, batch, scored, p_values, verdicts, model, top_features_max)
    tally = Tally(
        outcomes={**Counter(verdicts), "dead_letter": len(batch.rejects)},
        reasons=Counter(reject.reason for reject in batch.rejects),
        p_values=p_values[np.isfinite(p_values)],
        timestamps_ms=batch.timestamps_ms,
    )
    return Outputs(scores, _dead_letters(records, batch, model.reference), tally)


def judge(scores: Floats, contract: Contract) -> tuple[npt.NDArray[np.float64], list[Verdict]]:
    """Return the p-value of each score, float64 [n], NaN where it has none, and its verdict."""
    finite = np.isfinite(scores)
    p_values = np.where(finite, contract.calibration.p_values(np.where(finite, scores, 0)), np.nan)
    kinds = np.where(scores > np.float32(contract.threshold.value), 1, 0)
    kinds[~finite] = 2
    return p_values, [_VERDICTS[kind] for kind in kinds.tolist()]


def _score_records(
    records: Records,
    batch: Batch,
    scored: Scored,
    p_values: npt.NDArray[np.float64],
    verdicts: list[Verdict],
    model: Model,
    top_features_max: int,
) -> Outgoing:
    topic, partitions, offsets = records.topic, records.partitions, records.offsets
    reference, threshold = model.reference, model.contract.threshold.value
    values: list[bytes | None] = []
    columns = (
        batch.rows,
        batch.event_ids,
        batch.timestamps_ms,
        scored.scores.tolist(),
        p_values.tolist(),
        verdicts,
    )
    for row, event_id, timestamp, score, p_value, verdict in zip(*columns, strict=True):
        record = Score(
            schema_version=SCORE_VERSION,
            event_id=event_id,
            timestamp=timestamp,
            score=score,
            p_value=p_value,
            threshold=threshold,
            verdict=verdict,
            model=reference,
            source=Source(topic, partitions[row], offsets[row]),
        )
        if verdict != "normal":
            place = len(values)
            record = _explained(
                record, batch.features[place], place, scored, model.contract, top_features_max
            )
        values.append(encode_score(record))
    carried = [records.headers[row] or [] for row in batch.rows]
    return Outgoing(
        values, [records.keys[row] for row in batch.rows], carried if any(carried) else []
    )


def _explained(
    record: Score,
    features: Floats,
    place: int,
    scored: Scored,
    contract: Contract,
    top_features_max: int,
) -> Score:
    """Return the record with what gave the event away, or with why it has no score."""
    if record.verdict == "unscorable":
        return replace(record, score=None, p_value=None, reason=_why_unscorable(features, contract))
    parts, expected = scored.contributions[place], scored.expected[place]
    largest = np.argsort(-parts, kind="stable")[:top_features_max].tolist()
    total = float(parts.sum())
    return replace(
        record,
        top_features=[
            TopFeature(
                name=contract.features[feature].name,
                value=_finite(features[feature]),
                expected=_finite(expected[feature]),
                share=round(float(parts[feature]) / total, 6),
            )
            for feature in largest
            if parts[feature] > 0
        ],
    )


def _finite(number: np.float32) -> float | None:
    return float(number) if np.isfinite(number) else None


def _why_unscorable(features: Floats, contract: Contract) -> UnscorableReason:
    missing = np.isnan(features)
    if missing.all():
        return UnscorableReason.ALL_MISSING
    refusing = np.array([feature.missing == "refuse" for feature in contract.features])
    if (missing & refusing).any():
        return UnscorableReason.MISSING_REFUSED
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
        )
        letters.values.append(records.values[row])
        letters.keys.append(records.keys[row])
        letters.headers.append(without_ours(records.headers[row]) + letter.to_headers())
    return letters
