"""Dead letters tried again: which are taken, what they become, and that a redrive has an end."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter, Reason, attempts_header
from schemas.score import Source, decode_score
from tests.builders import Recipe, a_model, an_event, records
from tests.memory_clients import MemorySink, MemorySource
from tests.memory_log import Clock, Faults, MemoryLog
from tests.schemas.bad_events import BAD_EVENTS
from tests.schemas.golden_records import LETTER
from worker.delivery import AtLeastOnce
from worker.finite import FiniteSource
from worker.health import Health
from worker.hold import Holds
from worker.metrics import Metrics
from worker.redrive import SENT, Skip, Wanted, originals_of, places_text, redriving, send_again
from worker.scoring import scoring
from worker.service import Clocks, Process, Worker
from worker.turn import Outputs, Records, Turn

MODEL = a_model()
SCORING = scoring(Metrics(), 5)
ALL = Wanted("events", frozenset(Reason))


def a_letter(value: bytes | None, offset: int, **changes) -> tuple[bytes | None, DeadLetter]:
    place = {"source_topic": "events", "source_partition": 3, "source_offset": offset}
    return value, msgspec.structs.replace(LETTER, **{**place, **changes})


def letters_of(*letters: tuple[bytes | None, DeadLetter]) -> Records:
    """The dead-letter topic's records: from offset 0 on, each with a header of its own."""
    taken = records([value for value, _ in letters], "dead-letters")
    for row, (_, letter) in enumerate(letters):
        taken.headers[row] = [("trace", str(row).encode()), *letter.to_headers()]
    return taken


def outputs_of(
    letters: Records, *, wanted: Wanted = ALL, process: Process = SCORING, stubs: list | None = None
) -> Outputs:
    on_stub = (stubs if stubs is not None else []).append
    return redriving(wanted, process, on_stub)(letters, MODEL)


def test_a_score_is_the_one_that_a_worker_would_have_written_there_and_then():
    nameless = an_event(0.1, 0.1, 0.1, event_id=None, timestamp=None)
    outputs = outputs_of(
        letters_of(
            a_letter(an_event(0.1, 0.1, 0.1), 17),
            a_letter(nameless, 18, source_timestamp=123),
            a_letter(nameless, 19),  # Of a worker that did not say when its record was written.
        )
    )
    scores = [decode_score(value or b"") for value in outputs.scores.values]
    assert [score.source for score in scores] == [Source("events", 3, o) for o in (17, 18, 19)]
    assert [score.event_id for score in scores] == ["e", "events-3-18", "events-3-19"]
    assert [score.timestamp for score in scores] == [1000, 123, 5000]
    assert outputs.scores.keys == [b"k"] * 3
    assert outputs.scores.headers == [[("trace", b"0")], [("trace", b"1")], [("trace", b"2")]]
    assert len(outputs.dead_letters) == 0


def test_what_fails_again_is_the_same_dead_letter_but_for_what_is_new():
    written = a_letter(b"rubbish", 17, source_timestamp=123, reason=Reason.TEXT, attempts=6)
    outputs = outputs_of(letters_of(written))
    assert outputs.dead_letters.values == [b"rubbish"]
    assert outputs.dead_letters.keys == [b"k"]
    headers = outputs.dead_letters.headers[0]
    assert headers[0] == ("trace", b"0")
    assert len({name for name, _ in headers}) == len(headers), "nothing of the old letter is left"
    letter = DeadLetter.from_headers(headers)
    assert (letter.source_topic, letter.source_partition, letter.source_offset) == ("events", 3, 17)
    assert (letter.reason, letter.attempts, letter.source_timestamp) == (Reason.NOT_JSON, 7, 123)
    assert letter.model_digest == MODEL.digest


def test_what_is_not_taken_is_counted_and_stubs_are_named():
    taken = letters_of(
        a_letter(b"1", 1, reason=Reason.TEXT),
        a_letter(b"2", 2, source_topic="other"),
        a_letter(b"3", 3, original_bytes=9),
        a_letter(an_event(1, 1, 1), 4),
        a_letter(b"5", 5),
        a_letter(b"6", 6),
    )
    taken.headers[4] = None
    taken.headers[5] = [("odradek.reason", b"\xff")]
    stubs: list[Source] = []
    wanted = Wanted("events", frozenset({Reason.NOT_JSON}))
    outputs = outputs_of(taken, wanted=wanted, stubs=stubs)
    assert outputs.tally.outcomes == {
        "normal": 1,
        "dead_letter": 0,
        Skip.OTHER_REASON: 1,
        Skip.OTHER_TOPIC: 1,
        Skip.STUB: 1,
        Skip.NOT_OURS: 2,
    }
    assert [decode_score(value or b"").source.offset for value in outputs.scores.values] == [4]
    assert stubs == [Source("events", 3, 3)]


