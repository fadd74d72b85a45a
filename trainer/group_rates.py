"""Does each group keep the promised flag rate? Flagged normal events by group, with their bands.

The bands are those of `trainer.bands`, for all groups that were seen at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET

from schemas.calibration import Floats
from schemas.contract import Contract
from schemas.datafiles.table import Bools
from schemas.groups import GroupCodes
from trainer.bands import Band, flag_count_band

CONFIDENCE = 0.99


@dataclass(frozen=True)
class GroupRate:
    """What became of the target flag rate in one group; `group` is None for the pooled ones.

    `low` and `high` are the flagged that chance explains, for all groups at once at 99 %; None
    where nothing is promised.
    """

    group: str | None
    threshold: float
    normal_events: int
    flagged: int
    low: int | None
    high: int | None

    @property
    def rate(self) -> float:
        """The share of normal events that were flagged."""
        return self.flagged / self.normal_events

    def text(self) -> str:
        """Return the figures for a person to read."""
        chance = (
            "nothing is promised" if self.low is None else f"chance: {self.low:,} to {self.high:,}"
        )
        name = "the pooled" if self.group is None else repr(self.group)
        return f"{name}: {self.flagged:,} of {self.normal_events:,} ({self.rate:.3%}; {chance})"

    @property
    def inside(self) -> bool:
        """Whether chance explains it."""
        return self.low is None or self.high is None or self.low <= self.flagged <= self.high


def flags(contract: Contract, scores: Floats, codes: GroupCodes | None) -> Bools:
    """Return which of n events are flagged; `codes` [n] are their groups, if there are any."""
    if contract.by_group is None or codes is None:
        return scores > np.float32(contract.threshold.value)
    return scores > contract.by_group.thresholds(codes)


def rates_by_group(contract: Contract, scores: Floats, codes: GroupCodes) -> list[GroupRate]:
    """Return what became of the rate among normal events with these finite scores, by group."""
    return [*_rates(contract, scores, codes)]


def furthest_off_first(rates: Iterable[GroupRate], target: float) -> list[GroupRate]:
    """Return those first that chance does not explain; of either kind, the furthest off first."""
    return sorted(rates, key=lambda group: (group.inside, -abs(group.rate - target)))


def _rates(contract: Contract, scores: Floats, codes: GroupCodes) -> Iterator[GroupRate]:
    groups = contract.groups
    if groups is UNSET:
        return
    flagged = flags(contract, scores, codes)
    events = np.bincount(codes, minlength=len(groups.members) + 1).tolist()
    alarms = np.bincount(codes[flagged], minlength=len(groups.members) + 1).tolist()
    tests = sum(map(bool, events))
    rate = contract.threshold.target_flag_rate
    pooled = (None, contract.threshold.value, contract.calibration)
    judges = [*((m.text, m.threshold, m.calibration) for m in groups.members), pooled]
    for (text, threshold, calibration), m, x in zip(judges, events, alarms, strict=True):
        band: Band | None = None
        if m and (text is not None or groups.pooled == "others"):
            k = calibration.flagged_max(rate)
            band = flag_count_band(k, calibration.n, m, confidence=CONFIDENCE, tests=tests)
        low, high = (None, None) if band is None else (int(band.low), int(band.high))
        if m:
            yield GroupRate(text, threshold, m, x, low, high)
