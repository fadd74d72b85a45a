"""The GPU's part of a model's life, with a stand-in for CUDA: opening, failing, falling back.

The stand-in opens the runtime's own sessions, on the CPU, and lets them fail when it is told to.
All else is as in a worker.
"""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import onnxruntime as ort
import pytest

from schemas.contract import ModelRefused
from schemas.errors import OutsideError
from schemas.score import decode_score
from tests.builders import Recipe, a_model, a_sealed_model, an_event
from tests.memory_clients import MemorySink, MemorySource
from tests.memory_log import Clock, Faults, MemoryLog
from worker.delivery import AtLeastOnce
from worker.health import Health
from worker.hold import Holds
from worker.metrics import Metrics
from worker.model import Model, ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.scoring import scoring
from worker.service import Clocks, Worker
from worker.session import (
    CudaFailed,
    CudaOptions,
    Gpu,
    NoGpu,
    nodes_by_provider,
    recording_settings,
)

SEALED = a_sealed_model()
COARSE = a_sealed_model(Recipe(gain=1.001))  # What a coarser multiplication makes of it.
ROWS = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)


class Card:
    """A stand-in for CUDA, and what was asked of it."""

    def __init__(self) -> None:
        self.opened: list[CudaOptions] = []
        self.runs: list[int] = []  # The rows of each.
        self.sessions: list[weakref.ref[ort.InferenceSession]] = []
        self.broken = False
        self.breaks_at_run: int | None = None
        self.refuses_graphs_at: str | None = None
        self.coarse: bool | str = False

    def open(self, sealed: bytes, options: CudaOptions) -> ort.InferenceSession:
        self.opened.append(options)
        if self.broken or (options.graph and self.refuses_graphs_at == "open"):
            raise CudaFailed("the card is not well")
        coarse = self.coarse is True or (self.coarse == "tf32" and options.tf32)
        session = _OnCard(self, options, COARSE if coarse else sealed)
        self.sessions.append(weakref.ref(session))
        return session

    def run(self, options: CudaOptions, rows: int) -> None:
        self.runs.append(rows)
        self.broken = self.broken or len(self.runs) == self.breaks_at_run
        if self.broken or (options.graph and self.refuses_graphs_at == "run"):
            raise RuntimeError("CUDA failure 700: an illegal memory access\nwas encountered")


class _OnCard(ort.InferenceSession):
    def __init__(self, card: Card, options: CudaOptions, sealed: bytes) -> None:
        super().__init__(sealed, recording_settings(), providers=["CPUExecutionProvider"])
        self._card, self._options = card, options

    def run_with_iobinding(self, iobinding, run_options=None):
        self._card.run(self._options, iobinding.get_outputs()[0].shape()[0])
        super().run_with_iobinding(iobinding, run_options)


def opened(card: Card, provider: str = "auto", **cuda: bool) -> Model:
    options = ModelOptions(provider, batch_max=64, cuda=CudaOptions(**cuda))
    return open_model(SEALED, options, Gpu(card.open))


@pytest.fixture
def card() -> Card:
    return Card()


def test_it_scores_on_the_gpu_what_the_cpu_scores(card):
    model = opened(card)
    assert (model.provider, model.fell_back) == ("cuda", False)
    wanted = a_model().score(ROWS).scores
    assert not model.contract.score_tolerance.differ(wanted, model.score(ROWS).scores).any()
    assert card.runs[-1] == 64
    assert model.score(ROWS[:0]).scores.shape == (0,)


def test_every_bucket_is_warm_and_right_before_a_model_is_there_the_largest_first(card):
    opened(card)
    assert card.runs[:3] == [64, 32, 16]


def test_declined_the_gpu_is_not_touched(card):
    model = opened(card, "cpu")
    assert (model.provider, model.fell_back) == ("cpu", False)
    assert not card.opened


def test_without_a_gpu_there_is_nothing_to_fall_back_from(caplog):
    def none(*_):
        raise NoGpu

    model = open_model(SEALED, ModelOptions("auto", batch_max=1), Gpu(none))
    assert (model.provider, model.fell_back) == ("cpu", False)
    assert not caplog.records
    with pytest.raises(OutsideError, match="no NVIDIA device was found, and ODRADEK_PROVIDER=cuda"):
        open_model(SEALED, ModelOptions("cuda", batch_max=1), Gpu(none))


def test_a_gpu_that_cannot_be_had_is_told_and_replaced_or_insisted_on(card, caplog):
    card.broken = True
    model = opened(card)
    assert (model.provider, model.fell_back) == ("cpu", True)
    assert "Scoring on the CPU although a GPU is present: the card is not well." in caplog.text
    with pytest.raises(OutsideError, match="not well, and ODRADEK_PROVIDER=cuda forbids the CPU"):
        opened(card, "cuda")


