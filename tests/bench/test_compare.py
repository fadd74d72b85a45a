"""The benchmark's self-check: that it measures what it says, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from confluent_kafka import Message
from msgspec.structs import replace

from bench import compare
from bench.check import check_copies, check_outputs
from bench.contender import Clock, ContenderFailed, Spent
from bench.contenders.entries import ENTRIES, QUICK, QUICK_PACED
from bench.contenders.environments import FRAMEWORKS
from bench.contenders.records import Scorer
from bench.course import Sealed
from bench.findings import Findings, Run
from bench.latency import P50, P99, RATE_PER_S, Latency, Quantiles, Seen, latencies
from bench.load import Kind, all_messages, event_id, headers, planned
from bench.model import sealed_model
from bench.pace import Sent
from bench.plot import plot
from bench.report import table
from schemas.score import decode_score, encode_score

ROOT = Path(__file__).resolve().parents[2]
SPENT = Spent(1.0, 0.9, 0.9, 0.05)
QUANTILES = Quantiles(1.0, 5.0, 20.0, 30.0)


def output(row, *, timestamp_ms=1, kind="json"):
    """An output of the event of this row, its value left empty."""
    return Message(
        key=event_id(row).encode(), timestamp=(2, timestamp_ms), headers=headers(kind, row)
    )


def a_run(contender, repeat, events_per_s, cpu_us=5.0):
    return Run(contender, repeat, 20_000, events_per_s, cpu_us, 100.0, SPENT)


def a_latency(contender, repeat=0, times=1.0):
    read = Quantiles(1.0 * times, 5.0 * times, 20.0 * times, 30.0 * times)
    return Latency(contender, repeat, 100, 2000.0, QUANTILES, read, SPENT)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU and cores are read from Linux's /proc")
def test_a_quick_run_checks_every_output_and_prints_the_ratios(tmp_path):
    """No failures: all outputs, scores and offsets of every contender were found right."""
    written = tmp_path / "compare.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.compare", "--quick", "--json", str(written)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "odradek-worker / textbook loop: " in done.stdout
    found = json.loads(written.read_text())
    assert found["failures"] == {}
    assert {run["contender"] for run in found["runs"]} == set(QUICK)
    assert {one["contender"] for one in found["latencies"]} == set(QUICK_PACED)
    assert all(one["events"] == 2 * RATE_PER_S for one in found["latencies"])
    assert {(ratio["of"], ratio["to"]) for ratio in found["ratios"]} >= {
        ("worker", "textbook"),
        ("worker", "raw"),
        ("exactly-once", "worker"),
    }
    assert str(ROOT) not in written.read_text()
    assert "<svg" in written.with_suffix(".svg").read_text()


def test_a_missing_a_double_and_an_unknown_output_are_each_refused():
    load = planned("events", 3)
    copies = [copy_of("json", row) for row in range(3)]
    for outputs, complaint in (
        (copies[:2], "no output"),
        ([*copies[:2], copies[1]], "twice"),
        ([*copies[:2], output(7)], "unknown"),
        ([*copies[:2], output(2)], "event 2 was not written back as it was"),
    ):
        with pytest.raises(ContenderFailed, match=complaint):
            check_copies(outputs, load)
    check_copies([copies[2], copies[0], copies[1]], load)


def copy_of(kind: Kind, row: int) -> Message:
    """What raw forward makes of an event."""
    sent = [*all_messages(kind, row + 1)][row]
    return Message(
        key=sent["key"], value=sent["value"], headers=sent["headers"] or [], timestamp=(2, 1)
    )


def test_an_output_that_lost_its_trace_headers_is_refused():
    load = planned("events", 2, "traced")
    carried = [copy_of("traced", row) for row in range(2)]
    check_copies(carried, load)
    for swapped in ([carried[0], copy_of("json", 1)], [copy_of("json", 0), carried[1]]):
        with pytest.raises(ContenderFailed, match="headers"):
            check_copies(swapped, load)


def test_a_score_that_is_wrong_in_its_fourth_digit_is_refused(tmp_path, monkeypatch):
    """And the records of the contenders that batch, which one module makes, are right."""
    sealed = Sealed(tmp_path / "bench.onnx")
    sealed.path.write_bytes(sealed_model())
    monkeypatch.setenv("ODRADEK_MODEL", str(sealed.path))
    load = planned("events", 500)
    events = [message["value"] for message in all_messages("json", 500)]
    values = Scorer("events").records(events, [(0, row) for row in range(500)])
    outputs = [
        Message(key=event_id(row).encode(), value=value, timestamp=(2, 1))
        for row, value in enumerate(values)
    ]
    wanted = sealed.answers(load.features)
    check_outputs(outputs, load, sealed.contract, sealed.digest, wanted)
    assert {decode_score(value).verdict for value in values} == {"normal", "anomalous"}
    with pytest.raises(ContenderFailed, match="event 3 is no score record"):
        check_outputs([*outputs[:3], output(3)], load, sealed.contract, sealed.digest, wanted)
    with pytest.raises(ContenderFailed, match="event 0 is wrong"):
        check_outputs(outputs, load, sealed.contract, "0" * 64, wanted)
    wanted.scores[77] *= 1.0003
    with pytest.raises(ContenderFailed, match="event 77 scores"):
        check_outputs(outputs, load, sealed.contract, sealed.digest, wanted)


@pytest.mark.parametrize("change", ["name", "value", "expected", "share", "order"])
def test_a_top_feature_that_is_wrong_in_one_figure_is_refused(tmp_path, monkeypatch, change):
    """Any of them, not the first only."""
    sealed = Sealed(tmp_path / "bench.onnx")
    sealed.path.write_bytes(sealed_model())
    monkeypatch.setenv("ODRADEK_MODEL", str(sealed.path))
    load = planned("events", 500)
    events = [message["value"] for message in all_messages("json", 500)]
    values = Scorer("events").records(events, [(0, row) for row in range(500)])
    row = next(row for row, value in enumerate(values) if decode_score(value).top_features)
    record = decode_score(values[row])
    last = record.top_features[4]
    wrong = {
        "name": replace(last, name="x0" if last.name != "x0" else "x1"),
        "value": replace(last, value=last.value + 0.01),
        "expected": replace(last, expected=last.expected + 0.01),
        "share": replace(last, share=last.share + 0.001),
        "order": record.top_features[0],
    }[change]
    values[row] = encode_score(replace(record, top_features=[*record.top_features[:4], wrong]))
    outputs = [
        Message(key=event_id(row).encode(), value=value, timestamp=(2, 1))
        for row, value in enumerate(values)
    ]
    wanted = sealed.answers(load.features)
    with pytest.raises(ContenderFailed, match=f"top features of event {row} are wrong"):
        check_outputs(outputs, load, sealed.contract, sealed.digest, wanted)


def test_the_cpu_of_another_process_is_read_finer_than_a_tick():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        # On a busy machine it may be long before it has run at all.
        deadline = time.monotonic() + 30
        used_s = 0.0
        while used_s * 100 % 1 <= 1e-6 and time.monotonic() < deadline:
            used_s = Clock.read(process.pid, None).process_s
    finally:
        process.communicate(b"\n")
    assert used_s * 100 % 1 > 1e-6
    assert 0 < used_s < 5


def test_latency_is_from_each_events_own_moment_to_its_own_reading():
    """Outputs come in another order; the first event is not counted."""
    ms = 1_000_000
    sent = Sent(np.array([0, 10, 20]) * ms, np.array([9, 10, 22]) * ms)
    messages = [output(row) for row in (2, 0, 1)]
    read, late, counted = latencies(
        Seen(messages, np.array([23, 95, 15]) * ms), sent, settle_events=1
    )
    assert counted == 2
    assert (read.p50, read.highest) == (4.0, 5.0)
    assert (late.p50, late.highest) == (1.0, 2.0)


def test_a_ratio_is_the_median_of_the_ratios_within_each_repeat():
    found = Findings(20_000, 3)
    for repeat, (ours, theirs) in enumerate(((100.0, 10.0), (300.0, 20.0), (60.0, 30.0))):
        found.runs += [a_run("worker", repeat, ours), a_run("textbook", repeat, theirs)]
    ratio = found.by_rate("worker", "textbook")
    assert (ratio.median, ratio.lowest, ratio.highest) == (10.0, 2.0, 15.0)


def test_latencies_are_compared_within_each_repeat_and_it_is_said_who_is_ahead():
    found = Findings(20_000, 1)
    for repeat, (ours, raw) in enumerate(((2.0, 1.0), (6.0, 2.0), (2.0, 2.0))):
        found.latencies += [a_latency("worker", repeat, ours), a_latency("raw", repeat, raw)]
    found.latencies += [a_latency("hand-batch", times=1.5), a_latency("quix", times=9.0)]
    ratio = found.by_latency("worker", "raw", P99)
    assert (ratio.median, ratio.lowest, ratio.highest) == (2.0, 1.0, 3.0)
    assert found.ahead(P50) == ["hand-batch"]
    assert "Ahead of the worker at p99: hand-written batch loop." in table(found)


def test_the_best_framework_is_one_that_commits():
    found = Findings(20_000, 1)
    found.runs += [a_run("bytewax", 0, 40_000.0), a_run("quix", 0, 30_000.0)]
    found.runs += [a_run("hand-batch", 0, 70_000.0), a_run("worker", 0, 150_000.0)]
    assert found.best_framework() == "quix"
    assert ("worker", "quix") in found.compared()


def test_a_contender_that_fails_is_named_with_its_reason_and_the_others_are_shown():
    found = Findings(20_000, 1, [a_run("worker", 0, 1e5)], failures={"quix": "no network\nlog"})
    shown = table(found)
    assert "Quix Streams FAILED: no network" in shown
    assert "odradek-worker" in shown


def test_the_picture_holds_every_contender_and_its_latency():
    found = Findings(20_000, 1)
    for place, entry in enumerate(ENTRIES):
        found.runs.append(a_run(entry.key, 0, 1000.0 * (place + 1)))
        found.latencies.append(a_latency(entry.key))
    drawing = ElementTree.fromstring(plot(found))  # noqa: S314  # Our own.
    texts = {element.text for element in drawing.iter() if element.tag.endswith("text")}
    assert {entry.name for entry in ENTRIES} <= texts
    assert len([e for e in drawing.iter() if e.tag.endswith("circle")]) == 2 * len(ENTRIES)


def test_a_contender_that_does_not_exist_is_refused_with_the_names_of_those_that_do(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--only", "quicks"])
    assert "no contender quicks; there are faust, faststream, arroyo" in capsys.readouterr().err


def test_every_framework_has_an_environment_with_pinned_versions():
    assert {entry.environment for entry in ENTRIES if entry.framework} == set(FRAMEWORKS)
    assert all("==" in pin for pins in FRAMEWORKS.values() for pin in pins)
