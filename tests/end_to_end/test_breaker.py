"""A flood of rubbish holds a real worker: nothing of it moves until somebody has looked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from demo.books import Books
from demo.worker_process import WorkerProcess
from tests.builders import Recipe, a_sealed_model, an_event
from tests.end_to_end.stream import WAIT_S, Stream, ask, ends, running, wait_for_log

RUBBISH = 3000


def wait_until_held(worker: WorkerProcess) -> str:
    """Return what /readyz says then."""
    wait_for_log(worker, "Holding: ")
    status, said = ask(worker, "/readyz")
    assert status == 503
    return said


def all_out(stream: Stream, sent: set[tuple[int, int]]) -> Books:
    stream.read(books := Books(), lambda books: not sent - books.verdicts.keys())
    assert books.verdicts.keys() == sent
    assert books.repeats == 0
    return books


def wait_until_committed(stream: Stream, sent: set[tuple[int, int]]) -> None:
    deadline = time.monotonic() + WAIT_S
    while stream.committed() != ends(sent):
        assert time.monotonic() < deadline, stream.committed()
        time.sleep(0.05)


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_flood_of_rubbish_holds_until_it_is_let_through(
    stream: Stream, model: Path, tmp_path: Path, delivery: str
):
    settings = {"ODRADEK_DELIVERY": delivery}
    good = stream.send([an_event(0.1, 0.2, 0.3)] * 300)
    with running(stream.worker(model, tmp_path, **settings)) as worker:
        all_out(stream, good)
        wait_until_committed(stream, good)
        rubbish = stream.send([b"rubbish"] * RUBBISH)
        said = wait_until_held(worker)
        assert "cannot be scored, most of the last turn for 'not_json'" in said
        assert f"first seen at {stream.input} partition" in said
        assert "ODRADEK_BREAKER=off" in said
        assert ask(worker, "/healthz") == (200, "ok\n")
        assert 'odradek_held{hold="rejects"} 1.0' in ask(worker, "/metrics")[1]
        # A burst may come in turns; those too small to be judged are done. The one that opened
        # the breaker is not, nor anything after it.
        stream.read(books := Books(), lambda books: len(books.verdicts) >= len(good), linger_s=2)
        assert len(books.verdicts) < len(good) + 1000
        assert stream.committed() == ends(set(books.verdicts))
        assert worker.stop() == 0
    before = stream.committed()

    again = stream.worker(model, tmp_path, **settings)
    again.start()
    try:
        wait_until_held(again)
        assert again.stop() == 0
    finally:
        again.kill()
    assert stream.committed() == before, "a plain restart judges before it writes"

    with running(stream.worker(model, tmp_path, ODRADEK_BREAKER="off", **settings)) as worker:
        books = all_out(stream, good | rubbish)
        assert worker.stop() == 0
    assert books.dead_letters == {"not_json": RUBBISH}
    assert stream.committed() == ends(good | rubbish)


def test_a_new_model_that_fits_lets_it_go_on_without_a_restart(
    stream: Stream, model: Path, tmp_path: Path
):
    """The events are in order; the model was of another topic."""
    events = stream.send([an_event(0.1, 0.2)] * 2000)  # It wants three features.
    worker = stream.worker(model, tmp_path, ODRADEK_ALLOW_CONTRACT_CHANGE="true")
    worker.start()
    try:
        assert "whether model stand-in 1 belongs to this topic" in wait_until_held(worker)
        assert stream.committed() == {}
        fitting = tmp_path / "fitting.onnx"
        fitting.write_bytes(a_sealed_model(Recipe(features=2, version="2")))
        fitting.rename(model)
        books = all_out(stream, events)
        assert not books.dead_letters
        worker.wait_until_ready()
        assert 'odradek_held{hold="rejects"} 0.0' in ask(worker, "/metrics")[1]
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert "Going on: a new model is there" in worker.log.read_text()
    assert stream.committed() == ends(events)