def test_a_model_that_a_gpu_scores_differently_does_not_run_there(card, caplog):
    card.coarse = True
    model = opened(card)
    assert (model.provider, model.fell_back) == ("cpu", True)
    assert "golden rows score differently here" in caplog.text
    with pytest.raises(ModelRefused, match="golden rows score differently here"):
        opened(card, "cuda")


def test_tf32_is_off_unless_asked_for_and_then_kept_where_the_golden_batch_holds(card, caplog):
    assert CudaOptions().to_provider()["use_tf32"] == "0"
    assert CudaOptions(tf32=True).to_provider()["use_tf32"] == "1"
    opened(card)
    opened(card, tf32=True)
    assert [options.tf32 for options in card.opened] == [False, True]
    assert not caplog.records


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_tf32_that_is_too_coarse_is_told_and_left(card, caplog, provider):
    card.coarse = "tf32"
    model = opened(card, provider, tf32=True, graph=True)
    assert [options.tf32 for options in card.opened] == [True, False]
    assert all(options.graph for options in card.opened)
    assert model.provider == "cuda"
    assert "TF32 is too coarse for this model" in caplog.text


@pytest.mark.parametrize("when", ["open", "run"])
def test_graphs_that_cannot_be_recorded_are_told_and_left(card, caplog, when):
    card.refuses_graphs_at = when
    model = opened(card, "cuda", graph=True)
    assert [options.graph for options in card.opened] == [True, False]
    assert model.provider == "cuda"
    assert "Opening it again without CUDA graphs, in case they are why" in caplog.text


def test_the_memory_limit_is_the_sessions_own():
    options = CudaOptions(mem_limit_mb=300).to_provider()
    assert options["gpu_mem_limit"] == "300000000"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_a_failure_in_mid_run_scores_the_same_batch_on_the_cpu(card, caplog):
    fallen: list[Model] = []
    model = open_model(SEALED, ModelOptions("auto", batch_max=64), Gpu(card.open), fallen.append)
    before = model.score(ROWS)
    card.broken = True
    after = model.score(ROWS)
    for seen, wanted in zip(after, before, strict=True):
        np.testing.assert_allclose(seen, wanted, rtol=1e-6)
    assert (model.provider, model.fell_back, fallen) == ("cpu", True, [model])
    tries = len(card.runs)
    card.broken = False
    model.score(ROWS)
    assert len(card.runs) == tries  # It stays there, even if the card should come round.
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "CUDA failure 700: an illegal memory access was encountered" in line.getMessage()


def test_a_failure_in_the_second_part_of_a_batch_scores_all_of_it_on_the_cpu(card):
    model = opened(card)
    rows = np.tile(ROWS, (4, 1))
    card.breaks_at_run = len(card.runs) + 2
    assert not model.contract.score_tolerance.differ(
        a_model().score(rows).scores, model.score(rows).scores
    ).any()


def test_a_session_that_failed_is_not_taken_apart(card):
    gpu = Gpu(card.open)
    model = open_model(SEALED, ModelOptions("auto", batch_max=1), gpu)
    card.broken = True
    model.score(ROWS)
    del model
    gc.collect()
    assert card.sessions[0]() is not None


class Rig:
    """A worker on the memory log whose models run on a card."""

    def __init__(self, path, card: Card, provider: str) -> None:
        self.path, self.card, self.clock, self.metrics = path, card, Clock(), Metrics()
        path.write_bytes(SEALED)
        self.log = MemoryLog()
        for topic in ("events", "scores", "dead-letters"):
            self.log.create_topic(topic)
        calm = Faults(calm=True)
        gpu, options = Gpu(card.open), ModelOptions(provider, batch_max=64)
        self.models = ModelSlot(
            path,
            lambda sealed: open_model(sealed, options, gpu, self.metrics.scores_with),
            check_interval_s=0.1,
            allow_contract_change=False,
            on_load=lambda outcome, model: self.metrics.model_load(outcome, model, 0.0),
        )
        source = MemorySource(self.log, "events", "group", 20, faults=calm, clock=self.clock)
        sink = MemorySink(self.log, "scores", "dead-letters", faults=calm, clock=self.clock)
        health = Health(60.0, last_beat=self.clock())
        self.worker = Worker(
            source,
            AtLeastOnce(source, sink),
            self.models,
            scoring(self.metrics, 2),
            self.metrics,
            health,
            Holds(health, self.metrics),
            Clocks(self.clock, self.clock),
            breaker=None,
            idle_wait_s=0.2,
            stop_timeout_s=5.0,
        )
        source.start(lambda _: None)

    def put(self, count: int) -> None:
        for row in ROWS[:count].tolist():
            self.log.append("events", an_event(*row))

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.worker.turn()
            self.clock.advance(1.0)

    def scores(self) -> list[float | None]:
        return [decode_score(r.value or b"").score for r in self.log.topics["scores"].records()]

    def committed(self) -> dict[int, int]:
        return self.log.group("group", "events").committed

    def fallback(self) -> float | None:
        return self.metrics.registry.get_sample_value("odradek_provider_fallback")

    def info(self) -> list[tuple[str, str]]:
        """The version and provider of every model that is said to score."""
        return [
            (sample.labels["version"], sample.labels["provider"])
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "odradek_model_info"
        ]


