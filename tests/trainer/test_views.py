"""The views that distances are measured in."""

from __future__ import annotations

import numpy as np
import torch

from trainer.transforms import Prepared
from trainer.views import RankGauss, Whitened

ALL = np.ones(2, np.bool_)


def prepared(columns, present=None):
    rows = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
    given = torch.ones_like(rows) if present is None else torch.from_numpy(present)
    return Prepared(rows.clamp(-10, 10), rows, given)


def draws(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.lognormal(0, 1, n), rng.choice([0.0, 1.0, 5.0], n, p=[0.7, 0.2, 0.1])


def test_the_rank_gauss_view_of_fit_rows_is_about_normal():
    rows = prepared(draws())

    bent = RankGauss(rows, ALL)(rows.exact)

    np.testing.assert_allclose(bent.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(bent.std(0), 1, atol=1e-3)
    quantiles = np.quantile(bent[:, 0], [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(quantiles, [-1.645, -0.674, 0, 0.674, 1.645], atol=0.15)


def test_the_rank_gauss_view_never_decreases_and_goes_on_beyond_the_fit_rows_to_its_limit():
    rows = prepared(draws())
    view = RankGauss(rows, ALL)
    grid = torch.linspace(-50, 200, 5000)[:, None].repeat(1, 2)

    bent = view(grid)

    assert (bent.diff(dim=0) >= -1e-5).all()
    highest = rows.exact.amax(0, keepdim=True)
    assert (view(highest + 1.0) > view(highest) + 0.5).any()
    assert bent[-1].tolist() == [6, 6]
    assert bent[0].tolist() == [-6, -6]


def test_a_column_that_does_not_vary_is_nothing_in_either_view():
    rows = prepared(draws())
    varying = np.array([True, False])

    assert not RankGauss(rows, varying)(rows.exact)[:, 1].any()
    assert not Whitened(rows, varying, np.ones(2, np.float32))(rows.exact)[:, 1].any()


def test_missing_values_do_not_move_the_rank_gauss_view():
    skewed, steps = draws()
    present = np.ones((8000, 2), np.float32)
    present[4000:, 0] = 0
    doubled = prepared([np.append(skewed, np.full(4000, 90.0)), np.tile(steps, 2)], present)

    with_gaps = RankGauss(doubled, ALL)(prepared([skewed, steps]).exact)

    torch.testing.assert_close(
        with_gaps,
        RankGauss(prepared([skewed, steps]), ALL)(prepared([skewed, steps]).exact),
        atol=1e-4,
        rtol=1e-4,
    )


def test_whitened_columns_are_uncorrelated_and_their_metric_measures_the_distance():
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    rows = prepared([first, first + 0.5 * rng.normal(size=4000)])
    view = Whitened(rows, ALL, np.ones(2, np.float32))

    turned = view(rows.exact) @ view.turn

    covariance = np.cov(turned.T.numpy())
    assert abs(covariance[0, 1]) < 1e-3
    difference = view(rows.exact)[0] - view(rows.exact)[1]
    torch.testing.assert_close(
        difference @ view.metric @ difference, (turned[0] - turned[1]).square().sum()
    )
