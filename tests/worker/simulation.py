"""A world for workers: a memory log, several workers in one group, and everything that goes wrong.

Each worker's own `run` has a thread, but only the one with the baton moves: it gets the baton from
`Simulation` and gives it back at the next step of its source or sink. So one seed is one history,
and any step can be followed by another worker's, a rebalance, a crash or a signal.

What must hold is checked as it happens and at the end, and collected in `violations`.
"""

from __future__ import annotations

import functools
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from schemas.errors import OutsideError, SettingsError
from schemas.score import decode_score
from tests.builders import Recipe, a_sealed_model, an_event
from tests.memory_clients import MemorySink, MemorySource, MemoryTransactions
from tests.memory_log import Clock, Commit, Crash, Faults, MemoryLog, Position, Stored
from worker.breaker import Breaker
from worker.delivery import AtLeastOnce, ExactlyOnce
from worker.health import Health
from worker.hold import Holds
from worker.metrics import Metrics
from worker.model import Model, ModelOptions, open_model
from worker.model_slot import ModelSlot
from worker.scoring import scoring
from worker.service import Clocks, Worker
from worker.turn import Outputs, Records, Tally, Turn

PARTITIONS = 4
RECORDS = 60
WORKERS_MAX = 3
STEPS_WITH_FAULTS = 250
STEPS_MAX = 20_000
EVENTS, SCORES, DEAD_LETTERS, GROUP = "events", "scores", "dead-letters", "workers"


@functools.cache
def _sealed(gain: float, features: int = 2) -> bytes:
    return a_sealed_model(Recipe(features=features, gain=gain, version=f"{gain:g}"))


@functools.cache
def _open(sealed: bytes) -> Model:
    """Open a model once for all simulations; it holds no state."""
    return open_model(sealed, ModelOptions("cpu", batch_max=8))


@functools.cache
def _models() -> dict[str, Model]:
    return {model.digest: model for model in (_open(_sealed(1.0)), _open(_sealed(3.0)))}


class TouchyBreaker(Breaker):
    """Opens at any turn of two records or more that are all bad; counting has tests of its own."""

    def __init__(self, happened: Counter[str]) -> None:
        super().__init__(ratio=1.0)
        self._happened = happened

    def opens_at(self, tally: Tally) -> str | None:
        good = tally.outcomes.get("normal", 0) + tally.outcomes.get("anomalous", 0)
        if good or sum(tally.outcomes.values()) < 2:
            return None
        self._happened["breaker"] += 1
        return "all of a turn"


@dataclass
class Life:
    """One process: from start to an orderly stop, an error or a crash."""

    number: int
    go: threading.Lock = field(default_factory=threading.Lock)
    back: threading.Lock = field(default_factory=threading.Lock)
    worker: Worker | None = None
    source: MemorySource | None = None
    sink: MemorySink | MemoryTransactions | None = None
    thread: threading.Thread | None = None
    doomed: bool = False
    ended: bool = False
    read: Counter[Position] = field(default_factory=Counter)
    written: Counter[Position] = field(default_factory=Counter)
    fault: BaseException | None = None
    steps: list[str] = field(default_factory=list)