def test_a_gpu_that_fails_in_mid_run_costs_no_event_and_moves_the_gauge(tmp_path, card):
    rig = Rig(tmp_path / "model.onnx", card, "auto")
    assert (rig.fallback(), rig.info()) == (0, [("1", "cuda")])
    rig.put(40)
    rig.turns(1)
    card.breaks_at_run = len(card.runs) + 1
    rig.turns(3)
    np.testing.assert_allclose(rig.scores(), a_model().score(ROWS).scores, rtol=1e-6)
    assert rig.committed() == {0: 40}
    assert (rig.fallback(), rig.info()) == (1, [("1", "cpu")])


def test_a_gpu_that_fails_while_a_new_model_is_tried_is_given_up_too(tmp_path, card):
    """What it holds is not taken apart: that could end the process."""
    rig = Rig(tmp_path / "model.onnx", card, "auto")
    rig.put(1)
    rig.turns(1)
    card.breaks_at_run = len(card.runs) + 2
    rig.path.write_bytes(a_sealed_model(Recipe(version="2")))
    rig.turns(1)
    assert (rig.fallback(), rig.info()) == (1, [("2", "cpu")])
    gc.collect()
    assert [session() is not None for session in card.sessions] == [True, True]
    card.broken = False
    tries = len(card.opened)
    rig.path.write_bytes(a_sealed_model(Recipe(version="3")))
    rig.turns(1)
    assert len(card.opened) == tries
    assert rig.info() == [("3", "cpu")]


def test_a_model_loaded_after_the_gpu_failed_goes_to_the_cpu(tmp_path, card):
    rig = Rig(tmp_path / "model.onnx", card, "auto")
    rig.put(1)
    card.broken = True
    rig.turns(2)
    card.broken = False
    tries = len(card.opened)
    rig.path.write_bytes(a_sealed_model(Recipe(version="2")))
    rig.turns(1)
    assert len(card.opened) == tries
    assert (rig.fallback(), rig.info()) == (1, [("2", "cpu")])


def test_where_the_cpu_is_forbidden_a_turn_whose_gpu_fails_is_neither_written_nor_committed(
    tmp_path, card
):
    rig = Rig(tmp_path / "model.onnx", card, "cuda")
    rig.put(20)
    rig.turns(2)  # The second finds nothing to read, and settles the first.
    rig.put(20)
    card.breaks_at_run = len(card.runs) + 1
    with pytest.raises(OutsideError, match=r"CUDA failed while scoring .* forbids the CPU"):
        rig.turns(1)
    assert len(rig.scores()) == 20
    assert rig.committed() == {0: 20}


def test_a_candidate_that_fails_on_the_gpu_leaves_the_strict_one_in_place(tmp_path, card, caplog):
    rig = Rig(tmp_path / "model.onnx", card, "cuda")
    card.breaks_at_run = len(card.runs) + 2
    rig.path.write_bytes(a_sealed_model(Recipe(version="2")))
    rig.turns(1)
    assert rig.info() == [("1", "cuda")]
    assert "forbids the CPU" in caplog.text


def test_the_buffers_of_a_model_that_was_replaced_go_at_once(tmp_path, card):
    rig = Rig(tmp_path / "model.onnx", card, "auto")
    old = weakref.ref(rig.models.current)
    rig.path.write_bytes(a_sealed_model(Recipe(version="2")))
    gc.disable()
    try:
        rig.turns(1)
        assert rig.info() == [("2", "cuda")]
        assert old() is None
    finally:
        gc.enable()


def test_the_nodes_of_each_provider_can_be_told():
    session = ort.InferenceSession(SEALED, recording_settings(), providers=["CPUExecutionProvider"])
    (nodes,) = nodes_by_provider(session).values()
    assert (nodes["MatMul"], nodes["IsNaN"]) == (3, 1)
