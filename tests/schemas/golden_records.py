"""The records whose bytes are stored in `golden/`.

To change a format: raise its version, then write the golden files anew by
`python -m tests.schemas.golden_records`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from schemas.calibration import Calibration, Tail
from schemas.contract import (
    GROUPED_FORMAT_VERSION,
    Contract,
    Feature,
    GoldenBatch,
    ScoreTolerance,
    Threshold,
)
from schemas.dead_letter import DEAD_LETTER_VERSION, DeadLetter, Reason
from schemas.event import EventLayout
from schemas.groups import Group, Groups
from schemas.score import (
    SCORE_VERSION,
    ModelRef,
    Score,
    Source,
    TopFeature,
    UnscorableReason,
    encode_score,
    truncate_score,
)

FOLDER = Path(__file__).parent / "golden"
MODEL = ModelRef("payments", "2026-01-31", "ab" * 32)
NORMAL = Score(
    schema_version=SCORE_VERSION,
    event_id="caf\u00e9-1",
    timestamp=1700000000123,
    score=0.10000000149011612,
    p_value=0.25,
    threshold=1.5,
    verdict="normal",
    model=MODEL,
    source=Source("events", 3, 9007199254740993),
)
ANOMALOUS = msgspec.structs.replace(
    NORMAL,
    score=3.4028234663852886e38,
    p_value=0.001,
    verdict="anomalous",
    top_features=[TopFeature("amount", 40.0, 3.5, 0.75), TopFeature("items", None, None, 0.25)],
)
UNSCORABLE = msgspec.structs.replace(
    NORMAL, score=None, p_value=None, verdict="unscorable", reason=UnscorableReason.ALL_MISSING
)
LETTER = DeadLetter(
    schema_version=DEAD_LETTER_VERSION,
    reason=Reason.NOT_JSON,
    detail="not JSON: caf\u00e9",
    source_topic="events",
    source_partition=3,
    source_offset=42,
    model_name=MODEL.name,
    model_version=MODEL.version,
    model_digest=MODEL.digest,
)
AGAIN = msgspec.structs.replace(LETTER, source_timestamp=1700000000123, attempts=2)
CONTRACT = Contract(
    name="payments",
    version="2026-01-31",
    created_at="2026-01-31T12:00:00Z",
    layout=EventLayout(event_id=("meta", "id"), timestamp_kind="rfc3339"),
    features=(
        Feature(name="amount", path=("amount",), unit="EUR"),
        Feature(name="caf\u00e9", path=("shop", "caf\u00e9"), missing="refuse"),
    ),
    threshold=Threshold(value=2.5, target_flag_rate=0.25, requested_flag_rate=None),
    calibration=Calibration.of([0.5, 1.5, 2.5]),
    score_tolerance=ScoreTolerance(relative=1e-5, scale=1.5),
    golden=GoldenBatch(features=b"\x00" * 8, scores=b"\x00" * 4),
    holds_training_rows=False,
    training={"seed": 1, "versions": {"torch": "2.15.0"}},
)
TAIL = Tail(
    values=np.array([1.5, 3.5, 9.0], "<f4").tobytes(),
    p_values=np.array([0.5, 0.125, 0.03125], "<f8").tobytes(),
    excesses=1,
    scale="log_score",
    shape=-0.25,
    fit_p_value=0.5,
    flag_rate_low=0.0,
    flag_rate_high=0.375,
)
EXTRAPOLATING = msgspec.structs.replace(
    CONTRACT,
    threshold=Threshold(
        value=3.5,
        target_flag_rate=0.125,
        requested_flag_rate=0.125,
        rule="generalised_pareto",
    ),
    calibration=msgspec.structs.replace(CONTRACT.calibration, tail=TAIL),
)

GROUPED = msgspec.structs.replace(
    CONTRACT,
    format_version=GROUPED_FORMAT_VERSION,
    groups=Groups(
        name="meta.shop",
        source="event",
        path=("meta", "shop"),
        pooled="others",
        members=(
            Group(text="caf\u00e9", threshold=0.75, calibration=Calibration.of([0.25, 0.5, 0.75])),
            Group(text="17", threshold=8.0, calibration=Calibration.of([4, 6, 8])),
        ),
    ),
)
OF_A_GROUP = msgspec.structs.replace(NORMAL, threshold=0.75, calibration_group="caf\u00e9")
POOLED = msgspec.structs.replace(NORMAL, calibration_group=None)


def records() -> dict[str, bytes]:
    return {
        "score_normal.json": encode_score(NORMAL),
        "score_anomalous.json": encode_score(ANOMALOUS),
        "score_unscorable.json": encode_score(UNSCORABLE),
        "score_truncated.json": truncate_score(encode_score(ANOMALOUS)),
        "score_of_a_group.json": encode_score(OF_A_GROUP),
        "score_pooled.json": encode_score(POOLED),
        "dead_letter.headers": _headers(LETTER),
        "dead_letter_stub.headers": _headers(LETTER.as_stub(b"x" * 100_000)),
        "dead_letter_again.headers": _headers(AGAIN),
        "contract.json": CONTRACT.to_json().encode(),
        "contract_extrapolating.json": EXTRAPOLATING.to_json().encode(),
        "contract_grouped.json": GROUPED.to_json().encode(),
    }


def _headers(letter: DeadLetter) -> bytes:
    return b"".join(
        name.encode() + b"\t" + (value or b"") + b"\n" for name, value in letter.to_headers()
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, stored in records().items():
        (FOLDER / name).write_bytes(stored)
