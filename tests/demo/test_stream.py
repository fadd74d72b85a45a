"""The stack's three small programs: the stream, the one-shot trainer and the pager."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from http.server import HTTPServer
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from demo import events
from demo.pager import Pager, lines
from demo.stream import Stream, endless
from demo.train_once import made_of, main, version_of
from tests.components import within
from worker.kafka_properties import kafka_properties

SHIPPED = events.load()


def test_no_id_ever_comes_twice_however_long_it_runs_and_however_often_it_starts():
    rows = len(SHIPPED.stream[events.NORMAL])
    drawn = [
        event.event_id
        for run in ("first", "second")
        for event in islice(endless(SHIPPED, 0.01, 0.01, run), rows + 1_000)
    ]
    assert len(set(drawn)) == len(drawn)


@given(run=st.text(min_size=1, max_size=8), share=st.sampled_from([0.0, 0.02, 0.3]))
def test_anomalies_and_rubbish_come_in_their_shares(run, share):
    drawn = list(islice(endless(SHIPPED, share, share, run), 4_000))
    kinds = [events.kind_of(event.name) for event in drawn]
    spread = 6 * (share * (1 - share) / len(drawn)) ** 0.5  # Six sigma: one draw in 10^9.
    assert abs(sum(kind in events.ANOMALIES for kind in kinds) / len(drawn) - share) <= spread
    assert abs(kinds.count("rubbish") / len(drawn) - share) <= spread


def test_every_ordinary_row_is_played_before_one_comes_again():
    rows = len(SHIPPED.stream[events.NORMAL])
    names = [event.name for event in islice(endless(SHIPPED, 0, 0, "run"), rows)]
    assert len(set(names)) == rows


def test_the_stream_keeps_its_rate_and_stops_when_told(stream):
    given, _ = kafka_properties({"KAFKA_BOOTSTRAP_SERVERS": stream.servers})
    playing = Stream(given.producer, stream.input, rate=500)
    thread = threading.Thread(target=playing.run, args=(endless(SHIPPED, 0, 0, "run"),))
    thread.start()
    assert within(lambda: playing.acknowledged >= 250)
    playing.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert not playing.failed
    consumer = Consumer(
        {"bootstrap.servers": stream.servers, "group.id": "look", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([stream.input])
    seen = [json.loads(message.value()) for message in consumer.consume(250, timeout=30)]
    consumer.close()
    assert len(seen) == 250
    assert all(len(event["features"]) == len(events.FEATURES) for event in seen)


def test_a_model_of_the_same_events_and_flags_is_not_trained_again(tmp_path, capsys):
    model = tmp_path / "collisions.onnx"
    flags = ["--set", "detectors=norm"]
    assert main([str(model), *flags]) == 0
    sealed = model.read_bytes()
    assert version_of(model) == made_of(flags)
    assert main([str(model), *flags]) == 0
    assert "nothing to train" in capsys.readouterr().out
    assert model.read_bytes() == sealed


def test_a_model_of_other_flags_or_a_broken_one_is_not_kept(tmp_path: Path):
    model = tmp_path / "collisions.onnx"
    assert version_of(model) is None
    model.write_bytes(b"half a model")
    assert version_of(model) is None
    assert made_of(["--set", "seed=1"]) != made_of(["--set", "seed=2"])


NOTIFICATION = {
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "OdradekHolding", "severity": "page"},
            "annotations": {"summary": "it holds", "runbook_url": "docs/runbook.md#odradekholding"},
        }
    ]
}


def test_the_pager_says_what_is_wrong_and_where_to_read_on():
    told = "FIRING OdradekHolding [page] it holds (docs/runbook.md#odradekholding)"
    assert list(lines(NOTIFICATION)) == [told]


def post(address: str, body: bytes) -> int:
    request = urllib.request.Request(address, data=body)  # noqa: S310  # Ours, on the loopback.
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return int(answer.status)


@pytest.mark.parametrize(
    "body", [b"not json", b"[]", b"null", b'{"alerts": [1]}', b'{"alerts": 3}']
)
def test_the_pager_refuses_what_is_no_notification_and_goes_on(body, capsys):
    with HTTPServer(("127.0.0.1", 0), Pager) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, body)
        refused.value.close()
        assert refused.value.code == 400
        assert post(address, json.dumps(NOTIFICATION).encode()) == 204
        server.shutdown()
    assert "FIRING OdradekHolding" in capsys.readouterr().out
