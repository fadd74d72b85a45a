"""The contenders of `bench.compare`: what each is, reads, and promises.

They run in this order and, every other repeat, in the reverse: those whose ratio has a bar are
neighbours. `share` is how many times the events a contender drains in a rate run: a slow one has a
shorter topic, so that one repeat of everything stays within two minutes; raw forward a longer one,
since half a second is too short to time.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.load import Kind

ModelName = Literal["bench", "default", "default-heavy"]
WORKER = ("worker", "run")


@dataclass(frozen=True)
class Entry:
    """One contender. `caveats` say what it does not do that the worker does."""

    key: str
    name: str
    module: tuple[str, ...]  # And its arguments.
    environment: str | None = None  # None: that of this project.
    kind: Kind = "json"
    model: ModelName = "bench"
    settings: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    scores: bool = True  # Or it writes back what it read.
    commits: bool = True
    transactional: bool = False
    latency_bar: bool = False  # Then its latency is measured three times.
    exit_status: int = 0  # When SIGTERM tells it to stop.
    caveats: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is the worker's `run`, in whatever form: then its failure is ours too."""
        return "run" in self.module

    @property
    def framework(self) -> bool:
        return self.environment is not None


def _contender(name: str) -> tuple[str, ...]:
    return (f"bench.contenders.{name}",)


_NO_CHECK = "does not check deliveries"

RAW = Entry(
    "raw", "raw forward", _contender("raw_forward"), share=3.0, scores=False, latency_bar=True
)
ENTRIES: tuple[Entry, ...] = (
    Entry("faust", "Faust", _contender("faust_agent"), "faust", share=0.1),
    Entry("faststream", "FastStream", _contender("faststream_app"), "faststream", share=0.25),
    Entry("arroyo", "sentry-arroyo", _contender("arroyo_strategy"), "arroyo", share=0.25),
    Entry(
        "bytewax",
        "Bytewax",
        _contender("bytewax_flow"),
        "bytewax",
        share=0.5,
        commits=False,
        latency_bar=True,
        exit_status=-signal.SIGTERM,  # It has no handler.
        caveats=("commits no offsets to Kafka", _NO_CHECK),
    ),
    Entry("quix", "Quix Streams", _contender("quix"), "quix", share=0.5),
    Entry("textbook", "textbook loop", _contender("textbook"), share=0.25, caveats=(_NO_CHECK,)),
    Entry(
        "hand-batch",
        "hand-written batch loop",
        _contender("hand_batch"),
        latency_bar=True,
        caveats=(_NO_CHECK,),
    ),
    RAW,
    Entry("worker", "odradek-worker", WORKER, latency_bar=True),
    Entry(
        "exactly-once",
        "odradek-worker, exactly once",
        (*WORKER, "--delivery", "exactly-once"),
        transactional=True,
        latency_bar=True,
    ),
    Entry("pure", "odradek-worker, no scanner", (*_contender("pure_worker"), "run")),
    Entry("traced", "odradek-worker, trace headers", WORKER, kind="traced"),
    Entry("default-model", "odradek-worker, default model", WORKER, model="default"),
    Entry("default-heavy", "odradek-worker, default, tails", WORKER, model="default-heavy"),
    Entry(
        "packed",
        "odradek-worker, packed events",
        WORKER,
        kind="packed",
        latency_bar=True,
        settings={"ODRADEK_INPUT_FORMAT": "packed"},
    ),
    Entry(
        "raw-packed",
        "raw forward of packed events",
        _contender("raw_forward"),
        kind="packed",
        share=3.0,
        scores=False,
        latency_bar=True,
    ),
)
BY_KEY = {entry.key: entry for entry in ENTRIES}
# For a self-check: each kind of run, and who is timed at a steady rate too.
QUICK_PACED = ("worker", "exactly-once")
QUICK = ("textbook", "hand-batch", "raw", "worker", "exactly-once", "pure", "traced", "packed")


def chosen(only: Sequence[str], without: Sequence[str], *, quick: bool) -> list[Entry]:
    """Return the contenders to run, in the order of the list.

    Raises:
        ValueError: there is no contender of such a name.
    """
    if unknown := [key for key in (*only, *without) if key not in BY_KEY]:
        raise ValueError(f"no contender {', '.join(unknown)}; there are {', '.join(BY_KEY)}")
    wanted = only or (QUICK if quick else list(BY_KEY))
    return [entry for entry in ENTRIES if entry.key in wanted and entry.key not in without]
