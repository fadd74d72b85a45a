"""Is the worker alive, and is it ready? Answered from facts that the turns leave here.

Alive: a turn, an idle poll or a slice of waiting ended within `stuck_after_s`. A broker that is
away does not make a worker dead; waiting is what it should do then. One that answers while the
worker stays out of its group for as long does: a client was once seen that never joined again.
Ready: it is in its group, the broker answers, nothing holds it, and it is not draining.
"""

from __future__ import annotations

from dataclasses import dataclass

# A rebalance that goes well takes seconds (a heartbeat each way), in which no place is lost.
REBALANCE_S = 10.0


@dataclass(slots=True)
class Health:
    """Written by the worker's thread, read by the HTTP server's. Times are monotonic seconds."""

    stuck_after_s: float
    last_beat: float
    joined: bool = False
    broker_reachable: bool = True
    draining: bool = False
    held: str | None = None  # Why nothing is written, where that is so.
    out_since: float | None = None  # Out of the group since then, while a broker answers.

    def beat(self, now: float) -> None:
        """Note that the worker's loop came round."""
        self.last_beat = now

    def hear_of_membership(self, now: float, *, is_in: bool) -> None:
        """Note whether the worker is in its group; only while a broker answers."""
        self.joined |= is_in  # One that has no partitions may not be told in any other way.
        if is_in or not self.broker_reachable:
            self.out_since = None
        elif self.out_since is None:
            self.out_since = now

    def why_not_alive(self, now: float) -> str | None:
        """Return why the worker should be restarted, or None."""
        silent_s = now - self.last_beat
        if silent_s > self.stuck_after_s:
            return (
                f"no turn or poll ended for {silent_s:.0f} s; the limit is {self.stuck_after_s:g} s"
            )
        if (out_s := self._out_s(now)) > self.stuck_after_s:
            return (
                f"it has been out of its consumer group for {out_s:.0f} s while a broker answers; "
                f"the limit is {self.stuck_after_s:g} s"
            )
        return None

    def why_not_ready(self, now: float) -> str | None:
        """Return why the worker is not taking events, or None."""
        if self.draining:
            return "draining: it was told to stop"
        if not self.joined:
            return "it has not joined its consumer group yet"
        if not self.broker_reachable:
            return "no broker answers"
        if self.held is not None:
            return f"holding: {self.held}"
        if (why := self.why_not_alive(now)) is not None:
            return why
        if self._out_s(now) > REBALANCE_S:
            return "it has lost its place in the group"
        return None

    def _out_s(self, now: float) -> float:
        """Return for how long the worker has been out of its group while a broker answers."""
        out_since = self.out_since  # Another thread may set it at any time.
        return now - out_since if out_since is not None and self.broker_reachable else 0.0
