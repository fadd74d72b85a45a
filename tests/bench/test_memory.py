"""The benchmark of memory: the line and the verdict, and that a short run ends with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.memory import Line, Watched, verdict

ROOT = Path(__file__).resolve().parents[2]


def watched(kib: list[int], done: int = 100) -> Watched:
    return Watched([5.0 * at for at in range(len(kib))], kib, 100, {"normal": done})


def test_the_line_finds_a_leak_below_the_noise_of_a_single_sample():
    rng = np.random.default_rng(2)
    seconds = 5.0 * np.arange(600)
    kib = 100_000 + 30 * seconds / 60 + rng.normal(scale=500, size=600)
    line = Line.through(seconds, kib)
    assert abs(line.slope_kib_per_min - 30) < line.half_width < 5
    assert line.minutes == pytest.approx(599 * 5 / 60)
    assert line.growth_mib == pytest.approx(30 * line.minutes / 1024, rel=0.2)
    assert line.first_kib == pytest.approx(100_000, abs=300)


def test_the_interval_holds_the_true_slope_as_often_as_it_says():
    rng = np.random.default_rng(3)
    seconds = 5.0 * np.arange(60)
    lines = [Line.through(seconds, 7 * seconds / 60 + rng.normal(size=60)) for _ in range(2000)]
    holds = [abs(line.slope_kib_per_min - 7) <= line.half_width for line in lines]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("slope", "good"), [(0, True), (1, True), (300, False), (-300, True)])
def test_growth_beyond_the_bound_is_no_good_verdict(slope, good):
    kib = [100_000 + slope * place for place in range(100)]
    line = Line.through([5.0 * place for place in range(100)], kib)
    said, was_good = verdict(watched(kib), line, bound_mib=8)
    assert was_good == good
    assert said.startswith("No growth within 8 MiB" if good else "Growth beyond 8 MiB")


@pytest.mark.parametrize("done", [99, 101])
def test_there_is_no_verdict_where_not_every_record_was_done_once(done):
    kib = [100_000] * 100
    line = Line.through([5.0 * place for place in range(100)], kib)
    said, good = verdict(watched(kib, done), line, bound_mib=8)
    assert not good
    assert f"{done} of 100 records" in said


@pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's /proc")
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_short_run_does_every_record_and_says_what_grew(tmp_path, delivery):
    """What a worker takes in its first seconds grows; the bound here is for that."""
    written = tmp_path / "memory.json"
    flags = ["--minutes", "0.1", "--sample-s", "0.5", "--rate", "2000", "--bound-mib", "1000"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", *flags, "--delivery", delivery, "--json", written],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 3 and not os.environ.get("CI"):
        pytest.skip(f"no Kafka here: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "KiB/min" in done.stdout
    assert "No growth within 1000 MiB" in done.stdout
    seen = json.loads(written.read_text())
    assert sum(seen["outcomes"].values()) == seen["sent"] > 10_000
    for outcome in ("normal", "anomalous", "dead_letter"):
        assert seen["outcomes"][outcome] > 50
