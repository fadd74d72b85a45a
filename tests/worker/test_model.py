"""A sealed model, opened: its scores, its batches, its provider."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import ModelRefused
from schemas.errors import OutsideError
from tests.builders import Recipe, a_model, a_sealed_model
from worker import session
from worker.model import ModelOptions, open_model

MODEL = a_model()
ROWS = st.lists(
    st.lists(st.floats(width=32, allow_infinity=False), min_size=3, max_size=3),
    min_size=1,
    max_size=20,
)


def test_it_scores_what_its_graph_says():
    scored = MODEL.score(np.array([[1, 2, 2], [3, np.nan, np.nan]], np.float32))
    np.testing.assert_allclose(scored.scores, [3.0, 9.0])
    np.testing.assert_allclose(scored.contributions, [[1 / 3, 4 / 3, 4 / 3], [9, 0, 0]])
    assert scored.expected.shape == (2, 3)


def test_a_row_that_misses_everything_has_no_score():
    assert np.isnan(MODEL.score(np.full((1, 3), np.nan, np.float32)).scores[0])


def test_an_empty_batch_is_not_given_to_the_graph():
    scored = MODEL.score(np.empty((0, 3), np.float32))
    assert scored.scores.shape == (0,)
    assert scored.contributions.shape == scored.expected.shape == (0, 3)


@settings(max_examples=50)
@given(ROWS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_row_scores_the_same_whatever_its_batch_and_place(rows, padding, random):
    matrix = np.array(rows, np.float32)
    together = MODEL.score(matrix).scores
    order = [*range(len(rows))]
    random.shuffle(order)
    padded = np.vstack([matrix[order], np.zeros((padding, 3), np.float32)])
    shuffled = MODEL.score(padded).scores[: len(rows)]
    tolerance = MODEL.contract.score_tolerance
    assert not tolerance.differ(together[order], shuffled).any()
    for row, score in zip(matrix, together, strict=True):
        assert not tolerance.differ([score], MODEL.score(row[None]).scores).any()


def test_its_reference_is_what_the_score_records_say():
    reference = MODEL.reference
    assert (reference.name, reference.version, reference.digest) == ("stand-in", "1", MODEL.digest)


def test_the_provider_is_what_really_runs():
    assert MODEL.provider == "cpu"
    assert not MODEL.fell_back


def test_a_pinned_digest_lets_no_other_model_in():
    sealed = a_sealed_model()
    assert open_model(sealed, ModelOptions("cpu", batch_max=1, pinned_digest=MODEL.digest))
    with pytest.raises(ModelRefused, match="ODRADEK_MODEL_DIGEST allows only"):
        open_model(sealed, ModelOptions("cpu", batch_max=1, pinned_digest="0" * 64))


def test_another_gain_is_another_model():
    other = a_model(Recipe(gain=2.0))
    assert other.digest != MODEL.digest
    row = np.ones((1, 3), np.float32)
    assert other.score(row).scores[0] == 2 * MODEL.score(row).scores[0]


has_gpu = any(device.exists() for device in session._GPU_DEVICES)


@pytest.mark.skipif(has_gpu, reason="this machine has a GPU")
def test_asked_for_cuda_without_a_gpu_it_does_not_start():
    with pytest.raises(OutsideError, match="no NVIDIA device was found, and ODRADEK_PROVIDER=cuda"):
        open_model(a_sealed_model(), ModelOptions("cuda"))


@pytest.mark.skipif(has_gpu, reason="this machine has a GPU")
def test_left_to_choose_without_a_gpu_it_scores_on_the_cpu_and_nothing_fell_back():
    model = open_model(a_sealed_model(), ModelOptions("auto", batch_max=1))
    assert model.provider == "cpu"
    assert not model.fell_back


def test_several_threads_score_as_one_does():
    several = open_model(a_sealed_model(), ModelOptions("cpu", threads=2, batch_max=64))
    rows = np.random.default_rng(1).normal(size=(2000, 3)).astype(np.float32)
    differ = MODEL.contract.score_tolerance.differ(
        MODEL.score(rows).scores, several.score(rows).scores
    )
    assert not differ.any()