def test_a_record_is_sent_again_as_it_was_with_its_count():
    outputs = outputs_of(
        letters_of(a_letter(b"rubbish", 1), a_letter(None, 2, attempts=3)), process=send_again
    )
    assert outputs.scores.values == [b"rubbish", None]
    assert outputs.scores.keys == [b"k", b"k"]
    assert outputs.scores.headers == [
        [("trace", b"0"), attempts_header(1)],
        [("trace", b"1"), attempts_header(3)],
    ]
    assert len(outputs.dead_letters) == 0
    assert outputs.tally.outcomes == {SENT: 2}


VALUES = st.sampled_from([an_event(1, 2, 3), *[value for value, _, _ in BAD_EVENTS.values()][:10]])
LETTERS = st.lists(
    st.tuples(
        VALUES,
        st.sampled_from(Reason),
        st.sampled_from(["events", "other"]),
        st.none() | st.just(9),
        st.booleans(),
    ),
    max_size=20,
)


@settings(max_examples=100)
@given(LETTERS, st.frozensets(st.sampled_from(Reason)), st.booleans())
def test_every_letter_has_an_output_or_is_counted_as_left(drawn, reasons, to_input):
    taken = letters_of(
        *(
            a_letter(value, row, reason=reason, source_topic=topic, original_bytes=stub)
            for row, (value, reason, topic, stub, _) in enumerate(drawn)
        )
    )
    for row, (*_, ours) in enumerate(drawn):
        if not ours:
            taken.headers[row] = [("trace", b"x")]
    process = send_again if to_input else SCORING
    outputs = outputs_of(taken, wanted=Wanted("events", reasons), process=process)
    left = sum(outputs.tally.outcomes.get(skip, 0) for skip in Skip)
    assert len(outputs.scores) + len(outputs.dead_letters) + left == len(taken)
    assert sum(outputs.tally.outcomes.values()) == len(taken)
    wanted = [ours and r in reasons and t == "events" and not stub for _, r, t, stub, ours in drawn]
    assert len(outputs.scores) + len(outputs.dead_letters) == sum(wanted)


def test_places_are_told_by_partition_and_once():
    sources = [Source("events", 2, 5), *[Source("events", 0, o) for o in (40, 17, 40)]]
    assert places_text(sources) == "events partition 0 offset 17, 40; events partition 2 offset 5"


def test_an_empty_turn_has_no_outputs():
    originals, skipped = originals_of(records([], "dead-letters"), ALL, lambda _: None)
    assert len(originals) == 0
    assert skipped == Counter()


