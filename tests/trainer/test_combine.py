"""Raw scores to surprises, and surprises to one score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer.combine import SHARPNESS, SoftMaximum, Surprise

RNG = np.random.default_rng(0)
# Of normal events: a spread of e-folds, a narrow one, and one with ties.
RAW = np.stack(
    [RNG.lognormal(0, 0.6, 2000), RNG.normal(1, 0.05, 2000), RNG.poisson(3, 2000) + 1.0], axis=1
).astype(np.float32)


def surprise(raw):
    return Surprise(RAW)(torch.from_numpy(np.asarray(raw, np.float32))).numpy()


def test_the_surprise_of_normal_events_is_minus_the_logarithm_of_a_uniform_share():
    held_out = np.random.default_rng(1).lognormal(0, 0.6, 50_000)

    share = np.exp(-surprise(np.stack([held_out, held_out, held_out], axis=1))[:, 0])

    # In the tail as good as a power of the raw score is; the last word has the calibration.
    for level, within in ((0.5, 0.05), (0.2, 0.1), (0.1, 0.1), (0.05, 0.15), (0.02, 0.3)):
        assert (share <= level).mean() == pytest.approx(level, rel=within)


def test_a_higher_raw_score_is_never_less_of_a_surprise():
    grid = np.geomspace(1e-4, 1e6, 4000)

    seen = surprise(np.stack([grid] * 3, axis=1))

    assert (np.diff(seen, axis=0) >= -1e-5).all()
    assert (seen >= 0).all()
    assert np.isfinite(seen).all()
    assert (seen[-1] > 12).all()


def test_what_is_rounding_is_no_surprise():
    """A detector whose every raw score is rounding must not tell one from another."""
    raw = np.full((500, 1), 1e-7, np.float32) * np.random.default_rng(0).random((500, 1))

    seen = Surprise(raw.astype(np.float32))(torch.tensor([[1e-7], [2e-7], [1e-8]]))

    assert (seen.max() - seen.min()) < 1e-3


@given(
    arrays.arrays(np.float32, (7, 3), elements=st.floats(0, 300, width=32)),
    st.lists(st.floats(0.125, 8), min_size=3, max_size=3),
)
def test_the_soft_maximum_lies_between_the_weighted_share_of_the_largest_and_the_largest(
    surprises, weights
):
    score, shares = SoftMaximum(weights)(torch.from_numpy(surprises))

    largest = surprises.max(1)
    least = largest + np.log(min(weights) / sum(weights)) / SHARPNESS
    assert (score.numpy()[:, 0] <= largest * (1 + 1e-6) + 1e-5).all()
    assert (score.numpy()[:, 0] >= np.maximum(least, 0) - 1e-4 * (1 + largest)).all()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)


def test_the_soft_maximum_is_its_formula():
    surprises = np.array([[0.5, 2.0, 1.0], [30.0, 1.0, 0.0]])
    weights = np.array([1.0, 2.0, 1.0])

    score, shares = SoftMaximum(weights)(torch.from_numpy(surprises.astype(np.float32)))

    terms = weights / 4 * np.exp(SHARPNESS * surprises)
    np.testing.assert_allclose(score[:, 0], np.log(terms.sum(1)) / SHARPNESS, rtol=1e-5)
    np.testing.assert_allclose(shares, terms / terms.sum(1, keepdims=True), rtol=1e-4)
