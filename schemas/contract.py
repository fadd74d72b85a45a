"""The sealed model: one ONNX file, and the contract and digest inside it.

The format, versions 1 and 2. MUST and MAY as in RFC 2119. Version 2 is version 1 with `groups`
(`schemas.groups`): a file that has them MUST say version 2, because a reader of version 1 would
judge every event by the pooled threshold; one without them MUST say version 1.

The file
 - MUST be one ONNX model of at most 2 GiB - 1, with no external data.
 - MUST have one input, `features`, float32 [n, d], n dynamic; NaN means missing.
 - MUST have three outputs: `score` float32 [n], higher is more anomalous; `contributions`
   float32 [n, d], not negative, 0 where the feature is missing, adding up to the score within
   1e-5 relative; `expected` float32 [n, d], the model's idea of each feature in the user's units.
 - holds a category as its code, in the input and in `expected`: its place in the feature's
   `categories`, from 0; their number K for any other text. What is no code counts as K.
 - MUST score a row NaN that holds no feature which varied in training (one that holds nothing,
   or constants alone), or which misses a feature whose policy is `refuse`, or holds K for a
   category whose policy for unseen texts is `refuse`; every other row, finite or not, MUST get a
   finite score.
 - MUST hold all preprocessing in its graph: the worker passes raw numbers.
 - MUST carry two metadata entries: `odradek.contract`, the `Contract` below as canonical JSON
   (keys sorted, no spaces), and, last, `odradek.digest`, 64 hexadecimal digits.
 - MUST NOT carry paths, stack traces or anything else of the machine that made it.

The digest
 - is the SHA-256 of the file's bytes with the 64 digits replaced by ASCII zeros.
 - is found by its wire bytes (field 14 of ModelProto: `0a 0e` key `12 40`), which MUST occur
   exactly once, so that a reader checks it before any parser sees the file.
 - proves that the file is whole, not who made it: anyone can compute it. To pin one file, name
   its digest to the worker.

The drift reference
 - MAY be there: what features were like in training, for a reader that watches for drift. It
   changes no score and no verdict, so that a reader which does not know it misreads nothing.

A reader
 - MUST check, in this order: size, digest, format version, names and shapes, the contract's own
   consistency (`Contract.check`), and the golden batch scored by its own runtime; and MUST NOT
   serve a file that fails any of them.
 - MUST refuse a format version that it does not know. A writer MUST raise the version when a
   reader of the old one would misread the file.
 - MUST ignore keys of `training` that it does not know, and MUST refuse unknown feature kinds and
   unknown rules of the threshold.
 - MAY run the model in any batch; the same row MUST score within `ScoreTolerance` whatever its
   batch, place or padding. An empty batch MUST NOT be given to the graph.

Not checked by this format: that the training data was normal, and that numbers mean what the
feature's unit says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.calibration import Calibration
from schemas.category import Codes, category_complaints, total_complaints
from schemas.event import EventLayout, Path
from schemas.golden import GoldenBatch as GoldenBatch  # For who reads or writes a contract.
from schemas.groups import GroupCalibrations, Groups
from schemas.reference import Reference
from schemas.score import ModelRef

FORMAT = "odradek-sealed-model"
FORMAT_VERSIONS = (FORMAT_VERSION, GROUPED_FORMAT_VERSION) = (1, 2)
FEATURES_MAX = 65_536
SCORE_TOLERANCE_MAX = 1e-4  # Beyond it, p-values of equal events would differ visibly.
SCORE_SCALE_MIN = 1e-2  # A normal feature gives about 1: what lies so far below it is rounding.

INPUT_NAME = "features"
OUTPUT_NAMES = ("score", "contributions", "expected")
CONTRACT_KEY = "odradek.contract"

MissingPolicy = Literal["mask", "refuse"]
FeatureKind = Literal["number", "category"]
UnseenPolicy = Literal["other", "refuse"]


class ModelRefused(Exception):
    """A file is not a sealed model that may serve; the text says why."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, in the order of the model's input.

    `path` is its place below the layout's features. `missing`: `mask` scores the event without
    it (its contribution is 0), `refuse` makes the event unscorable. A number has no `categories`;
    of a category they are the texts that the model knows, in the order of their codes. `unseen`:
    `other` scores any other text as one more category, `refuse` makes the event unscorable.
    """

    name: str
    path: Path
    kind: FeatureKind = "number"
    unit: str | None = None
    missing: MissingPolicy = "mask"
    categories: tuple[str, ...] = ()
    unseen: UnseenPolicy = "other"

    def complaints(self) -> Iterator[str]:
        """Yield what contradicts itself."""
        if self.kind == "category":
            yield from category_complaints(self.categories)
        elif self.categories or self.unseen != "other":
            yield "a number has categories, or a policy for unseen ones"


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event is flagged, and why there.

    `value` is `Calibration.threshold` of the rate. `rule`: `conformal` where calibration scores
    bear the rate out; `generalised_pareto` where a fitted `Calibration.tail`, which comes with
    this rule alone, extrapolates to it. `requested_flag_rate` is what was asked for; None means
    that the default was tried, and raised if n did not support it.
    """

    value: float
    target_flag_rate: float
    requested_flag_rate: float | None
    rule: Literal["conformal", "generalised_pareto"] = "conformal"

    @property
    def extrapolates(self) -> bool:
        """Whether the rate lies where no calibration score bears it out."""
        return self.rule == "generalised_pareto"


class ScoreTolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How far two scores of one event may lie apart: |a - b| <= relative * max(|a|, scale).

    `scale` is the median calibration score: below it a difference is of no consequence. It is at
    least `SCORE_SCALE_MIN`, as features that follow from each other leave rounding alone to score.
    """

    relative: float
    scale: float

    def differ(self, wanted: npt.ArrayLike, seen: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return where `seen` is not `wanted`; NaN equals NaN and nothing else."""
        a, b = np.asarray(wanted, np.float64), np.asarray(seen, np.float64)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= self.relative * np.maximum(np.abs(a), self.scale)
        # Any distance is within a tolerance of infinity.
        same: npt.NDArray[np.bool_] = (near & np.isfinite(a)) | (np.isnan(a) & np.isnan(b))
        return ~same


class Contract(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a sealed model promises; with `groups`, its calibration is the pooled one."""

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    name: str
    version: str
    created_at: str
    layout: EventLayout
    features: tuple[Feature, ...]
    threshold: Threshold
    calibration: Calibration
    groups: Groups | msgspec.UnsetType = msgspec.UNSET  # Not in the JSON where there are none.
    drift_reference: Reference | msgspec.UnsetType = msgspec.UNSET  # Not in files before it.
    score_tolerance: ScoreTolerance
    golden: GoldenBatch
    holds_training_rows: bool
    training: dict[str, Any]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(feature.path for feature in self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def calibrations(self) -> list[Calibration]:
        """Every calibration by which events are judged."""
        if self.groups is msgspec.UNSET:
            return [self.calibration]
        own = [member.calibration for member in self.groups.members]
        return own if own and self.groups.pooled != "others" else [*own, self.calibration]

    @property
    def codes(self) -> tuple[Codes | None, ...]:
        """The codes of each feature that is a category, in order; None for a number."""
        return tuple(
            Codes.of(feature.categories) if feature.kind == "category" else None
            for feature in self.features
        )

    @cached_property
    def by_group(self) -> GroupCalibrations | None:
        """The calibrations of all groups, or None where there are no groups."""
        if self.groups is msgspec.UNSET:
            return None
        return GroupCalibrations(self.groups.members, self.calibration, self.threshold.value)

    def to_json(self) -> str:
        return msgspec.json.encode(self, order="sorted").decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Contract:
        """Read a contract, its version first.

        Raises:
            ModelRefused: it is not a contract of a version that we know, or it is inconsistent.
        """
        try:
            head = msgspec.json.decode(text, type=_Head)
            if head.format != FORMAT:
                raise ModelRefused(f"its format is {head.format!r}; wanted {FORMAT!r}")
            if head.format_version not in FORMAT_VERSIONS:
                raise ModelRefused(
                    f"its format version is {head.format_version}; this program reads versions "
                    f"{' and '.join(map(str, FORMAT_VERSIONS))}"
                )
            contract = msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ModelRefused(f"its contract cannot be read: {error}") from None
        contract.check()
        return contract

    def check(self) -> None:
        """Check the contract against itself.

        Raises:
            ModelRefused: it contradicts itself; the text says where.
        """
        for complaint in self._complaints():
            raise ModelRefused(f"its contract is inconsistent: {complaint}")

    def reference(self, digest: str) -> ModelRef:
        return ModelRef(self.name, self.version, digest)

    def _complaints(self) -> Iterator[str]:
        width = len(self.features)
        if not 1 <= width <= FEATURES_MAX:
            yield f"it names {width:,} features; wanted 1 to {FEATURES_MAX:,}"
            return
        if not self.name or not self.version:
            yield "the model has no name or no version"
        for what, values in (("name", self.feature_names), ("path", self.paths)):
            if len(set(values)) < width or not all(values):
                yield f"a feature's {what} is empty or occurs twice"
        for feature in self.features:
            for complaint in feature.complaints():
                yield f"of the feature {feature.name!r}, {complaint}"
        yield from total_complaints(feature.categories for feature in self.features)
        for what, path in (("event id", self.layout.event_id), ("time", self.layout.timestamp)):
            if not path:
                yield f"the {what} has no place in the event"
        yield from self.calibration.complaints()
        yield from self._rule_complaints()
        relative, scale = self.score_tolerance.relative, self.score_tolerance.scale
        if not (0 < relative <= SCORE_TOLERANCE_MAX and math.isfinite(scale) and scale >= 0):
            yield f"the score tolerance is {relative:g} and {scale:g}"
        rate = self.threshold.target_flag_rate
        yield from self.calibration.threshold_complaints(rate, self.threshold.value)
        yield from self._group_complaints()
        if self.drift_reference is not msgspec.UNSET:
            yield from self.drift_reference.complaints(width)
        rows, rest = divmod(len(self.golden.features), 4 * width)
        if rest or not rows or len(self.golden.scores) != 4 * rows:
            yield "the golden batch's rows and scores do not fit the features"

    def _rule_complaints(self) -> Iterator[str]:
        rule, rate = self.threshold.rule, self.threshold.target_flag_rate
        if self.threshold.extrapolates != (self.calibration.tail is not msgspec.UNSET):
            has = "no tail" if self.threshold.extrapolates else "a tail"
            yield f"the threshold's rule is {rule!r}, and there is {has}"
        if self.threshold.extrapolates and rate >= self.calibration.smallest_rate:
            yield f"the threshold's rule is {rule!r}, and its rate, {rate:g}, needs no tail"

    def _group_complaints(self) -> Iterator[str]:
        if (self.format_version == GROUPED_FORMAT_VERSION) == (self.groups is msgspec.UNSET):
            yield f"its version is {self.format_version}; only one with groups has version 2"
        if self.groups is not msgspec.UNSET:
            layout, below = self.layout, (self.layout.features + path for path in self.paths)
            categories = {f.name: f.categories for f in self.features if f.kind == "category"}
            others = {layout.event_id, layout.timestamp, layout.features, *below}
            rate = self.threshold.target_flag_rate
            yield from self.groups.complaints(rate, categories, others)


class _Head(msgspec.Struct):
    format: str = ""
    format_version: int = 0
