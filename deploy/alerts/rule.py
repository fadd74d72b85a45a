"""What an alert rule is, and what its parts are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# page: a person now. ticket: a person today.
Severity = Literal["page", "ticket"]


@dataclass(frozen=True)
class Rule:
    """One alert: it fires when `operand` has been above (or below) `bound` for `for_s` seconds,
    and goes on for `keep_s` after that has ended: what comes and goes is one alert, not many.

    The operand is a number that is there in health too, so that it can be plotted and tested, and
    so that Grafana, which compares by itself, takes it as it is. A further condition is therefore
    a factor of 0 or 1 in it.
    """

    name: str
    group: str
    severity: Severity
    operand: str
    bound: float
    for_s: int
    summary: str
    description: str
    below: bool = False
    keep_s: int = 0

    @property
    def expression(self) -> str:
        """The whole PromQL expression, which returns series only where the rule holds."""
        return f"({self.operand})\n{'<' if self.below else '>'} {self.bound:.12g}"

    @property
    def anchor(self) -> str:
        """Where in the runbook it is explained: the heading is the rule's name."""
        return self.name.lower()


@dataclass(frozen=True)
class Recorded:
    """A recording rule: a name for an expression that several rules and panels read."""

    name: str
    expression: str


def duration(seconds: int) -> str:
    """Return a duration as Prometheus writes it, in its largest whole unit."""
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % unit_s == 0:
            return f"{seconds // unit_s}{unit}"
    return f"{seconds}s"
