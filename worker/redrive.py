"""Dead letters tried again: from the dead-letter topic back to the records that they were. Pure.

Of a letter, the record's own key, value and headers are taken, with the place at which it was
read: a score of it is the one that a worker would have written there and then. A record that
fails again becomes a dead letter again, with one more attempt.

Left where they are, without an output: letters of other reasons or of another input topic, stubs,
whose records must be read at their source, and what is no dead letter of ours. They are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec
import numpy as np

from schemas.dead_letter import DeadLetter, Reason, attempts_header, without_ours
from schemas.score import Source
from worker.model import Model
from worker.service import Process
from worker.turn import Outgoing, Outputs, Records, Tally

SENT = "sent_to_input"


class Skip(StrEnum):
    """Why a letter is left where it is. Closed: outcomes of the metric are these."""

    OTHER_REASON = "skipped_other_reason"  # It was not asked for.
    OTHER_TOPIC = "skipped_other_topic"  # It was read from another input topic.
    STUB = "skipped_stub"  # Its record was too large to be kept.
    NOT_OURS = "skipped_not_ours"  # Its headers are not those of a dead letter.


@dataclass(frozen=True)
class Wanted:
    """The letters that a redrive takes: records of one input topic that failed for a reason."""

    input_topic: str
    reasons: frozenset[Reason]

    def skip(self, letter: DeadLetter) -> Skip | None:
        """Return why a letter is not taken; None if it is."""
        if letter.source_topic != self.input_topic:
            return Skip.OTHER_TOPIC
        if letter.reason not in self.reasons:
            return Skip.OTHER_REASON
        return None if letter.original_bytes is None else Skip.STUB


def redriving(wanted: Wanted, process: Process, on_stub: Callable[[Source], None]) -> Process:
    """Return what has `process` make outputs of the records that dead letters were.

    `on_stub` is told the source of every stub, again where a turn is done again.
    """

    def redrive(letters: Records, model: Model) -> Outputs:
        originals, skipped = originals_of(letters, wanted, on_stub)
        outputs = process(originals, model)
        tally = replace(outputs.tally, outcomes={**outputs.tally.outcomes, **skipped})
        return replace(outputs, tally=tally)

    return redrive


def originals_of(
    letters: Records, wanted: Wanted, on_stub: Callable[[Source], None]
) -> tuple[Records, Counter[str]]:
    """Return the records that the wanted letters were, and how many letters are not taken."""
    originals = Records(wanted.input_topic, [], [], [], [], [], [])
    skipped: Counter[str] = Counter()
    columns = (letters.timestamps_ms, letters.keys, letters.values, letters.headers)
    for timestamp_ms, key, value, headers in zip(*columns, strict=True):
        try:
            letter = DeadLetter.from_headers(headers or [])
        except msgspec.ValidationError:
            skipped[Skip.NOT_OURS] += 1
            continue
        if (why := wanted.skip(letter)) is not None:
            skipped[why] += 1
            if why is Skip.STUB:
                on_stub(Source(letter.source_topic, letter.source_partition, letter.source_offset))
            continue
        originals.partitions.append(letter.source_partition)
        originals.offsets.append(letter.source_offset)
        # Letters of older workers do not say when their records were written.
        own = letter.source_timestamp
        originals.timestamps_ms.append(timestamp_ms if own is None else own)
        originals.keys.append(key)
        originals.values.append(value)
        originals.headers.append([*without_ours(headers), attempts_header(letter.attempts)])
    return originals, skipped


def send_again(records: Records, _: Model) -> Outputs:
    """Send records as they were, but for their count of attempts: a `Process` without a model.

    Their time is that of the sending: with their own, a topic's retention might take them at once.
    """
    headers = [headers or [] for headers in records.headers]
    tally = Tally({SENT: len(records)}, {}, np.empty(0), [])
    return Outputs(Outgoing(records.values, records.keys, headers), Outgoing(), tally)


def places_text(sources: Iterable[Source]) -> str:
    """Return places as a person reads them: events 0: 17, 40; 2: 5."""
    by_partition: dict[tuple[str, int], list[int]] = {}
    for source in sorted(set(sources), key=lambda place: (place.partition, place.offset)):
        by_partition.setdefault((source.topic, source.partition), []).append(source.offset)
    return "; ".join(
        f"{topic} partition {partition} offset {', '.join(map(str, offsets))}"
        for (topic, partition), offsets in by_partition.items()
    )
