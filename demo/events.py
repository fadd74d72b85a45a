"""The demonstration's events: simulated proton collisions, ordinary ones and three rare kinds.

`lhc57.npz` holds, per collision, 19 objects (missing energy, 4 electrons, 4 muons, 10 jets) with
transverse momentum, pseudorapidity and azimuth each; 0 where there is no such object. Ordinary
collisions train the model; the ones that are streamed were never seen in training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.calibration import Floats
from schemas.event import EventLayout
from schemas.write_event import encode_event

SHIPPED = Path(__file__).parent / "lhc57.npz"
TRAINED_SHARE = 0.8
NORMAL = "ordinary"
ANOMALIES = {
    "a4l": "A -> 4 leptons",
    "lq": "leptoquark",
    "h0tt": "h0 -> tau tau",
}
_OBJECTS = (
    "met",
    *(f"electron{n}" for n in range(1, 5)),
    *(f"muon{n}" for n in range(1, 5)),
    *(f"jet{n}" for n in range(1, 11)),
)
FEATURES = tuple(f"{thing}_{what}" for thing in _OBJECTS for what in ("pt", "eta", "phi"))

# What goes wrong on real topics; every one must come out as a dead letter with its own reason.
RUBBISH_VALUES: tuple[bytes | None, ...] = (
    b"GET / HTTP/1.1",
    b"\xff\xfe\x00 not text",
    b'["an", "array"]',
    b'{"event_id": "r", "features": [1, 2, 3]}',
    b'{"event_id": "r", "features": "none"}',
    b'{"event_id": "r"}',
    b'{"event_id": "r", "features": {"met_pt": "12.5"}}',
    b'{"event_id": "r", "features": {"met_pt": true}}',
    b'{"event_id": "r", "features": {"met_pt": NaN}}',
    b'{"event_id": "r", "features": {"met_pt": 1e300}}',
    b'{"event_id": "r", "timestamp": "yesterday", "features": {"met_pt": 1}}',
    b'{"event_id": "r", "features": {"met_pt": 1',
    None,
)
RUBBISH = 3 * len(RUBBISH_VALUES)  # Every kind a few times over.


@dataclass(frozen=True)
class Shipped:
    """The shipped collisions, float32 [n, 57] each, by what becomes of them."""

    train: Floats
    stream: dict[str, Floats]  # By kind: `ordinary`, and the keys of `ANOMALIES`.


@dataclass(frozen=True)
class Planned:
    """One record to be sent: what it is, its id, and its features or its raw bytes.

    `name` is a kind and a number, the same each time that a collision is played.
    """

    name: str
    event_id: str
    features: list[float] | None
    raw: bytes | None = None

    def value(self, timestamp_ms: int) -> bytes | None:
        """Return the record's value as of this time."""
        if self.features is None:
            return self.raw
        return encode_event(
            EventLayout(),
            (),
            event_id=self.event_id,
            timestamp_ms=timestamp_ms,
            features=self.features,
        )


def load() -> Shipped:
    """Read the shipped collisions and set those to be streamed apart from those that train."""
    with np.load(SHIPPED) as arrays:
        kinds = {
            name: arrays[name].reshape(len(arrays[name]), -1).astype(np.float32)
            for name in ("background", *ANOMALIES)
        }
    ordinary = kinds.pop("background")
    order = np.random.default_rng(0).permutation(len(ordinary))
    trained = int(TRAINED_SHARE * len(ordinary))
    return Shipped(ordinary[order[:trained]], {NORMAL: ordinary[order[trained:]], **kinds})


def plan(shipped: Shipped, events: int, rubbish: int, seed: int) -> Iterator[Planned]:
    """Yield `events` collisions, anomalies once each and ordinary ones over and over, mixed with
    `rubbish` records that are no events."""
    random_ = random.Random(seed)
    anomalies = [(kind, row) for kind in ANOMALIES for row in range(len(shipped.stream[kind]))]
    anomalies = random_.sample(anomalies, min(len(anomalies), events // 8))
    ordinary = len(shipped.stream[NORMAL])
    drawn = [(NORMAL, n % ordinary) for n in range(events - len(anomalies))] + anomalies
    mixed: list[tuple[str, int]] = drawn + [("rubbish", n) for n in range(rubbish)]
    random_.shuffle(mixed)
    for number, (kind, row) in enumerate(mixed):
        name = f"{kind}-{row:05d}"
        event_id = f"{name}-{number:06d}"
        if kind == "rubbish":
            yield Planned(name, event_id, None, RUBBISH_VALUES[row % len(RUBBISH_VALUES)])
        else:
            yield Planned(name, event_id, shipped.stream[kind][row].tolist())


def kind_of(name: str) -> str:
    """Return the kind that a name, or an event's id, begins with."""
    return name.partition("-")[0]


def write_training_file(shipped: Shipped, path: Path) -> None:
    """Write the training collisions as the trainer reads them."""
    np.savez_compressed(path, X=shipped.train, feature_names=np.array(FEATURES))


def write_labelled_file(shipped: Shipped, path: Path) -> None:
    """Write the collisions that are streamed, with labels, for `odradek-trainer evaluate`."""
    rows = np.concatenate(list(shipped.stream.values()))
    labels = np.concatenate(
        [np.full(len(rows), kind != NORMAL) for kind, rows in shipped.stream.items()]
    )
    np.savez_compressed(path, X=rows, y=labels, feature_names=np.array(FEATURES))


def write_sample(shipped: Shipped, path: Path, each: int = 3) -> None:
    """Write a few events of every kind as JSON lines, by name, for those who look inside."""
    lines = (
        json.dumps(
            {
                "event_id": f"{kind}-{row}",
                "timestamp": 0,
                "features": dict(zip(FEATURES, features.tolist(), strict=True)),
            }
        )
        for kind, rows in shipped.stream.items()
        for row, features in enumerate(rows[:each])
    )
    path.write_text("".join(f"{line}\n" for line in lines))
