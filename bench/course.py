"""One run of one contender: fresh topic and group, measured, and all that it wrote checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
from confluent_kafka import Message

from bench import model
from bench.check import Reader, Stamps, check_copies, check_outputs
from bench.contender import (
    FRAMEWORK_TOLD_AGAIN_S,
    STOP_TIMEOUT_S,
    Contender,
    ContenderFailed,
    Cores,
    stage_cpu_seconds,
)
from bench.contenders.entries import Entry, ModelName
from bench.contenders.environments import interpreter
from bench.findings import Run
from bench.latency import (
    RATE_PER_S,
    Latency,
    Listener,
    finished,
    latencies,
)
from bench.load import TOPIC, Kind, Load, fill, planned
from bench.model import Answers
from bench.pace import Sent, command
from demo.broker import Broker, free_port
from demo.process import start_child
from schemas.calibration import Floats
from schemas.contract import CONTRACT_KEY, Contract
from schemas.digest import verified_digest

OUTPUT_TOPIC = {"message.timestamp.type": "LogAppendTime", "file.delete.delay.ms": "1000"}
DEAD_LETTERS = "dead-letters"
# What contenders with a batch wait of their own are told: long enough for full batches in a rate
# run, short in a latency run. The worker has one setting for both.
RATE_BATCH_WAIT_S, LATENCY_BATCH_WAIT_S = "0.1", "0.005"


@dataclass(frozen=True)
class Sealed:
    """A sealed model's file, and by onnxruntime alone what is right."""

    path: Path

    @cached_property
    def contract(self) -> Contract:
        session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        return Contract.from_json(session.get_modelmeta().custom_metadata_map[CONTRACT_KEY])

    @property
    def digest(self) -> str:
        return verified_digest(self.path.read_bytes())

    def answers(self, features: Floats) -> Answers:
        """Return what is right for every row, 1,000 rows at a time."""
        answer = model.answerer(self.path.read_bytes())
        blocks = [answer(features[at : at + 1000]) for at in range(0, len(features), 1000)]
        return Answers(*map(np.concatenate, zip(*blocks, strict=True)))


