from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataError
from trainer import transforms
from trainer.transforms import Transforms, constant_columns, fit_feature, fit_transforms

rng = np.random.default_rng(0)
finite = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (rng.normal(size=4000), "standardise"),
        (rng.exponential(size=4000), "standardise"),
        (rng.lognormal(sigma=1, size=4000), "standardise"),
        (rng.lognormal(sigma=2.5, size=4000), "asinh"),
        (rng.standard_cauchy(4000), "asinh"),
        (np.where(rng.random(4000) < 0.1, rng.exponential(size=4000), 0), "asinh"),
        (np.full(4000, 3.5), "constant"),
        (np.float32(1e9) + np.zeros(4000), "constant"),
    ],
)
def test_the_rule_chooses_by_the_tail(values, kind):
    assert fit_feature(values).kind == kind


near = st.floats(-1e-3, 1e-3).map(lambda step: 1000 + step) | finite | st.just(np.nan)


@given(st.lists(st.tuples(near, near, st.booleans()), min_size=1, max_size=30))
def test_constant_columns_are_those_that_the_rule_finds_constant(cells):
    rows = np.array([cell[:2] for cell in cells], np.float32)
    among = np.array([cell[2] for cell in cells])

    def by_the_rule(column):
        values = column[~np.isnan(column)].astype(np.float64)
        return not len(values) or fit_feature(values).kind == "constant"

    assert constant_columns(rows).tolist() == [by_the_rule(column) for column in rows.T]
    some = [by_the_rule(column) for column in rows[among].T]
    assert constant_columns(rows, among).tolist() == some


def test_constant_columns_are_found_over_all_blocks_of_rows():
    rows = np.full((2 * transforms.BLOCK_ROWS + 1, 3), 7.5, np.float32)
    rows[-1, 1] = 8
    rows[: transforms.BLOCK_ROWS, 2] = np.nan

    assert constant_columns(rows).tolist() == [True, False, True]


def test_the_rule_does_not_depend_on_the_unit():
    values = rng.lognormal(sigma=2.5, size=1000)

    metres, millimetres = fit_feature(values), fit_feature(values * 1000 + 5)

    assert metres.kind == millimetres.kind
    assert millimetres.width == pytest.approx(1000 * metres.width)
    assert millimetres.mean == pytest.approx(metres.mean)


def test_a_choice_overrides_the_rule_but_for_a_constant():
    assert fit_feature(rng.normal(size=100), "asinh").kind == "asinh"
    assert fit_feature(rng.standard_cauchy(100), "standardise").kind == "standardise"
    assert fit_feature(np.full(100, 2.0), "asinh").kind == "constant"


def test_one_wild_value_among_the_fit_rows_does_not_move_the_others():
    values = rng.normal(size=1000)
    wild = np.append(values, 1e30)

    fitted, with_wild = fit_feature(values), fit_feature(wild)

    assert with_wild.width == pytest.approx(fitted.width, rel=0.02)
    assert with_wild.scale < 4 * fitted.scale


@given(st.lists(finite, min_size=1, max_size=40), st.sampled_from(["auto", "asinh", "standardise"]))
def test_whatever_was_fitted_every_value_stays_finite(values, choice):
    fitted = fit_feature(np.array(values, np.float64), choice)
    module = Transforms([fitted], limit=10.0)
    probes = torch.tensor([*values, 0, 1e-42, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan])[:, None]

    prepared = module(probes)

    assert all(torch.isfinite(part).all() for part in prepared)
    assert torch.isfinite(module.inverse(prepared.network)).all()
    assert prepared.network.abs().max() <= 10
    assert prepared.present[-1] == 0
    # What is missing is replaced by the median of the fit rows.
    assert prepared.exact[-1] == module(torch.tensor([[fitted.centre]])).exact[0]


def test_the_transform_keeps_the_order_of_values():
    module = Transforms([fit_feature(rng.standard_cauchy(1000))], limit=10.0)
    values = torch.logspace(-3, 6, 50)
    prepared = module(torch.cat([-values.flip(0), values])[:, None]).exact

    assert (prepared.diff(dim=0) > 0).all()


@pytest.mark.parametrize("kind", ["standardise", "asinh"])
def test_the_inverse_gives_the_users_value_back(kind):
    values = rng.normal(20, 4, size=500)
    module = Transforms([fit_feature(values, kind)], limit=10.0)
    rows = torch.tensor(values, dtype=torch.float32)[:, None]

    torch.testing.assert_close(module.inverse(module(rows).exact), rows, rtol=1e-5, atol=1e-4)


def test_fit_rows_come_out_standardised():
    rows = np.stack([rng.normal(5, 2, 2000), rng.standard_cauchy(2000)], axis=1).astype(np.float32)
    module = Transforms(fit_transforms(rows, ["a", "b"], ["auto"] * 2), limit=10.0)

    prepared = module(torch.from_numpy(rows)).exact

    torch.testing.assert_close(prepared.mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(prepared.std(0), torch.ones(2), rtol=1e-2, atol=0)


def test_the_network_never_sees_a_constant_change():
    rows = np.stack([rng.normal(size=100), np.zeros(100)], axis=1).astype(np.float32)
    module = Transforms(fit_transforms(rows, ["a", "b"], ["auto"] * 2), limit=10.0)

    prepared = module(torch.tensor([[0.0, 0.0], [0.0, 1e-3], [0.0, 1.0]]))

    assert (prepared.network[:, 1] == 0).all()
    assert 0 == prepared.exact[0, 1] < prepared.exact[1, 1] < prepared.exact[2, 1]


def test_all_constant_columns_are_refused():
    with pytest.raises(DataError, match="no column varies among the fit rows, of 3; wanted"):
        fit_transforms(np.ones((10, 3), np.float32), ["a", "b", "c"], ["auto"] * 3)


def test_a_column_without_values_is_refused_by_name():
    rows = np.array([[1, np.nan], [2, np.nan]], np.float32)

    with pytest.raises(DataError, match="no fit row has a value for 'b'"):
        fit_transforms(rows, ["a", "b"], ["auto"] * 2)
