"""What each detector says, and what it must not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from trainer.detectors import (
    Neighbours,
    Norm,
    Reconstruction,
    residual_weights,
    stored_rows,
)
from trainer.transforms import Prepared
from trainer.views import RankGauss, Whitened

D = 5
VARYING = np.ones(D, np.bool_)
SHARE = np.ones(D, np.float32)


def prepared(n=400, seed=0):
    source = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, D, generator=source)
    return Prepared(rows, rows, torch.ones_like(rows))


def counts(rows):
    return rows.present.sum(1, keepdim=True)


def detectors():
    rows = prepared()
    return [
        Reconstruction(nn.Identity(), SHARE, torch.ones(D)),
        Norm(RankGauss(rows, VARYING), SHARE),
        Neighbours(Whitened(rows, VARYING, SHARE), Prepared(*(part[:64] for part in rows))),
    ]


def test_parts_are_never_negative_and_nothing_where_a_value_is_missing():
    rows = prepared(50, seed=1)
    rows.present[:, 2] = 0
    rows.present[::2, 4] = 0

    for detector in detectors():
        seen = detector(rows, counts(rows))

        assert seen.score.shape == (50, 1)
        assert (seen.parts >= 0).all()
        assert not seen.parts[:, 2].any()
        assert not seen.parts[::2, 4].any()


def test_a_value_that_is_missing_does_not_count_whatever_stands_in_for_it():
    rows = prepared(50, seed=1)
    rows.present[:, 2] = 0
    wild = rows.exact.clone()
    wild[:, 2] = 900.0
    other = Prepared(rows.network, wild, rows.present)

    for detector in detectors()[:2]:
        torch.testing.assert_close(
            detector(rows, counts(rows)).score, detector(other, counts(other)).score
        )


def test_a_stored_row_is_nearer_than_any_other_and_a_far_one_is_far():
    rows = prepared()
    stored = Prepared(*(part[:64] for part in rows))
    detector = Neighbours(Whitened(rows, VARYING, SHARE), stored)
    far = Prepared(*(part[64:128] * 0 + 9.0 for part in rows))

    near, away = detector(stored, counts(stored)), detector(far, counts(stored))
    other = Prepared(*(part[64:] for part in rows))

    assert near.score.mean() < 0.9 * detector(other, counts(other)).score.mean()
    assert away.score.min() > 2 * near.score.max()


def test_distances_to_the_nearest_rows_are_those_of_a_search_in_double_precision():
    rows, asked = prepared(), prepared(100, seed=3)
    view = Whitened(rows, VARYING, SHARE)
    detector = Neighbours(view, Prepared(*(part[:64] for part in rows)))

    seen = detector(asked, counts(asked)).score[:, 0].numpy()

    turned = (view(asked.exact) @ view.turn).double().numpy()
    stored = (view(rows.exact[:64]) @ view.turn).double().numpy()
    squared = ((turned[:, None] - stored[None]) ** 2).sum(2).reshape(100, 4, 16).min(2) / D
    np.testing.assert_allclose(seen, np.sqrt(squared + 1e-3).mean(1), rtol=1e-4)


def test_the_network_is_not_asked_for_what_never_varied():
    limit = torch.tensor([10.0, 10, 0, 10, 10])
    detector = Reconstruction(nn.Identity(), SHARE, limit)
    rows = prepared(10)

    seen = detector(rows, counts(rows))

    assert seen.reconstruction is not None
    assert not seen.reconstruction[:, 2].any()
    torch.testing.assert_close(seen.score, rows.exact[:, 2:3].square() / D)


def test_a_column_that_is_reconstructed_badly_weighs_less():
    class Halves(nn.Module):
        def forward(self, x):
            return x * torch.tensor([1.0, 0, 0, 0, 0])

    weights = residual_weights(Halves(), torch.ones(D), SHARE, prepared(2000))

    assert weights[0] > 9
    np.testing.assert_allclose(weights[1:], 1, atol=0.15)


def test_as_many_rows_are_stored_as_there_are_in_equal_blocks():
    assert len(stored_rows(1000, 512, seed=0)) == 512
    assert len(stored_rows(103, 512, seed=0)) == 100
    chosen = stored_rows(1000, 512, seed=0)
    assert len(set(chosen.tolist())) == 512
    assert (stored_rows(1000, 512, seed=0) == chosen).all()
    assert (stored_rows(1000, 512, seed=1) != chosen).any()
