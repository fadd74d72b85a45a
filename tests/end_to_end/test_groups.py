"""Events of several groups in one topic, JSON and packed, through a real worker."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Producer

from demo.books import Books
from schemas.packed_event import CONTENT_TYPE_HEADER, GROUP_HEADER, PACKED, encode_packed
from schemas.score import Score
from tests.builders import an_event
from tests.end_to_end.stream import WAIT_S, Stream, running
from tests.worker.grouped import a_sealed_grouped_model

EVENT = (1.5, 1.5, 1.5)


def test_every_record_is_judged_by_its_own_group(stream: Stream, tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_grouped_model())
    producer = Producer({"bootstrap.servers": stream.servers})
    for name, site in (("quiet", "quiet"), ("loud", 17), ("other", "elsewhere"), ("none", None)):
        producer.produce(stream.input, an_event(*EVENT, event_id=name, site=site))
    headers = [(CONTENT_TYPE_HEADER, PACKED), (GROUP_HEADER, b"17")]
    producer.produce(stream.input, encode_packed(EVENT), key="packed", headers=headers)
    producer.produce(stream.input, b'{"site":"quiet","features":"none"}', key="no event")
    assert producer.flush(WAIT_S) == 0
    scores: dict[str, Score] = {}

    class Kept(Books):
        def score(self, score: Score, now_ms: float) -> None:
            scores[score.event_id] = score
            super().score(score, now_ms)

    books = Kept()
    with running(stream.worker(model, tmp_path)) as worker:
        stream.read(books, lambda books: len(books.verdicts) == 6)
        assert worker.stop() == 0
    groups = {name: score.calibration_group for name, score in scores.items()}
    assert groups == {"quiet": "quiet", "loud": "17", "other": None, "none": None, "packed": "17"}
    assert (scores["quiet"].verdict, scores["loud"].verdict) == ("anomalous", "normal")
    assert scores["packed"].p_value == scores["loud"].p_value
    assert scores["other"].threshold == scores["none"].threshold > scores["quiet"].threshold
    assert books.dead_letters.total() == 1
