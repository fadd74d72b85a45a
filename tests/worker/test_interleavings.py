"""The rules of the worker, in every interleaving that a small model has.

1. A committed offset never passes a record whose output is not taken and heard acknowledged.
2. Nobody commits a partition that it does not own, and no commit goes back.
3. From every state the end can be reached without another fault: each record has its output and
   is committed. Nothing hangs.
4. A record is written again only if it lies between what was committed and what was written when
   a member crashed, was lost, or gave up its partition unsettled.
5. Exactly-once: no record ever has two outputs that `read_committed` shows.

That the search finds nothing says little; that it finds each rule when it is broken says more.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.worker.interleaved_worker import AT_LEAST_ONCE, EXACTLY_ONCE, Rules
from tests.worker.interleavings import FAULTS, Explored, explore


def explored(rules: Rules, partitions: int, records: int, **faults: int) -> Explored:
    known = {fault.__name__: 0 for fault in FAULTS}
    assert faults.keys() <= known.keys()
    return explore(rules, partitions, records, tuple((known | faults).values()))


def story(found: Explored) -> str:
    return "\n".join((f"{found.complaint or 'nothing'} in {found.states} states:", *found.trace))


def named(value: object) -> str | None:
    """A test is named by the rule that is broken and by what goes wrong."""
    if isinstance(value, Rules):
        return "exactly-once" if value.transactions else "at-least-once"
    return "+".join(value) or "no-fault" if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("rules", "partitions", "records", "faults", "states_min"),
    [
        (AT_LEAST_ONCE, 1, 3, {"crash": 1, "fail": 1}, 20_000),
        (AT_LEAST_ONCE, 1, 2, {"crash": 1, "move": 1, "hurry": 1}, 20_000),
        (AT_LEAST_ONCE, 1, 2, {"move": 2, "fail": 1, "hurry": 1}, 5_000),
        (AT_LEAST_ONCE, 1, 2, {"expel": 1, "move": 1, "fail": 1}, 15_000),
        (AT_LEAST_ONCE, 2, 1, {"expel": 1, "move": 1}, 30_000),
        (AT_LEAST_ONCE, 2, 2, {"move": 1}, 5_000),
        (EXACTLY_ONCE, 1, 3, {"crash": 1, "move": 1, "fail": 1, "hurry": 1}, 10_000),
        (EXACTLY_ONCE, 1, 2, {"crash": 1, "expel": 1, "fail": 1}, 10_000),
        (EXACTLY_ONCE, 1, 2, {"expel": 2, "move": 1, "hurry": 1}, 15_000),
        (EXACTLY_ONCE, 2, 2, {"move": 1, "hurry": 1}, 5_000),
    ],
    ids=named,
)
def test_no_interleaving_breaks_the_rules(rules, partitions, records, faults, states_min):
    """Only a search that went far enough has found nothing."""
    found = explored(rules, partitions, records, **faults)
    assert not found.complaint, story(found)
    assert found.states >= states_min


def test_committing_before_settling_is_found_at_once():
    """The broker has the commit, and not yet the output: a crash now would lose the record."""
    swapped = replace(AT_LEAST_ONCE, order=("commit", "settle"))
    found = explored(swapped, partitions=1, records=1)
    assert found.complaint == "committed 0:0, whose output is not acknowledged"
    assert found.trace == (
        "A reads 0:0",
        "A writes 0:0",
        "A commits 0:1",
        "A has its commit taken",
    )


NOT_ACKNOWLEDGED = "whose output is not acknowledged"
NOT_OWNED = "of one who does not own it"
TWICE = "has 2 outputs"


@pytest.mark.parametrize(
    ("broken", "faults", "complaint", "telling"),
    [
        # The rule, what must go wrong for it to matter, what is found, and on the way to it.
        ({"commits_the_turn": False}, {}, NOT_ACKNOWLEDGED, "A commits 0:2"),
        ({"commits_by_number": False}, {"move": 1, "hurry": 1}, NOT_OWNED, "A is rid of 0"),
        ({"writes_by_number": False}, {"move": 1}, "without a reason", "A gives up 0"),
        ({"forgets_lost": False}, {"expel": 1}, NOT_OWNED, "A asks again"),
        ({"order": ("settle",)}, {}, "it cannot come to an end", ""),
    ],
    ids=named,
)
def test_each_rule_is_missed_when_it_is_broken(broken, faults, complaint, telling):
    found = explored(replace(AT_LEAST_ONCE, **broken), 1, 2, **faults)
    assert complaint in found.complaint, story(found)
    assert not telling or telling in found.trace, story(found)


@pytest.mark.parametrize(
    ("broken", "faults", "complaint", "telling"),
    [
        ({"waits_for_last": False}, {"crash": 1}, TWICE, "A crashes"),
        ({"aborts_lost": False}, {"expel": 1}, TWICE, "A adds offsets nothing"),
        ({"aborts_unsettled": False}, {"move": 1, "hurry": 1}, TWICE, "A adds offsets nothing"),
        ({"aborts_hand": False}, {"fail": 1}, NOT_ACKNOWLEDGED, "A aborts"),
        ({"writes_by_number": False}, {"move": 1}, TWICE, "A gives up 0"),
        ({"order": ("settle", "end", "commit")}, {"crash": 1}, TWICE, "A crashes"),
        ({"fences": False}, {"expel": 1}, NOT_OWNED, "A is expelled"),
        ({"fetches_stable": False}, {"expel": 1}, TWICE, "B is given 0 at 0"),
    ],
    ids=named,
)
def test_each_rule_of_exactly_once_is_missed_when_it_is_broken(broken, faults, complaint, telling):
    found = explored(replace(EXACTLY_ONCE, **broken), 1, 2, **faults)
    assert complaint in found.complaint, story(found)
    assert telling in found.trace, story(found)


def test_one_who_waits_for_its_commits_does_not_lean_on_their_order():
    """Only giving up without waiting needs that an old commit cannot arrive after it."""
    disorder = replace(AT_LEAST_ONCE, in_order=False)
    patient = explored(disorder, 1, 2, expel=1, move=1)
    assert not patient.complaint, story(patient)
    hurried = explored(disorder, 1, 2, move=1, hurry=1)
    assert NOT_OWNED in hurried.complaint, story(hurried)
