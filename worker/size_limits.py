"""What topics take, within transactions.

There a refusal aborts the whole turn, so that an output cannot simply be tried again alone. Where
the broker tells a topic's limit, what is larger is made smaller before it is written. Where it
does not, refusals tell: the turn is written again in chunks, since a broker refuses whole batches,
smaller ones each time, until one output alone is refused; from then on whatever is as large is
made smaller.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Producer

from worker.metrics import Metrics
from worker.outputs import (
    Form,
    OnRefused,
    Output,
    Refused,
    Shrink,
    hand_over,
    hand_over_one,
    outputs_of,
)
from worker.service import SLICE_S
from worker.turn import Outgoing

log = logging.getLogger(__name__)

# The bytes of the first chunks, how much smaller the next are, how long all may be waited for.
CHUNK_BYTES, CHUNK_SHRINK, CHUNKS_S = 64 * 1024, 8, 5.0
# What a chunk of several outputs may take of a limit.
CHUNK_SHARE = 0.9
# At most what a batch of one record takes beside its key, value and headers, and a header beside
# its name and value: https://kafka.apache.org/documentation/#messageformat.
BATCH_BYTES, HEADER_BYTES = 61 + 32, 10

Ask = Callable[[], Mapping[str, int]]


class SizeLimits:
    """The limits of the output topics, as far as the broker tells them or they have shown.

    `ask` returns the bytes that each topic takes; topics whose limit is not told are left out.
    """

    def __init__(self, shrink: Mapping[str, Shrink], metrics: Metrics, ask: Ask) -> None:
        self._shrink = shrink
        self._metrics = metrics
        self._ask = ask
        self._told = ask()
        self._too_large: dict[str, int] = {}  # Topic -> the smallest size that it refused.
        self._careful = False  # Whether a turn is tried again.
        self._chunk_bytes: int | None = None  # None: by what is told.
        self._smaller_ones = 0  # How many outputs of the turn are smaller than they were.
        self._deadline = 0.0  # Until then chunks of the turn are waited for.
        self._said: set[str] = set()  # Topics of which the log says that outputs are made smaller.

    def note(self, refused: Sequence[Refused]) -> bool:
        """Take note of what was too large; return whether another try may fare better."""
        again, self._careful = self._careful, True
        topics = {each.output.topic for each in refused}
        if not again and (len(refused) > 1 or topics <= self._told.keys()):
            return True  # In chunks, and by what the topics take now.
        if len(refused) > 1:
            self._chunk_bytes = min(map(self._chunk, topics)) // CHUNK_SHRINK
            return all(self._may_fit(each.output) for each in refused)
        return self._has_shown(refused[0].output)  # It had a batch of its own.

    def begin(self) -> None:
        """A turn is about to be written; where it is tried again, ask what topics take now."""
        self._smaller_ones = 0
        self._deadline = time.monotonic() + CHUNKS_S
        if self._careful:
            self._told = self._ask()

    def turn_is_done(self) -> None:
        """It was taken as it was written."""
        self._careful, self._chunk_bytes = False, None
        self._metrics.truncated(self._smaller_ones)

    def hand_over(
        self, producer: Producer, topic: str, outgoing: Outgoing, on_refused: OnRefused
    ) -> None:
        """As `worker.outputs.hand_over`, with the care that was found to be needed.

        Ends at a refusal: what follows it would not be sent.
        """
        if not self._careful and self._surely_fits(topic, outgoing):
            hand_over(producer, topic, outgoing, on_refused)
            return
        refused: list[Refused] = []

        def noted(refusal: Refused) -> None:
            refused.append(refusal)
            on_refused(refusal)

        waiting = 0
        for whole in outputs_of(topic, outgoing):
            output = self._as_small_as_it_must(whole)
            if self._careful and waiting + output.bytes() > self._chunk(topic):
                while not refused and time.monotonic() < self._deadline:
                    if not producer.flush(SLICE_S):
                        break
                waiting = 0
            if refused:
                break
            hand_over_one(producer, output, noted)
            waiting += output.bytes()

    def _chunk(self, topic: str) -> int:
        told = self._told.get(topic)
        return self._chunk_bytes or (int(CHUNK_SHARE * told) if told else CHUNK_BYTES)

    def _has_shown(self, output: Output) -> bool:
        """Learn from an output that was refused alone; return whether it can be made smaller."""
        if self._fits(output):  # So it seemed.
            self._too_large[output.topic] = output.bytes()
        return self._may_fit(output)

    def _surely_fits(self, topic: str, outgoing: Outgoing) -> bool:
        if topic in self._too_large or outgoing.headers:
            return False
        longest = max(map(_length, outgoing.values), default=0)
        longest += max(map(_length, outgoing.keys), default=0)
        return longest + BATCH_BYTES <= self._told.get(topic, longest + BATCH_BYTES)

    def _fits(self, output: Output) -> bool:
        size = output.bytes()
        whole = size + BATCH_BYTES + HEADER_BYTES * len(output.headers)
        return whole <= self._told.get(output.topic, whole) and size < self._too_large.get(
            output.topic, size + 1
        )

    def _may_fit(self, output: Output) -> bool:
        """Return whether it fits in some form, as far as that is known."""
        return self._fits(self._smaller(output))

    def _as_small_as_it_must(self, output: Output) -> Output:
        smaller = self._smaller(output)
        if smaller is not output:
            self._smaller_ones += 1
            if output.topic not in self._said:
                self._said.add(output.topic)
                log.warning(
                    "An output is too large for %s; it is written in a smaller form, as others "
                    "will be.",
                    output.topic,
                )
        return smaller

    def _smaller(self, output: Output) -> Output:
        for form in (Form.SMALLER, Form.SMALLEST):
            if not self._fits(output) and output.topic in self._shrink:
                output = self._shrink[output.topic](output, form)
        return output


def _length(value: bytes | None) -> int:
    return len(value or b"")
