"""A steady stream of events whose kind can be changed while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from confluent_kafka import Producer

from tests.builders import an_event

SLICE_S = 0.05

Make = Callable[[np.random.Generator], bytes]


def normal(rng: np.random.Generator) -> bytes:
    """As in calibration."""
    return event(rng.normal(size=3))


def shifted(rng: np.random.Generator) -> bytes:
    """One feature has moved."""
    return event(rng.normal(size=3) + np.array([3.0, 0.0, 0.0]))


def flat(rng: np.random.Generator) -> bytes:  # noqa: ARG001
    """Every value is the ordinary one: a source that repeats itself."""
    return event(np.zeros(3))


def of_two_features(rng: np.random.Generator) -> bytes:
    """A wrong deploy: other features than the model's."""
    return event(rng.normal(size=2))


def dirty(rng: np.random.Generator) -> bytes:
    """A fifth is no event, a fifth has no value, and a fifth comes from the future."""
    chance = rng.random()
    if chance < 0.2:
        return b"rubbish"
    if chance < 0.4:
        return an_event(None, None, None, timestamp=int(time.time() * 1000))
    return event(rng.normal(size=3), ahead_s=60.0 if chance < 0.6 else 0.0)


def event(values: np.ndarray, ahead_s: float = 0.0) -> bytes:
    return an_event(*values.tolist(), timestamp=int((time.time() + ahead_s) * 1000))


class Feed(threading.Thread):
    """Sends `rate` events a second of what `make` makes; None: nothing. Both may change."""

    def __init__(self, servers: str, topic: str, rate: float) -> None:
        super().__init__(daemon=True)
        self.make: Make | None = normal
        self.rate = rate
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 2})
        self._stopping = threading.Event()

    def run(self) -> None:
        rng = np.random.default_rng(1)
        while not self._stopping.wait(SLICE_S):
            make = self.make
            for _ in range(rng.poisson(self.rate * SLICE_S) if make else 0):
                self._producer.produce(self._topic, make(rng))
            self._producer.poll(0)

    def stop(self) -> None:
        self._stopping.set()
        self.join()
