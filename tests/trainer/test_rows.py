"""Rows for training: every one once in a pass, and the same wherever they are and go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import rows as training_rows
from trainer.fit import even_edges
from trainer.rows import Batches, HeldRows, StoredRows, rows_max
from trainer.transforms import Prepared

BLOCK = training_rows._BLOCK_ROWS
WINDOW = BLOCK * training_rows._WINDOW_BLOCKS


def numbered(numbers):
    """Return rows that hold their own numbers."""
    column = torch.as_tensor(numbers, dtype=torch.float32)[:, None]
    return Prepared(column, column, torch.ones_like(column))


def stored(n):
    """Return every third row of a table, prepared as it is taken."""
    return StoredRows(np.arange(n) * 3, numbered, numbered(np.arange(5)))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5, WINDOW + 2 * BLOCK + 7])
def test_every_stored_row_comes_once_in_a_pass(n):
    order = stored(n).order(seeded())

    assert order.sort().values.equal(torch.arange(n))
    assert order.equal(stored(n).order(seeded()))
    assert n == 1 or not order.equal(stored(n).order(seeded(1)))


def test_a_batch_of_stored_rows_is_of_places_all_over_the_file():
    n = 20 * WINDOW
    batch = stored(n).order(seeded())[:128]

    blocks = torch.unique(batch // BLOCK)
    assert len(blocks) > 40
    assert blocks.min() < n / BLOCK / 10
    assert blocks.max() > n / BLOCK * 9 / 10


def test_stored_rows_are_prepared_as_they_are_taken():
    rows = stored(10)

    assert rows.take(torch.tensor([4, 0])).network.ravel().tolist() == [12, 0]
    assert len(rows) == 10
    assert len(rows.shown.network) == 5


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 30), st.booleans())
def test_batches_go_on_from_where_they_stood(n, batches, taken, drawn_between):
    """Others may draw from the same generator between batches, as the denoiser's noise does."""
    edges = even_edges(n, min(batches, n))
    whole, draws = HeldRows(numbered(range(n))), seeded()
    ahead = Batches(whole, edges, draws)
    for _ in range(taken):
        ahead.next()
        if drawn_between:
            torch.rand(3, generator=draws)
    state = ahead.state()
    behind = Batches(whole, edges, seeded(7))
    behind.resume(state)

    for _ in range(12):
        assert ahead.next().network.equal(behind.next().network)


def test_a_pass_is_cut_into_nearly_equal_batches_as_torch_cuts_it():
    for rows, batches in ((10, 3), (9, 3), (7, 7), (1, 1)):
        pieces = torch.arange(rows).tensor_split(batches)
        edges = even_edges(rows, batches)
        assert [len(piece) for piece in pieces] == np.diff(edges).tolist()


def test_of_wide_rows_fewer_are_held():
    assert rows_max(57) == 294_337
    assert rows_max(1024) == 16_384
    assert rows_max(2**30) == 1
