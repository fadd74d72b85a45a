"""The benchmark's self-check: that it measures what it says, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = {"textbook loop", "odradek-worker", "exactly once", "raw forward"}


@pytest.mark.skipif(sys.platform != "linux", reason="CPU and cores are read from Linux's /proc")
def test_a_quick_run_checks_every_output_and_prints_the_ratio(tmp_path):
    """A run ends with 0 only if all outputs, scores and offsets of every contender were right."""
    written = tmp_path / "throughput.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.throughput", "--quick", "--json", str(written)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "odradek-worker / textbook loop: " in done.stdout
    results = json.loads(written.read_text())
    assert {run["contender"] for run in results["runs"]} == CONTENDERS
    assert results["medians"].keys() == CONTENDERS
    assert results["ratio_to_textbook"]["events_per_s"] > 0
    assert str(ROOT) not in written.read_text()