class Course:
    """What all runs have in common, and each by itself."""

    def __init__(
        self,
        broker: Broker,
        models: Mapping[ModelName, Path],
        cores: Cores,
        say: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._models = {name: Sealed(path) for name, path in models.items()}
        self._cores = cores
        self._say = say
        self._reader = Reader(broker.bootstrap_servers)
        self._loads: dict[tuple[Kind, int], Load] = {}
        self._wanted: dict[tuple[str, int], Answers] = {}
        broker.create_topics({DEAD_LETTERS: 1})

    def close(self) -> None:
        self._reader.close()

    def load(self, kind: Kind, events: int) -> Load:
        """Return the topic of so many events, written now if there is none."""
        if (kind, events) not in self._loads:
            topic = f"events-{kind}-{events}"
            self._say(f"Writing {events:,} events ({kind}).")
            self._broker.create_topics({topic: 1}, TOPIC)
            self._loads[kind, events] = fill(self._broker.bootstrap_servers, topic, events, kind)
        return self._loads[kind, events]

    def rate(self, entry: Entry, events: int, repeat: int) -> Run:
        """Let a contender drain a topic of `events` events.

        Raises:
            ContenderFailed: it did not do all of the work, or not right.
            EnvironmentUnavailable: it has no environment to run in.
        """
        load = self.load(entry.kind, events)
        place = f"{entry.key}-{repeat}"
        port = free_port()
        with self._started(entry, load.topic, place, port, RATE_BATCH_WAIT_S) as contender:
            if entry.transactional:
                self._reader.wait_until_committed(contender, place, load.topic, events)
            else:
                self._reader.wait_until_drained(contender, place, events)
            spent, peak_mib = contender.spent(), contender.peak_mib()
            stages = self._stages(port) if entry.ours else {}
            _stop(contender, entry)
        self._check_offsets(entry, place, load)
        stamps = self._check(entry, load, self._reader.records(place, events))
        self._reader.delete(place)
        return Run(
            entry.key,
            repeat,
            events,
            stamps.events_per_s(),
            spent.cpu_s / events * 1e6,
            peak_mib,
            spent,
            {stage: seconds / events * 1e6 for stage, seconds in stages.items()},
        )

    def latency(self, entry: Entry, repeat: int, seconds: int, settle_seconds: int) -> Latency:
        """Send a contender events at a steady rate, and time its outputs.

        Raises:
            ContenderFailed, EnvironmentUnavailable: as `rate`.
        """
        topic, place = f"paced-{entry.key}-{repeat}", f"{entry.key}-paced-{repeat}"
        count = RATE_PER_S * seconds
        load = planned(topic, count, entry.kind)
        self._broker.create_topics({topic: 1}, TOPIC)
        servers = self._broker.bootstrap_servers
        stamps = self._models["bench"].path.with_name(f"{topic}.npz")
        pacing = command(servers, topic, entry.kind, count, RATE_PER_S, stamps)
        with self._started(entry, topic, place, free_port(), LATENCY_BATCH_WAIT_S) as contender:
            listener = Listener(servers, place)
            pacer = start_child(pacing)
            try:
                seen = listener.listen(count, seconds, contender.raise_if_ended)
                spent = contender.spent()
                sent = finished(pacer, RATE_PER_S, lambda: Sent.read(stamps))
            finally:
                pacer.kill()
                pacer.wait()
                listener.close()
            _stop(contender, entry)
        self._check_offsets(entry, place, load)
        self._check(entry, load, seen.messages)
        for used in (topic, place):
            self._reader.delete(used)
        read, late, counted = latencies(seen, sent, RATE_PER_S * settle_seconds)
        return Latency(entry.key, repeat, counted, sent.rate_per_s, late, read, spent)

    def _started(
        self, entry: Entry, input_topic: str, place: str, port: int, batch_wait_s: str
    ) -> Contender:
        """Start a contender with a new group and output topic, and wait until it has joined."""
        self._broker.create_topics({place: 1}, OUTPUT_TOPIC)
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self._broker.bootstrap_servers,
            "ODRADEK_MODEL": str(self._models[entry.model].path),
            "ODRADEK_INPUT_TOPIC": input_topic,
            "ODRADEK_OUTPUT_TOPIC": place,
            "ODRADEK_DEAD_LETTER_TOPIC": DEAD_LETTERS,
            "ODRADEK_GROUP": place,
            "ODRADEK_PROVIDER": "cpu",
            "ODRADEK_HTTP_PORT": str(port),
            "BENCH_BATCH_WAIT_S": batch_wait_s,
            **entry.settings,
        }
        if entry.environment is None:
            contender = Contender(entry.module, settings, self._cores)
        else:
            python = interpreter(entry.environment, self._say)
            contender = Contender(entry.module, settings, self._cores, python)
        try:
            contender.wait_until_joined()
        except BaseException:
            contender.__exit__()
            raise
        return contender

    def _check(self, entry: Entry, load: Load, outputs: Iterable[Message]) -> Stamps:
        sealed = self._models[entry.model]
        if not entry.scores:
            return check_copies(outputs, load)
        wanted = self._wanted.get((entry.model, len(load)))
        if wanted is None:
            wanted = sealed.answers(load.features)
            self._wanted[entry.model, len(load)] = wanted
        return check_outputs(outputs, load, sealed.contract, sealed.digest, wanted)

    def _check_offsets(self, entry: Entry, group: str, load: Load) -> None:
        committed = self._reader.committed(group, load.topic)
        if entry.commits and committed != len(load):
            raise ContenderFailed(f"it committed offset {committed:,}; wanted {len(load):,}")
        if not entry.commits and committed >= 0:
            raise ContenderFailed(f"it is said not to commit, and committed {committed:,}")
        if dead := self._reader.end(DEAD_LETTERS):
            raise ContenderFailed(f"there are {dead:,} dead letters; the events are all good")

    def _stages(self, port: int) -> dict[str, float]:
        try:
            return stage_cpu_seconds(port)
        except OSError as error:
            self._say(f"The worker's /metrics did not answer ({error}); its stages are not shown.")
            return {}


def _stop(contender: Contender, entry: Entry) -> None:
    again_s = FRAMEWORK_TOLD_AGAIN_S if entry.framework else STOP_TIMEOUT_S
    contender.stop(entry.exit_status, again_s)
