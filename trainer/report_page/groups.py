"""What the page says of a model that judges by groups: their thresholds, and whether each keeps it.

A picture of one threshold and one rate would be of none of them, so that these stand as tables.
Of the thresholds, those of most calibration events come first; of the rates, those off the target.
"""

from __future__ import annotations

from msgspec import UNSET

from schemas.calibration import Calibration
from schemas.contract import Contract
from schemas.false_alarms import by_group, flag_rate
from trainer.group_rates import GroupRate, furthest_off_first
from trainer.report_page.labelled import Labelled
from trainer.report_page.parts import Listing, Section, percent

_POOLED = "(all others)"


def false_alarms(contract: Contract) -> Section:
    """Say what each group is judged by; for contracts with groups."""
    assert contract.groups is not UNSET  # noqa: S101  # The caller looked.
    groups, rate = contract.groups, contract.threshold.target_flag_rate
    largest_first = sorted(groups.members, key=lambda member: -member.calibration.n)
    promised = groups.pooled == "others"
    # The pooled one comes first, as a page lists no more than the first ones.
    rows = [
        _judge(_POOLED, contract.calibration, contract.threshold.value, rate, promised=promised),
        *(_judge(one.text, one.calibration, one.threshold, rate) for one in largest_first),
    ]
    columns = (
        *(f"group: {groups.name}", "calibration events", "threshold", "flag rate expected"),
        "with nine chances in ten",
    )
    return Section(
        "false-alarms",
        "Expected false alarms, by group",
        (
            *(f"{said[0].upper()}{said[1:]}." for said in by_group(groups, rate, None)),
            "This holds while normal events stay what they were; a drift moves it.",
        ),
        listings=(Listing.of("Groups", columns, rows),),
    )


def promise(contract: Contract, labelled: Labelled) -> Section:
    """Say whether fresh normal events of each group are flagged at the rate that was promised."""
    target = contract.threshold.target_flag_rate
    seen = labelled.evaluation.groups
    promised = [group for group in seen if group.low is not None]
    inside = sum(group.inside for group in promised)
    verdict = (
        f"In {inside:,} of {len(promised):,} groups the number of labelled normal events flagged "
        "is within what chance explains, 99% for all of them together: calibration events and "
        "labelled ones are both samples."
    )
    ordered = furthest_off_first(seen, target)
    columns = ("group", "normal events", "flagged", "share", f"chance, at {percent(target)}")
    return Section(
        "promise",
        "Does the threshold keep its promise?",
        (verdict,),
        listings=(Listing.of("Flag rates by group", columns, [*map(_row, ordered)]),),
    )


def calibration_events(contract: Contract) -> int:
    """Return how many events calibrate, of any contract."""
    pooled = contract.calibration.n
    if contract.groups is UNSET or contract.groups.pooled == "all":
        return pooled  # Of all groups: their own events are among them.
    return pooled + sum(member.calibration.n for member in contract.groups.members)


def _judge(
    name: str, calibration: Calibration, threshold: float, rate: float, *, promised: bool = True
) -> tuple[object, ...]:
    judge = (name, calibration.n, f"{threshold:.6g}")
    if not promised:
        return (*judge, "not promised", "")
    expected = flag_rate(calibration, rate)
    return (*judge, percent(expected.mean), f"{percent(expected.low)} to {percent(expected.high)}")


def _row(group: GroupRate) -> tuple[object, ...]:
    name = _POOLED if group.group is None else group.group
    chance = "not promised" if group.low is None else f"{group.low:,} to {group.high:,}"
    return name, group.normal_events, group.flagged, percent(group.rate), chance
