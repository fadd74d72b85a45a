"""The benchmark of starts: that it measures what it says, not how fast this machine is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.startup import PHASES, TARGET_S, TOPICS, Starter, phases, resident_kib, rest
from demo.broker import Broker
from tests.components import or_skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's /proc")
START = dict.fromkeys(PHASES, 0.1)


def test_a_start_is_followed_through_its_phases_to_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("ODRADEK_DELIVERY", "no such thing")  # The user's own; no part of this.
    with or_skip(Broker) as broker:
        broker.create_topics(TOPICS)
        starter = Starter(broker, tmp_path)
        worker = starter.worker()
        try:
            start = starter.start(worker)
            assert worker.pid is not None
            at_rest = rest(worker.pid, 0.2, 0.5)
        finally:
            worker.kill()
    assert tuple(start) == PHASES
    parts = [start[phase] for phase in ("imports", "settings", "model", "topics", "join")]
    assert sum(parts) == pytest.approx(start["ready"])
    assert start["imports"] > 0
    assert start["join"] > 0
    assert 20 < at_rest.memory_mib < 1000
    assert 0 <= at_rest.cpu_share < 1


@pytest.mark.parametrize(("ready_s", "said"), [(TARGET_S - 0.5, "met"), (TARGET_S, "missed")])
def test_the_median_start_is_held_to_the_target(ready_s, said):
    starts = [{**START, "ready": ready_s}, {**START, "ready": ready_s}, {**START, "ready": 99.0}]
    assert phases(starts).endswith(f"wanted less than {TARGET_S:g} s: {said}.")
    assert "at most 99.000 s" in phases(starts)


def test_resident_memory_is_that_of_the_process():
    # Its own process: this one may serve the block from memory that it never gave back.
    program = (
        "print('started', flush=True); input(); "
        "held = bytearray(b'x') * (64 * 2**20); print(len(held), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        before = resident_kib(child.pid)
        print(file=child.stdin, flush=True)
        held = int(child.stdout.readline())
        grown = resident_kib(child.pid) - before
        print(file=child.stdin, flush=True)
    assert grown == pytest.approx(held / 1024, rel=0.1)
