"""The whole path: a CSV, the trainer, a sealed file, a worker in another process, the scores."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from demo.books import Books
from schemas.score import Score, decode_score
from tests.builders import Recipe, a_sealed_model, an_event
from tests.end_to_end.stream import Stream, running, wait_for_log

COLUMNS = ("amount", "items", "hour", "distance")


def payment(rng: random.Random) -> list[float]:
    """Ordinary payments lie near a curve in four dimensions."""
    size = rng.lognormvariate(0, 0.5)
    return [
        30 * size + rng.gauss(0, 1),
        2 * size + rng.gauss(0, 0.2),
        14 + rng.gauss(0, 3),
        5 / size + rng.gauss(0, 0.2),
    ]


def write_csv(path: Path, rows: list[list[float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *COLUMNS])
        writer.writerows([f"p-{number}", *row] for number, row in enumerate(rows))


def run_program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_model_trained_here_flags_odd_payments_on_a_topic(stream: Stream, tmp_path: Path):
    """The scores on the topic are those of `odradek-worker score` on a file of the same events."""
    rng = random.Random(1)
    ordinary = [payment(rng) for _ in range(3000)]
    odd = [[*payment(rng)[:1], 40.0, 3.0, 60.0] for _ in range(20)]
    write_csv(tmp_path / "history.csv", ordinary[:2500])
    today = ordinary[2500:] + odd
    write_csv(tmp_path / "today.csv", today)
    model = tmp_path / "payments.onnx"
    fit = run_program(
        *("trainer", "fit", tmp_path / "history.csv", "--out", model, "--id-column", "id"),
        *("--target-flag-rate", "0.01", "--set", "epochs=5", "--set", "steps_min=500"),
    )
    assert fit.returncode == 0, fit.stderr
    scored = run_program("worker", "score", model, tmp_path / "today.csv", "--id-column", "id")
    assert scored.returncode == 0, scored.stderr
    on_file = {score.event_id: score for score in map(decode_score, scored.stdout.splitlines())}
    values = [
        json.dumps(
            {"event_id": f"p-{n}", "features": dict(zip(COLUMNS, row, strict=True))}
        ).encode()
        for n, row in enumerate(today)
    ]
    on_topic: dict[str, Score] = {}

    class Kept(Books):
        def score(self, score: Score, now_ms: float) -> None:
            on_topic[score.event_id] = score
            super().score(score, now_ms)

    stream.send(values)
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(Kept(), lambda books: len(books.verdicts) == len(today))
        assert worker.stop() == 0
    assert on_topic.keys() == on_file.keys() == {f"p-{n}" for n in range(len(today))}
    for event_id, score in on_topic.items():
        assert score.score == pytest.approx(on_file[event_id].score, rel=1e-5)
        assert score.verdict == on_file[event_id].verdict
    verdicts = [on_topic[f"p-{n}"].verdict for n in range(len(today))]
    assert verdicts[500:] == ["anomalous"] * len(odd)
    assert verdicts[:500].count("anomalous") <= 25
    assert all(on_topic[f"p-{n}"].top_features for n in range(500, len(today)))


def test_a_new_model_file_goes_live_and_a_bad_one_does_not(stream: Stream, tmp_path: Path):
    model = tmp_path / "model.onnx"

    def put(sealed: bytes) -> None:
        (tmp_path / "next").write_bytes(sealed)
        (tmp_path / "next").rename(model)

    def versions(events: int) -> list[str]:
        """The versions that scored the events so far, in the order in which they were sent."""
        stream.send([an_event(1, 2, 3)])
        kept: dict[int, str] = {}

        class Kept(Books):
            def score(self, score: Score, now_ms: float) -> None:
                kept[score.source.offset] = score.model.version
                super().score(score, now_ms)

        stream.read(Kept(), lambda books: len(books.verdicts) == events)
        return [kept[offset] for offset in sorted(kept)]

    put(a_sealed_model(Recipe(version="1")))
    with running(stream.worker(model, tmp_path)) as worker:
        assert versions(1) == ["1"]
        put(a_sealed_model(Recipe(version="2", gain=2.0)))
        wait_for_log(worker, "Now scoring with stand-in 2")
        assert versions(2) == ["1", "2"]
        put(a_sealed_model(Recipe(version="3")).replace(b'"version":"3"', b'"version":"9"'))
        wait_for_log(worker, "was refused: its bytes do not match its digest")
        put(a_sealed_model(Recipe(version="4", features=4)))
        wait_for_log(worker, "was refused: its 4 features or their places differ")
        assert versions(3) == ["1", "2", "2"]
        assert worker.stop() == 0


def test_a_topic_that_does_not_exist_is_named(stream: Stream, tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_model())
    worker = stream.worker(model, tmp_path, ODRADEK_OUTPUT_TOPIC="nowhere")
    worker.start()
    assert worker.wait() == 3
    assert "has no topic 'nowhere'" in worker.log.read_text()
