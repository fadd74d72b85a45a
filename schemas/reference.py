"""What a model's features were like in training, in few numbers: what drift is measured against.

Of each feature, at most nine edges and, in between, how many of the reference's rows lie there,
with a last place for the rows in which it is missing. A category counts by its code.

The index of drift is the population stability index, the sum of (p - q) ln(p / q) over the bins,
with p the shares now and q those of the reference: the symmetrised Kullback-Leibler divergence.
Without drift its mean is about (bins - 1) / n for n events (Yurdakul and Naranjo, Statistical
properties of the population stability index, Journal of Risk Model Validation, 2020). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.calibration import Floats

EDGES = 9
BINS = EDGES + 2  # Between and beyond the edges, and a last one for what is missing.
# 1,000 features take 110 kB in the contract; the features beyond have no reference.
REFERENCE_FEATURES_MAX = 1_000

Counts = npt.NDArray[np.int64]


class Reference(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The reference of f features, at most `REFERENCE_FEATURES_MAX` of a model's.

    `columns` are their places among the contract's features, those that say most in its scores
    first. `edges`, little-endian float32 [f, 9], ascend, and are infinite where there are fewer:
    a value belongs to the bin whose upper edge it does not exceed. `counts`, little-endian uint32
    [f, 11], say how many of the `rows` lie in each bin.
    """

    rows: int
    columns: tuple[int, ...]
    edges: bytes
    counts: bytes

    @classmethod
    def of(cls, features: Floats, columns: tuple[int, ...], edges: Floats) -> Reference:
        """Hold `features` [n, d], n >= 1, of which `columns` [f] are told by `edges` [f, 9]."""
        edges = np.ascontiguousarray(edges, "<f4")
        counts = count(features[:, list(columns)], edges)
        return cls(
            rows=len(features),
            columns=columns,
            edges=edges.tobytes(),
            counts=counts.astype("<u4").tobytes(),
        )

    @cached_property
    def edges_by_feature(self) -> Floats:
        """The edges, float32 [f, 9]."""
        return np.frombuffer(self.edges, "<f4").reshape(-1, EDGES)

    @cached_property
    def counts_by_feature(self) -> Counts:
        """The counts, int64 [f, 11]."""
        return np.frombuffer(self.counts, "<u4").reshape(-1, BINS).astype(np.int64)

    def complaints(self, width: int) -> Iterator[str]:
        """Yield what contradicts itself, or a contract of so many features."""
        f = len(self.columns)
        if not 1 <= f <= REFERENCE_FEATURES_MAX or len(set(self.columns)) < f:
            yield f"the reference names {f:,} features, or one twice"
        elif not 0 <= min(self.columns) <= max(self.columns) < width:
            yield "the reference names a feature that is not there"
        elif len(self.edges) != 4 * f * EDGES or len(self.counts) != 4 * f * BINS:
            yield "the reference's lengths differ"
        # Of infinite edges the difference is no number; they may stand at the end alone.
        elif not (self.edges_by_feature[:, :-1] <= self.edges_by_feature[:, 1:]).all():
            yield "the reference's edges do not ascend"
        elif self.rows < 1 or (self.counts_by_feature.sum(axis=1) != self.rows).any():
            yield f"the reference's counts are not those of {self.rows:,} rows"


def count(values: Floats, edges: Floats) -> Counts:
    """Return how many of float32 `values` [n, f] lie in each bin of `edges` [f, 9], as [f, 11]."""
    places = np.zeros(values.shape, np.int8)
    # Edge by edge: nine passes over rows are faster than one over a third axis of nine.
    for upper in np.ascontiguousarray(edges.T):
        places += values > upper
    places[np.isnan(values)] = BINS - 1
    numbered = places + BINS * np.arange(values.shape[1], dtype=np.int32)
    return np.bincount(numbered.ravel(), minlength=BINS * values.shape[1]).reshape(-1, BINS)


def stability_index(now: Counts, reference: Counts) -> npt.NDArray[np.float64]:
    """Return the index for counts [..., bins] of now and of the reference.

    A bin that is empty in the reference counts as half a row there; and what is seen now has one
    event more, spread as the reference is, so that no bin is empty.
    """
    q = np.maximum(reference, 0.5) / np.maximum(reference, 0.5).sum(axis=-1, keepdims=True)
    p = (now + q) / (now.sum(axis=-1, keepdims=True) + 1)
    index: npt.NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index