class Bench:
    """Redrives on a memory log of two partitions, each run to its end in this thread."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        for topic in ("scores", "dead-letters"):
            self.log.create_topic(topic, 2)
        self.group = self.log.group("redrive", "dead-letters")
        self.steps = 0

    def put(self, *values: bytes | None, partition: int = 0) -> None:
        for value in values:
            offset = len(self.letters())
            _, letter = a_letter(value, offset)
            headers = letter.to_headers()
            self.log.append("dead-letters", value, headers=headers, partition=partition)

    def letters(self):
        return self.log.topics["dead-letters"].records()

    def attempts(self) -> Counter[int]:
        return Counter(DeadLetter.from_headers(r.headers or []).attempts for r in self.letters())

    def scored(self) -> list[int]:
        records = self.log.topics["scores"].records()
        return sorted(decode_score(record.value or b"").source.offset for record in records)

    def redrive(self, on_step=lambda _: None, batch_max: int = 4, model=MODEL) -> FiniteSource:
        topic = self.log.topics["dead-letters"]
        ends = {partition: topic.end(partition) for partition in range(2)}

        def reached() -> bool:
            self.steps += 1
            assert self.steps < 1000, "it does not end"
            return all(self.group.committed.get(p, 0) >= end for p, end in ends.items())

        clock, faults, metrics = Clock(), Faults(calm=True, pause=on_step), Metrics()
        source = MemorySource(
            self.log, "dead-letters", "redrive", batch_max, faults=faults, clock=clock
        )
        finite = FiniteSource(source, ends, reached, lambda: worker.stop())
        health = Health(60.0, last_beat=clock())
        sink = MemorySink(self.log, "scores", "dead-letters", faults=faults, clock=clock)
        worker = Worker(
            finite,
            AtLeastOnce(source, sink),
            _OneModel(model),  # type: ignore[arg-type]
            redriving(ALL, scoring(metrics, 2), lambda _: None),
            metrics,
            health,
            Holds(health, metrics),
            Clocks(clock, clock),
            breaker=None,
            idle_wait_s=0.2,
            stop_timeout_s=5.0,
        )
        worker.run()
        return finite


class _OneModel:
    def __init__(self, model) -> None:
        self.current = model

    def refresh(self, now: float) -> None:
        pass


def test_a_redrive_ends_at_the_ends_that_were_there_at_its_start():
    bench = Bench()
    bench.put(b"rubbish", an_event(1, 1, 1), b"rubbish", partition=0)
    bench.put(*[an_event(1, 1, 1)] * 10, partition=1)
    assert bench.redrive().ended
    assert bench.attempts() == {1: 13, 2: 2}, "what was written back is not read in the same run"
    assert bench.scored() == [1, *range(3, 13)]
    assert bench.group.committed == {0: 3, 1: 10}
    bench.redrive()
    assert bench.attempts() == {1: 13, 2: 2, 3: 2}
    assert len(bench.scored()) == 11


def test_a_redrive_by_another_model_scores_what_failed():
    bench = Bench()
    bench.put(an_event(1, 1, 1), an_event(1, 1))
    bench.redrive(model=a_model(Recipe(features=2)))
    assert bench.scored() == [1]
    bench.redrive()
    assert bench.scored() == [0, 1]


@pytest.mark.parametrize("batch_max", [1, 3, 100])
def test_letters_that_keep_coming_neither_keep_it_nor_are_passed(batch_max):
    bench = Bench()
    bench.put(*[an_event(1, 1, 1)] * 5, partition=0)

    def a_worker_writes(step: str) -> None:
        if step == "read" and len(bench.letters()) < 500:
            bench.put(an_event(1, 1, 1), an_event(1, 1, 1), partition=len(bench.letters()) % 2)

    assert bench.redrive(a_worker_writes, batch_max).ended
    assert bench.scored() == [*range(5)]
    assert bench.group.committed == {0: 5}
    bench.redrive()
    assert bench.scored() == [*range(len(bench.letters()))]


def test_an_empty_topic_ends_at_once():
    bench = Bench()
    assert bench.redrive().ended
    assert bench.steps == 1


class _Turns:
    """A source that has these turns."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)
        self.start = self.keep_alive = self.still_owned = self.rewind = self.close = None

    def read(self, _: float) -> Turn | None:
        return self.turns.pop(0) if self.turns else None


def a_turn(*places: tuple[int, int]) -> Turn:
    taken = Records(
        "dead-letters",
        [partition for partition, _ in places],
        [offset for _, offset in places],
        [0] * len(places),
        [None] * len(places),
        [b"%d" % offset for _, offset in places],
        [None] * len(places),
    )
    ends = {partition: offset + 1 for partition, offset in places}
    return Turn(taken, ends, dict.fromkeys(ends, 1))


def read_finite(turn: Turn, ends: dict[int, int]) -> Turn | None:
    return FiniteSource(_Turns(turn), ends, lambda: False, lambda: None).read(0)  # type: ignore[arg-type]


def test_a_turn_before_the_ends_is_handed_on_as_it_is():
    turn = a_turn((0, 3), (0, 4), (1, 9))
    assert read_finite(turn, {0: 5, 1: 10}) is turn


def test_a_turn_across_the_ends_is_cut_there():
    turn = read_finite(a_turn((0, 3), (0, 7), (1, 9), (2, 0)), {0: 5, 1: 10})
    assert turn is not None
    assert (turn.records.partitions, turn.records.offsets) == ([0, 1], [3, 9])
    # Of partition 2, which is newer than the ends, nothing is committed.
    assert turn.offsets == {0: 5, 1: 10}
    assert turn.assignments == {0: 1, 1: 1}


def test_a_partition_that_others_have_brought_further_is_not_set_back():
    turn = read_finite(a_turn((0, 8), (1, 2)), {0: 5, 1: 10})
    assert turn is not None
    assert turn.offsets == {1: 3}
    assert read_finite(a_turn((0, 8)), {0: 5}) is None
