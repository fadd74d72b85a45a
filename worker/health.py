"""Is the worker alive, and is it ready? Answered from facts that the turns leave here.

Alive: a turn, an idle poll or a slice of waiting ended within `stuck_after_s`. A broker that is
away does not make a worker dead; waiting is what it should do then.
Ready: it has joined its group, the broker answers, nothing holds it, and it is not draining.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Health:
    """Written by the worker's thread, read by the HTTP server's. Times are monotonic seconds."""

    stuck_after_s: float
    last_beat: float
    joined: bool = False
    broker_reachable: bool = True
    draining: bool = False
    held: str | None = None  # Why nothing is written, where that is so.

    def beat(self, now: float) -> None:
        """Note that the worker's loop came round."""
        self.last_beat = now

    def why_not_alive(self, now: float) -> str | None:
        """Return why the worker should be restarted, or None."""
        silent_s = now - self.last_beat
        if silent_s > self.stuck_after_s:
            return (
                f"no turn or poll ended for {silent_s:.0f} s; the limit is {self.stuck_after_s:g} s"
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
        return self.why_not_alive(now)
