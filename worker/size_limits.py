"""What topics have refused for its size, within transactions.

There a refusal aborts the whole turn, so that an output cannot simply be tried again alone. The
turn is written again in chunks, since a broker refuses whole batches: smaller ones each time, until
one output alone is refused. From then on whatever is as large is made smaller before it is
written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from confluent_kafka import Producer

from worker.metrics import Metrics
from worker.outputs import Form, OnRefused, Output, Refused, Shrink, hand_over, hand_over_one
from worker.turn import Outgoing

log = logging.getLogger(__name__)

# The bytes of the first chunks, how much smaller the next are, how long one may take.
CHUNK_BYTES, CHUNK_SHRINK, CHUNK_S = 64 * 1024, 8, 5.0


class SizeLimits:
    """The limits of the output topics as far as they have shown."""

    def __init__(self, shrink: Mapping[str, Shrink], metrics: Metrics) -> None:
        self._shrink = shrink
        self._metrics = metrics
        self._too_large: dict[str, int] = {}  # Topic -> the smallest size that it refused.
        self._chunk_bytes: int | None = None  # None: the client makes its batches as it likes.

    def note(self, refused: Sequence[Refused]) -> bool:
        """Take note of what was too large; return whether another try may fare better."""
        if len(refused) > 1:
            chunk = self._chunk_bytes
            self._chunk_bytes = CHUNK_BYTES if chunk is None else chunk // CHUNK_SHRINK
            return True
        output = refused[0].output  # It had a batch of its own.
        topic, size = output.topic, output.bytes()
        if topic not in self._shrink or size >= self._too_large.get(topic, size + 1):
            return False  # It was in its smallest form.
        self._too_large[topic] = size
        self._metrics.truncated(1)
        log.warning("An output is too large for %s; it is written in a smaller form.", topic)
        return True

    def forget_chunks(self) -> None:
        """The turn is through."""
        self._chunk_bytes = None

    def hand_over(
        self, producer: Producer, topic: str, outgoing: Outgoing, on_refused: OnRefused
    ) -> None:
        """As `worker.outputs.hand_over`, with the care that was found to be needed."""
        if self._chunk_bytes is None and topic not in self._too_large:
            hand_over(producer, topic, outgoing, on_refused)
            return
        headers = outgoing.headers or [[] for _ in outgoing.values]
        waiting = 0
        for record in zip(outgoing.values, outgoing.keys, headers, strict=True):
            output = self._as_small_as_it_must(Output(topic, *record))
            if self._chunk_bytes is not None and waiting + output.bytes() > self._chunk_bytes:
                producer.flush(CHUNK_S)
                waiting = 0
            hand_over_one(producer, output, on_refused)
            waiting += output.bytes()

    def _as_small_as_it_must(self, output: Output) -> Output:
        limit = self._too_large.get(output.topic)
        for form in (Form.SMALLER, Form.SMALLEST):
            if limit is not None and output.bytes() >= limit:
                output = self._shrink[output.topic](output, form)
        return output
