"""Categories become columns of 0 and 1, and come back as features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.columns import Columns, fit_category

NAN = np.nan


def test_a_category_is_a_column_for_each_text_and_one_for_any_other():
    columns = Columns([None, 2, None])

    seen = columns.rows(np.array([[5, 0, 7], [5, 1, 7], [5, 2, 7], [NAN, NAN, 1]], np.float32))

    wanted = [[5, 7, 1, 0, 0], [5, 7, 0, 1, 0], [5, 7, 0, 0, 1], [NAN, 1, NAN, NAN, NAN]]
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("code", [0.5, -1.0, 3.0, 1e30, -np.inf, np.inf])
def test_whatever_is_no_known_code_is_another_text(code):
    assert Columns([2]).rows(np.array([[code]], np.float32)).tolist() == [[0, 0, 1]]


def test_parts_of_a_categorys_columns_add_up_to_its_part():
    columns = Columns([None, 2])

    folded = columns.fold(torch.tensor([[1.0, 2, 3, 4]]))

    assert folded.tolist() == [[1, 9]]


def test_a_feature_is_present_or_not_whatever_its_columns():
    columns = Columns([None, 9])
    present = torch.tensor([[1.0] * 11, [0.0] + [1.0] * 10, [1.0] + [0.0] * 10])

    np.testing.assert_allclose(columns.present(present), [[1, 1], [0, 1], [1, 0]], atol=1e-6)


def test_the_expected_value_of_a_category_is_its_likeliest_code():
    columns = Columns([2, None])

    expected = columns.expected(torch.tensor([[7.0, 0.1, 0.7, 0.2], [8.0, 0.9, 0.0, 0.1]]))

    assert expected.tolist() == [[1, 7], [0, 8]]


def test_without_categories_nothing_is_changed():
    columns, rows = Columns([None, None]), torch.tensor([[1.0, 2.0]])

    for same in (columns, columns.fold, columns.present, columns.expected):
        assert same(rows) is rows


def test_a_rare_text_is_farther_from_the_middle_and_one_never_seen_is_farthest():
    codes = np.repeat([0.0, 1.0], [990, 10]).astype(np.float32)

    frequent, rare, never = fit_category(codes, texts=2)

    surprise = [(1 - one.centre) / one.scale for one in (frequent, rare, never)]
    assert surprise[0] < 0.2
    assert 8 < surprise[1] < 12
    assert 25 < surprise[2] < 40
    # Standardised: the mean over the rows is 0 and the variance 1, but for the one added.
    values = (codes - rare.centre) / rare.scale
    assert abs(values.mean()) < 0.02
    assert 0.9 < values.var() < 1.1
