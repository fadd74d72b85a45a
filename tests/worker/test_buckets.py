"""Padded buckets and bound buffers, run on the CPU: the same scores, and each caller's own."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import model as bench_model
from tests.builders import a_sealed_model
from worker.buckets import BUCKET_ROWS_MAX, BoundSession, bucket_rows
from worker.model import ModelOptions, open_model
from worker.session import recording_settings

BATCH_MAX = 50  # So the largest bucket is one of 64.
SEALED = {"stand-in": a_sealed_model(), "bench": bench_model.sealed_model()}
MODELS = {name: open_model(sealed, ModelOptions("cpu")) for name, sealed in SEALED.items()}


def bound(name: str = "stand-in", *, graph: bool = False) -> BoundSession:
    session = ort.InferenceSession(
        SEALED[name], recording_settings(), providers=["CPUExecutionProvider"]
    )
    return BoundSession(session, len(MODELS[name].contract.features), BATCH_MAX, graph=graph)


BOUND = {name: bound(name) for name in SEALED}


def some_rows(name: str, count: int, seed: int) -> np.ndarray:
    """Ordinary rows, extreme ones, and some that miss much or everything."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, len(MODELS[name].contract.features)))
    rows *= rng.choice([0.0, 1.0, 1e6, 1e30], size=(count, 1), p=[0.1, 0.7, 0.1, 0.1])
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[rng.random(count) < 0.1] = np.nan
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("batch_max", "sizes"),
    [
        (1, (16,)),
        (16, (16,)),
        (17, (16, 32)),
        (100, (16, 32, 64, 128)),
        (4096, (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)),
    ],
)
def test_buckets_are_the_powers_of_two_up_to_the_largest_batch(batch_max, sizes):
    assert bucket_rows(batch_max) == sizes


def test_no_bucket_is_larger_than_what_is_run_at_once():
    assert bucket_rows(100_000) == bucket_rows(BUCKET_ROWS_MAX)


@settings(max_examples=60)
@given(st.sampled_from([*SEALED]), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_padding_and_parting_move_no_score_beyond_the_tolerance(name, count, seed):
    model, rows = MODELS[name], some_rows(name, count, seed)
    scores, contributions, expected = BOUND[name].run(rows)
    plain = model.score(rows)
    assert not model.contract.score_tolerance.differ(plain.scores, scores).any()
    np.testing.assert_allclose(contributions, plain.contributions, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(expected, plain.expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 32, 33, 63, 64, 65, 128, 129])
def test_every_size_gives_one_output_for_each_row(count):
    scores, contributions, expected = BOUND["stand-in"].run(some_rows("stand-in", count, 1))
    assert scores.shape == (count,)
    assert contributions.shape == expected.shape == (count, 3)


@pytest.mark.parametrize("count", [5, 16, 100])
def test_outputs_are_the_callers_own(count):
    """A turn's outputs are used while the next one is scored."""
    session = bound()
    first = session.run(np.full((count, 3), 2, np.float32))
    kept = [output.copy() for output in first]
    second = session.run(np.full((count, 3), 7, np.float32))
    for output, before, other in zip(first, kept, second, strict=True):
        np.testing.assert_array_equal(output, before)
        assert not np.shares_memory(output, other)
        output[:] = -1  # And nothing that a caller does to them reaches a later run.
    np.testing.assert_array_equal(session.run(np.full((count, 3), 2, np.float32))[0], kept[0])


def test_a_batch_is_left_as_it_was_and_may_lie_in_memory_in_any_way():
    rows = some_rows("stand-in", 20, 3)
    turned = np.asfortranarray(rows)
    scores = BOUND["stand-in"].run(turned)[0]
    np.testing.assert_array_equal(scores, BOUND["stand-in"].run(rows.copy())[0])
    np.testing.assert_array_equal(turned, rows)


def test_a_graph_id_for_each_bucket_changes_nothing_where_there_are_no_graphs():
    rows = some_rows("stand-in", 40, 4)
    graphs = bound(graph=True)
    np.testing.assert_array_equal(graphs.run(rows)[0], BOUND["stand-in"].run(rows)[0])
