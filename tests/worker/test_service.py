"""The life of the worker, on the memory log: order of steps, waiting, stopping, failing."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import OutsideError
from schemas.score import decode_score
from tests.builders import Recipe, a_sealed_model, an_event
from tests.memory_clients import MemorySink, MemorySource
from tests.memory_log import Clock, DeliveryFailed, Faults, MemoryLog
from worker.breaker import Breaker
from worker.delivery import AtLeastOnce
from worker.health import Health
from worker.hold import Hold, Holds
from worker.metrics import Metrics
from worker.model import ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.scoring import scoring
from worker.service import POLL_WHILE_SETTLING_AFTER_S, Clocks, Worker


class SlowFaults(Faults):
    """Nothing fails; acknowledgements come after `slow_slices` slices, and steps are noted."""

    def __init__(self, slow_slices: int = 0) -> None:
        super().__init__(calm=True, pause=lambda step: self._on_step(step))
        self.slow_slices = slow_slices
        self.steps: list[str] = []
        self.on_step = lambda _: None

    def _on_step(self, step: str) -> None:
        self.steps.append(step)
        self.on_step(step)

    def slices(self) -> int:
        return self.slow_slices


class Bench:
    """A worker on a log of its own, run in this thread until it has nothing left to read."""

    def __init__(
        self,
        folder: Path,
        *,
        batch_max: int = 100,
        slow_slices: int = 0,
        log: MemoryLog | None = None,
        breaks: bool = True,
    ) -> None:
        self.log = log or MemoryLog()
        if log is None:
            for topic in ("events", "scores", "dead-letters"):
                self.log.create_topic(topic)
        self.clock = Clock()
        self.faults = SlowFaults(slow_slices)
        self.metrics = Metrics()
        self.health = Health(60.0, last_beat=self.clock())
        self.model_path = folder / "model.onnx"
        self.model_path.write_bytes(a_sealed_model())
        self.source = MemorySource(
            self.log, "events", "group", batch_max, faults=self.faults, clock=self.clock
        )
        self.sink = MemorySink(
            self.log, "scores", "dead-letters", faults=self.faults, clock=self.clock
        )
        models = ModelSlot(
            self.model_path,
            lambda sealed: open_model(sealed, ModelOptions("cpu", batch_max=1)),
            check_interval_s=0.1,
            allow_contract_change=True,
            on_load=lambda *_: None,
        )
        self.worker = Worker(
            self.source,
            AtLeastOnce(self.source, self.sink),
            models,
            scoring(self.metrics, 2),
            self.metrics,
            self.health,
            Holds(self.health, self.metrics),
            Clocks(self.clock, self.clock),
            breaker=Breaker(0.9) if breaks else None,
            idle_wait_s=0.2,
            stop_timeout_s=5.0,
        )

    def put(self, *values: bytes | None) -> None:
        for value in values:
            self.log.append("events", value)

    def run_until(self, step: str, times: int = 1) -> None:
        """Run, and send the stop signal when this step comes for so many times."""

        def stop(_: str) -> None:
            if self.faults.steps.count(step) == times:
                self.worker.stop()

        self.faults.on_step = stop
        self.worker.run()

    def scores(self):
        return [decode_score(r.value or b"") for r in self.log.topics["scores"].records()]

    def committed(self) -> dict[int, int]:
        return self.log.group("group", "events").committed


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_every_record_comes_out_and_is_committed(bench):
    bench.put(an_event(1, 0, 0, event_id="a"), b"rubbish", None, an_event(None, None, None))
    bench.run_until("read", 3)
    assert [score.event_id for score in bench.scores()] == ["a", "e"]
    assert [score.verdict for score in bench.scores()] == ["normal", "unscorable"]
    letters = [
        DeadLetter.from_headers(record.headers)
        for record in bench.log.topics["dead-letters"].records()
    ]
    assert [letter.reason for letter in letters] == [Reason.NOT_JSON, Reason.TOMBSTONE]
    assert bench.committed() == {0: 4}
    assert (
        bench.metrics.registry.get_sample_value("odradek_records_total", {"outcome": "dead_letter"})
        == 2
    )


def test_a_turn_is_written_only_after_the_one_before_it_is_settled_and_committed(tmp_path):
    bench = Bench(tmp_path, batch_max=1, slow_slices=2)
    bench.put(*[an_event(1, 0, 0)] * 3)
    bench.run_until("read", 6)
    order = [step for step in bench.faults.steps if step in ("write", "commit")]
    assert order == ["write", "commit"] * 3


def test_on_a_quiet_topic_a_turn_is_settled_at_once(bench):
    """With outputs in flight the worker does not wait for more events before it settles."""
    bench.put(an_event(1, 0, 0))
    started = bench.clock()
    bench.run_until("committed")
    assert bench.clock() == started
    assert bench.committed() == {0: 1}


def test_an_idle_worker_waits_and_stays_healthy(bench):
    bench.run_until("read", 20)
    assert bench.health.why_not_alive(bench.clock()) is None
    assert bench.clock() > 1003.0
    assert bench.scores() == []
    assert bench.committed() == {}


def test_waiting_long_for_acknowledgements_it_keeps_its_place_in_the_group(tmp_path):
    bench = Bench(tmp_path, slow_slices=30)
    bench.put(an_event(1, 0, 0))
    bench.run_until("committed")
    steps = bench.faults.steps
    slices = int(POLL_WHILE_SETTLING_AFTER_S * 10)
    assert steps[: steps.index("keep alive")].count("settle") >= slices
    assert steps.count("keep alive") > 10
    assert bench.health.why_not_alive(bench.clock()) is None
    assert bench.committed() == {0: 1}


def test_stop_settles_and_commits_the_turn_in_hand(tmp_path):
    bench = Bench(tmp_path, slow_slices=20)
    bench.put(an_event(1, 0, 0))
    bench.run_until("written")
    assert bench.committed() == {0: 1}
    assert bench.health.draining
    assert "close" in bench.faults.steps


def test_stop_before_anything_was_read_leaves_at_once(bench):
    bench.worker.stop()
    bench.worker.run()
    assert "read" not in bench.faults.steps
    assert bench.faults.steps[-1] == "close"


def test_stop_gives_up_on_a_broker_that_is_silent_and_says_what_is_left(tmp_path):
    bench = Bench(tmp_path, slow_slices=10_000)
    bench.put(an_event(1, 0, 0))
    with pytest.raises(OutsideError, match="did not acknowledge the last turn within 5 s"):
        bench.run_until("written")
    assert bench.committed() == {}
    assert bench.clock() < 1000 + 5 + 1


def test_a_second_stop_does_not_move_the_deadline(tmp_path):
    bench = Bench(tmp_path, slow_slices=10_000)
    bench.put(an_event(1, 0, 0))
    bench.faults.on_step = lambda step: bench.worker.stop() if step != "read" else None
    with pytest.raises(OutsideError):
        bench.worker.run()
    assert bench.clock() < 1000 + 5 + 1


def test_a_client_that_fails_for_good_ends_the_worker_with_nothing_committed(bench):
    def fail(_: float) -> bool:
        raise DeliveryFailed("fenced")

    bench.sink.settle = fail
    bench.put(an_event(1, 0, 0), b"rubbish")
    with pytest.raises(DeliveryFailed, match="fenced"):
        bench.run_until("read", 10)
    assert bench.committed() == {}
    assert "close" in bench.faults.steps


def test_an_output_that_is_refused_is_kept_until_it_is_taken(bench):
    gone = bench.log.topics.pop("dead-letters")
    bench.put(an_event(1, 0, 0), b"rubbish")

    def make_again(step: str) -> None:
        if step == "settle" and bench.faults.steps.count("settle") == 30:
            assert bench.committed() == {}
            bench.log.topics["dead-letters"] = gone
        if step == "committed":
            bench.worker.stop()

    bench.faults.on_step = make_again
    bench.worker.run()
    assert bench.committed() == {0: 2}
    assert len(bench.scores()) == len(gone.records()) == 1


def test_what_a_dying_worker_left_is_done_by_the_next(tmp_path):
    first = Bench(tmp_path, slow_slices=10_000)
    first.put(an_event(1, 0, 0, event_id="a"), an_event(1, 0, 0, event_id="b"))
    with pytest.raises(OutsideError):
        first.run_until("written")
    assert first.scores() == []
    second = Bench(tmp_path, log=first.log)
    second.put(an_event(1, 0, 0, event_id="c"))
    second.run_until("committed")
    assert [score.event_id for score in second.scores()] == ["a", "b", "c"]
    assert second.committed() == {0: 3}


def test_a_new_model_takes_over_between_turns_and_each_score_says_which(tmp_path):
    bench = Bench(tmp_path, batch_max=1)
    bench.put(an_event(1, 0, 0), an_event(1, 0, 0))
    other = a_sealed_model(Recipe(gain=2.0, version="2"))

    def swap(step: str) -> None:
        if step == "written" and bench.faults.steps.count("written") == 1:
            bench.model_path.write_bytes(other)
            bench.clock.advance(1)
        if bench.faults.steps.count("committed") == 2:
            bench.worker.stop()

    bench.faults.on_step = swap
    bench.worker.run()
    assert [score.model.version for score in bench.scores()] == ["1", "2"]
    first, second = bench.scores()
    assert second.score == pytest.approx(2 * first.score)


def test_its_metrics_count_what_was_acknowledged_and_nothing_else(tmp_path):
    bench = Bench(tmp_path, slow_slices=10_000)
    bench.put(an_event(1, 0, 0))
    with pytest.raises(OutsideError):
        bench.run_until("written")
    value = bench.metrics.registry.get_sample_value
    assert value("odradek_records_total", {"outcome": "normal"}) == 0
    assert value("odradek_turn_stage_seconds_count", {"stage": "write"}) == 1


def held(bench: Bench) -> float | None:
    return bench.metrics.registry.get_sample_value("odradek_held", {"hold": Hold.REJECTS})


def a_flooded(folder: Path) -> Bench:
    """Good events that are done, then rubbish, and no end of the run yet."""
    bench = Bench(folder)
    bench.health.joined = True
    bench.put(*[an_event(1, 0, 0)] * 100, *[b"rubbish"] * 300)
    return bench


def test_a_flood_of_rubbish_holds_and_nothing_of_it_is_written_or_committed(tmp_path):
    bench = a_flooded(tmp_path)
    bench.run_until("keep alive", 50)
    # Turns are of 100: the first is done, the second is all rubbish.
    assert len(bench.scores()) == 100
    assert bench.log.topics["dead-letters"].records() == []
    assert bench.committed() == {0: 100}
    assert "read" not in bench.faults.steps[bench.faults.steps.index("keep alive") :]


def test_while_it_holds_it_is_alive_and_not_ready_and_says_what_to_look_at(tmp_path, caplog):
    bench = a_flooded(tmp_path)
    seen: list[tuple[str | None, str | None, float | None]] = []

    def look(step: str) -> None:
        if step == "keep alive":
            now = bench.clock()
            seen.append(
                (bench.health.why_not_alive(now), bench.health.why_not_ready(now), held(bench))
            )
            if len(seen) == 1000:
                bench.worker.stop()

    bench.faults.on_step = look
    bench.worker.run()
    assert len(set(seen)) == 1
    alive, ready, gauge = seen[0]
    assert (alive, gauge) == (None, 1.0)
    assert ready is not None
    assert ready.startswith("holding: the latest 100 records cannot be scored")
    for word in ("'not_json'", "events partition 0 offset 100", "stand-in 1", "=off"):
        assert word in ready
    assert sum("Holding: " in message for message in caplog.messages) == 1


def test_a_stop_while_it_holds_is_orderly(tmp_path):
    bench = a_flooded(tmp_path)
    bench.run_until("keep alive", 3)  # It returns: no error, no wait for the stop's limit.
    assert bench.clock() < 1000 + 5
    assert bench.faults.steps[-1] == "close"
    assert bench.committed() == {0: 100}


def test_a_new_model_that_fits_closes_the_breaker(tmp_path):
    bench = Bench(tmp_path)
    # Under the first model nothing of these can be scored: a feature too few.
    bench.put(*[an_event(1, 0)] * 250)

    def swap(step: str) -> None:
        if step == "keep alive" and bench.faults.steps.count("keep alive") == 5:
            assert held(bench) == 1.0
            bench.model_path.write_bytes(a_sealed_model(Recipe(features=2, version="2")))
        if bench.committed() == {0: 250}:
            bench.worker.stop()

    bench.faults.on_step = swap
    bench.worker.run()
    assert held(bench) == 0.0
    assert bench.health.held is None
    assert [score.model.version for score in bench.scores()] == ["2"] * 250
    assert bench.log.topics["dead-letters"].records() == []


def test_a_new_model_that_does_not_fit_either_holds_again(tmp_path, caplog):
    bench = a_flooded(tmp_path)

    def swap(step: str) -> None:
        if step == "keep alive" and bench.faults.steps.count("keep alive") == 5:
            bench.model_path.write_bytes(a_sealed_model(Recipe(version="2")))
        if bench.faults.steps.count("keep alive") == 60:
            bench.worker.stop()

    bench.faults.on_step = swap
    bench.worker.run()
    assert held(bench) == 1.0
    assert [m for m in caplog.messages if "Holding: " in m][1:]
    assert "stand-in 2" in (bench.health.held or "")
    assert bench.log.topics["dead-letters"].records() == []
    assert bench.committed() == {0: 100}


def test_without_a_breaker_rubbish_becomes_dead_letters(tmp_path):
    bench = Bench(tmp_path, breaks=False)
    bench.put(*[b"rubbish"] * 300)
    bench.run_until("committed", 3)
    assert len(bench.log.topics["dead-letters"].records()) == 300
    assert bench.committed() == {0: 300}


def test_after_a_plain_restart_the_first_turn_is_judged_before_anything_is_written(tmp_path):
    first = a_flooded(tmp_path)
    first.run_until("keep alive", 3)
    second = Bench(tmp_path, log=first.log)
    second.run_until("keep alive", 3)
    assert second.log.topics["dead-letters"].records() == []
    assert second.committed() == {0: 100}