class Simulation:
    """One history. `source_class`, `sink_class` and `worker_class` can be deliberately broken.

    In a `gentle` one nothing dies, and so nothing may be repeated.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        *,
        worker_class: type[Worker] = Worker,
        source_class: type[MemorySource] = MemorySource,
        sink_class: type[MemorySink | MemoryTransactions] = MemorySink,
        exactly_once: bool = False,
        gentle: bool = False,
        delivery_class: type[AtLeastOnce | ExactlyOnce] | None = None,
    ) -> None:
        self._random = random.Random(seed)
        if exactly_once and sink_class is MemorySink:
            sink_class = MemoryTransactions
        self._classes = (worker_class, source_class, sink_class)
        self._exactly_once = exactly_once
        self._gentle = gentle
        self._delivery_class = delivery_class or (ExactlyOnce if exactly_once else AtLeastOnce)
        self._model_path = folder / f"model-{seed}.onnx"
        self._clock = Clock()
        self._metrics = Metrics()  # Of all lives; a registry for each would cost more than they do.
        self._lives: list[Life] = []
        self._alive: list[Life] = []
        self._calm = False
        self.violations: list[str] = []
        self.happened: Counter[str] = Counter()
        self.log = MemoryLog()
        self.log.create_topic(EVENTS, PARTITIONS)
        self.log.create_topic(SCORES)
        self.log.create_topic(DEAD_LETTERS)
        self._group = self.log.group(GROUP, EVENTS)
        self._group.on_commit = self._on_commit

    def run(self) -> None:
        """Live through the history, then let one worker finish in peace, and check."""
        self._put_model(_sealed(1.0))
        try:
            for _ in range(RECORDS // 3):
                self._append()
            for _ in range(STEPS_WITH_FAULTS):
                self._something_happens()
            self._finish()
        finally:
            self._end_all()
        self._check_end()

    # What may happen next.

    def _something_happens(self) -> None:
        if not self._alive or (len(self._alive) < WORKERS_MAX and self._chance(0.02)):
            self._begin_life()
            if not self._alive:  # It did not start: the model file is a bad one.
                self._put_model(_sealed(1.0))
                return
        if len(self.log.topics[EVENTS].records()) < RECORDS and self._chance(0.4):
            self._append()
        life = self._random.choice(self._alive)
        if self._chance(0.02):
            self._group.balance(self._random.shuffle)
            self.happened["rebalance"] += 1
        elif self._chance(0.01) and life.worker:
            life.worker.stop()
            self.happened["stop"] += 1
        elif self._chance(0.02):
            self._swap_model()
        elif not self._gentle:
            self._something_breaks(life)
        if self.log.refusing and self._chance(0.05):
            self.log.refusing.clear()
        self._expire_dead(0.1)
        self._step(life)

    def _something_breaks(self, life: Life) -> None:
        """What may cost a repeat."""
        if self._chance(0.01) and life.source and life.source.member in self._group.members:
            self._group.expel(life.source.member)
            self.happened["expelled"] += 1
        elif self._chance(0.01):
            life.doomed = True
            self.happened["crash"] += 1
        elif self._chance(0.01):
            self.log.refusing.add(self._random.choice([SCORES, DEAD_LETTERS]))
            self.happened["refused"] += 1

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _append(self) -> None:
        number = len(self.log.topics[EVENTS].records())
        value = self._random.choice(
            [
                an_event(self._random.gauss(0, 1), self._random.gauss(0, 1), event_id=f"e{number}"),
                an_event(self._random.gauss(0, 9), None, event_id=f"e{number}"),
                an_event(self._random.gauss(0, 1), 0.5, event_id=f"e{number}"),
                an_event(None, None, event_id=f"e{number}"),
                b"rubbish",
                None,
            ]
        )
        self.log.append(
            EVENTS,
            value,
            key=b"k%d" % (number % 7),
            headers=self._random.choice([None, [("trace", b"t")]]),
            timestamp_ms=1000 + number,
            partition=self._random.randrange(PARTITIONS),
            gap=self._random.choice([0, 0, 0, 2]),
        )

    def _swap_model(self) -> None:
        sealed = self._random.choice(
            [_sealed(1.0), _sealed(3.0), _sealed(1.0)[:-9], _sealed(1.0, features=3)]
        )
        self._put_model(sealed)
        self.happened["model"] += 1

    def _put_model(self, sealed: bytes) -> None:
        unnamed = self._model_path.with_suffix(".new")
        unnamed.write_bytes(sealed)
        unnamed.replace(self._model_path)

    def _expire_dead(self, probability: float) -> None:
        """The coordinator notices, some time later, that a crashed member is gone."""
        dead = {life.source.member for life in self._lives if life.ended and life.source}
        for member in [m for m in self._group.members if m in dead]:
            if self._calm or self._chance(probability):
                self._group.expel(member)
        for life in self._lives:
            open_one = life.sink.transaction if isinstance(life.sink, MemoryTransactions) else None
            # Of a dead worker, or of one that took too long.
            if open_one and (life.ended or self._chance(0.01)):
                open_one.ended = open_one.ended or self._calm or self._chance(probability)

    def _finish(self) -> None:
        """No more faults: those alive stop in order, and a last worker reads to the end."""
        self._calm = True
        self.log.refusing.clear()
        for life in self._alive:
            if life.worker:
                life.worker.stop()
        self._step_until(lambda: not self._alive)
        self._expire_dead(1)
        self._put_model(_sealed(3.0))
        last = self._begin_life()
        events = self.log.topics[EVENTS]
        ends = {p: events.end(p) for p in range(PARTITIONS) if events.end(p)}
        self._step_until(lambda: last.ended or self._group.committed == ends)
        if last.worker:
            last.worker.stop()
        self._step_until(lambda: last.ended)

    def _step_until(self, done: Callable[[], bool]) -> None:
        for _ in range(STEPS_MAX):
            if done():
                return
            if self._alive:
                self._step(self._random.choice(self._alive))
        self.violations.append(
            f"it does not come to an end; committed {self._group.committed}, last steps "
            f"{[life.steps[-8:] for life in self._alive]}"
        )

    # Lives and the baton.

    def _begin_life(self) -> Life:
        if self._model_path.read_bytes() == _sealed(1.0, features=3):
            # To those who run it is a refused change; to one who starts it would be the model.
            self._put_model(_sealed(1.0))
        life = Life(len(self._lives))
        life.go.acquire()
        life.back.acquire()
        life.thread = threading.Thread(target=self._live, args=(life,), daemon=True)
        self._lives.append(life)
        self._alive.append(life)
        life.thread.start()
        life.back.acquire()  # Until its first step.
        self._bury(life)
        return life

    def _live(self, life: Life) -> None:
        """The thread of one worker: its process, from start to end."""
        faults = Faults(
            self._random.randrange(2**32),
            calm=self._calm,
            gentle=self._gentle,
            pause=functools.partial(self._pause, life),
        )
        worker_class, source_class, sink_class = self._classes
        batch_max = self._random.choice([1, 2, 5, 100])
        health = Health(60.0, last_beat=self._clock())
        holds = Holds(health, self._metrics)
        common = {"faults": faults, "clock": self._clock}
        # The clock is everybody's: where nothing is to be given up, time must not run out.
        limit_s = 1000.0 if self._gentle else 1.5
        source = source_class(self.log, EVENTS, GROUP, batch_max, settle_limit_s=limit_s, **common)
        sink = sink_class(self.log, SCORES, DEAD_LETTERS, holds=holds, **common)
        life.source, life.sink = source, sink
        watched = _WatchedSource(source, life, self.violations)
        watched_sink = _WatchedSink(sink, life, self.violations)
        delivery = self._delivery_class(watched, watched_sink)
        try:
            life.worker = worker_class(
                watched,
                delivery,
                ModelSlot(
                    self._model_path,
                    _open,
                    check_interval_s=0.3,
                    allow_contract_change=False,
                    on_load=lambda outcome, _: self.happened.update([f"model {outcome}"]),
                ),
                scoring(self._metrics, 1),
                self._metrics,
                health,
                holds,
                Clocks(self._clock, self._clock),
                breaker=None if self._calm else TouchyBreaker(self.happened),
                idle_wait_s=0.2,
                stop_timeout_s=limit_s,
            )
            life.worker.run()
            self.happened["orderly end"] += 1
        except Crash:
            pass
        except (OutsideError, SettingsError) as error:
            self.happened[type(error).__name__] += 1
        except BaseException as fault:  # noqa: BLE001  # Told by the main thread.
            life.fault = fault
        life.ended = True
        life.back.release()

    def _pause(self, life: Life, step: str) -> None:
        """In a life's thread: give the baton back, and go on when it comes again."""
        if life.doomed:
            raise Crash
        life.steps.append(step)
        life.back.release()
        life.go.acquire()
        if life.doomed:
            raise Crash

    def _step(self, life: Life) -> None:
        life.go.release()
        life.back.acquire()
        self._bury(life)

    def _bury(self, life: Life) -> None:
        if not life.ended:
            return
        self._alive.remove(life)
        if life.fault is not None:
            self.violations.append(f"worker {life.number} failed by its own fault: {life.fault!r}")

    def _end_all(self) -> None:
        for life in list(self._alive):
            life.doomed = True
            while not life.ended:
                life.go.release()
                life.back.acquire()
        for life in self._lives:
            if life.thread:
                life.thread.join()

    # What must hold.

    def _on_commit(self, commit: Commit) -> None:
        """Promise 2, at every commit that the broker accepts."""
        what = (
            f"member {commit.member} committed {commit.offset} of partition {commit.partition} "
            f"after {commit.before}"
        )
        if not commit.owned:
            self.violations.append(f"{what}, which it does not own")
        if commit.offset < commit.before:
            self.violations.append(f"{what}: backwards")
        passed = [
            (record.partition, record.offset)
            for record in self.log.topics[EVENTS].partitions[commit.partition]
            if record.offset < commit.offset
        ]
        if unacknowledged := [p for p in passed if p not in self.log.acknowledged]:
            self.violations.append(f"{what}: {unacknowledged} are not acknowledged")

    def _check_end(self) -> None:
        events = {(r.partition, r.offset): r for r in self.log.topics[EVENTS].records()}
        sink = MemorySink(self.log, SCORES, DEAD_LETTERS)
        outputs: dict[Position, list[tuple[str, Stored]]] = defaultdict(list)
        for topic in (SCORES, DEAD_LETTERS):
            for stored in self.log.topics[topic].records():
                position = sink.position_of(topic, stored.value, stored.headers)
                outputs[position].append((topic, stored))
        if lost := sorted(events.keys() - outputs.keys()):
            self.violations.append(f"lost: {lost}")
        if invented := sorted(outputs.keys() - events.keys()):
            self.violations.append(f"outputs of no event: {invented}")
        for position, repeats in outputs.items():
            if len({topic for topic, _ in repeats}) > 1:
                self.violations.append(f"{position} is both scored and a dead letter")
            elif position in events and repeats[0][0] == SCORES:
                self._check_scores(events[position], [stored for _, stored in repeats])
            self.happened["repeat"] += len(repeats) - 1
            if (self._exactly_once or self._gentle) and len(repeats) > 1:
                self.violations.append(f"{position} has {len(repeats)} committed outputs")

    def _check_scores(self, event: Stored, repeats: list[Stored]) -> None:
        """Promise 3: each says which model, and is what that model gives the event alone."""
        for stored in repeats:
            score = decode_score(stored.value or b"")
            model = _models()[score.model.digest]
            batch = model.decoder.decode(_alone(event))
            wanted = model.score(batch.features).scores
            seen = np.array([np.nan if score.score is None else score.score])
            if model.contract.score_tolerance.differ(wanted, seen).any():
                self.violations.append(f"{event} has score {score.score}; wanted {wanted}")
            if score.event_id != batch.event_ids[0]:
                self.violations.append(f"{event} has id {score.event_id}")


