"""The score record: what the worker says of one event.

Higher scores are more anomalous. `p_value` is the share of normal events that would score at
least as high, by the model's calibration; `anomalous` means score > threshold, which is the
same as p_value <= the model's target flag rate. It is never below 1 / (n + 1), n the number of
calibration events, unless the model carries a fitted tail: then it is an extrapolation there.
Times are epoch milliseconds.

Of a model that judges by groups, `threshold` and `p_value` are those of the event's group, and
`calibration_group` names it: null where the pooled calibration judged. Of other models the record
has no such field.

An `unscorable` event has neither score nor p-value, and says why in `reason`; it is an event,
not a dead letter, and it is never taken for a normal one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, cast

import msgspec

SCORE_VERSION = 1


# Three-valued: not knowing is not the same as normal. Plain strings, because one is written
# into every record and an enum's member costs a fifth of the encoding.
Verdict = Literal["normal", "anomalous", "unscorable"]


class UnscorableReason(StrEnum):
    """Why an event has no score. Closed, as `dead_letter.Reason` is."""

    ALL_MISSING = "all_missing"  # Every feature that could tell is missing.
    MISSING_REFUSED = "missing_refused"  # A feature is missing whose policy refuses that.
    UNSEEN_REFUSED = "unseen_refused"  # A category is unseen whose policy refuses that.
    NOT_FINITE = "not_finite"  # The model's own output is not finite.


class ModelRef(msgspec.Struct, frozen=True):
    """Which sealed model gave a score; `digest` is the SHA-256 that its file carries."""

    name: str
    version: str
    digest: str


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the event was read. A repeat of an event has the same source."""

    topic: str
    partition: int
    offset: int


class TopFeature(msgspec.Struct, frozen=True, gc=False):
    """One feature's part in a score: `value` was seen, `expected` the model's idea of it.

    Both are in the user's units, of a category the texts; `share` is the part of the whole score, 0
    to 1.
    """

    name: str
    value: float | str | None
    expected: float | str | None
    share: float


class Score(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One score record. `truncated` marks one that was too large for the topic as it was."""

    schema_version: int
    event_id: str
    timestamp: int
    score: float | None
    p_value: float | None
    threshold: float
    verdict: Verdict
    model: ModelRef
    source: Source
    calibration_group: str | msgspec.UnsetType | None = msgspec.UNSET
    top_features: list[TopFeature] = []
    reason: UnscorableReason | None = None
    truncated: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Score)
encode_score = _encoder.encode
decode_score = _decoder.decode


def written_once(model: ModelRef) -> ModelRef:
    """Return a stand-in for `model` in records to be encoded: its JSON, written but once."""
    return cast("ModelRef", msgspec.Raw(_encoder.encode(model)))


def truncate_score(record: bytes) -> bytes:
    """Return the smaller form of a score record: no top features, and marked as truncated."""
    score = msgspec.structs.replace(decode_score(record), top_features=[], truncated=True)
    return encode_score(score)