class _WatchedSource:
    """Notes what a life reads, and holds promise 1 against what it finishes."""

    def __init__(self, source: MemorySource, life: Life, violations: list[str]) -> None:
        self._source, self._life, self._violations = source, life, violations
        for name in (
            "start",
            "keep_alive",
            "still_owned",
            "rewind",
            "place_anew",
            "refused_as_unknown",
            "transaction_offsets",
            "close",
        ):
            setattr(self, name, getattr(source, name))

    def read(self, wait_s: float) -> Turn | None:
        turn = self._source.read(wait_s)
        if turn is not None:
            self._life.read = _positions(turn)
        return turn

    def commit(self, turn: Turn) -> None:
        self._check(turn)
        self._source.commit(turn)

    def done(self, turn: Turn) -> None:
        self._check(turn)
        self._source.done(turn)

    def _check(self, turn: Turn) -> None:
        if missing := _positions(turn) - self._life.written:
            self._violations.append(f"a completed turn has no output for {sorted(missing)}")


class _WatchedSink:
    """Holds promises 1 and 3 against what a life writes in one turn."""

    def __init__(
        self, sink: MemorySink | MemoryTransactions, life: Life, violations: list[str]
    ) -> None:
        self._sink, self._life, self._violations = sink, life, violations
        for name in ("settle", "commit", "abort", "idle", "close"):
            if hasattr(sink, name):
                setattr(self, name, getattr(sink, name))

    @property
    def committing(self) -> bool:
        return self._sink.committing

    def write(self, outputs: Outputs) -> None:
        positions: Counter[Position] = Counter()
        digests = set()
        for value in outputs.scores.values:
            positions[self._sink.position_of(SCORES, value, None)] += 1
            digests.add(decode_score(value or b"").model.digest.encode())
        for headers in outputs.dead_letters.headers:
            positions[self._sink.position_of(DEAD_LETTERS, None, headers)] += 1
            digests.add(dict(headers)["odradek.model_digest"])
        if several := [p for p, count in positions.items() if count > 1]:
            self._violations.append(f"several outputs in one turn for {several}")
        if strange := positions - self._life.read:
            self._violations.append(f"outputs for records that were not read: {strange}")
        if len(digests) > 1:
            self._violations.append("one turn used several models")
        self._life.written = positions
        self._sink.write(outputs)


def _positions(turn: Turn) -> Counter[Position]:
    return Counter(zip(turn.records.partitions, turn.records.offsets, strict=True))


def _alone(event: Stored) -> Records:
    return Records(
        EVENTS,
        [event.partition],
        [event.offset],
        [event.timestamp_ms],
        [event.key],
        [event.value],
        [event.headers],
    )
