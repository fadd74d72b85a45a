"""Every interleaving of what two workers, their group and their broker can do, within bounds.

The simulation runs the worker's own code through some hundred random histories. This is the
opposite: none of its code, only its rules (`interleaved_worker`), and all histories that there are.
`explore` walks through every state that can be reached, breadth first, so that what it finds comes
with a shortest trace. `STEPS` and `FAULTS` are the table of transitions.

In it: one turn in hand and one in flight; outputs that the broker takes in any order and
acknowledges late; commits that arrive later, in order, and may fail; cooperative rebalances, also
those that do not wait for the turn in flight; members that are expelled and learn of it late;
crashes, after which outputs and commits may still arrive; transactions (exactly-once), which the
broker aborts some time after their owner's death.

The broker checks that who commits is a member, not that it owns. What a member tells the group
arrives in the order in which it was told: it is one connection, and what is older than a rebalance
is refused for its generation.

Left out: new records, poison, models; an output refused for good and a transaction that times out
under its owner (both as a crash); an orderly stop; a successor in the same place before the session
of the dead has expired (the other member is one), and outputs of the dead that arrive after it has
begun; the end of a transaction is heard at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.worker.interleaved_worker import (
    Member,
    Next,
    Place,
    Rules,
    World,
    abort,
    accept,
    ask_again,
    checked,
    give_up,
    go_on,
    put,
    read,
    revoked,
    start,
    with_member,
    without,
    write,
)

# What the broker does, for or to a member.


def take(rules: Rules, world: World, s: int) -> Next:
    """An output arrives, also of one who is dead by now."""
    member = world.members[s]
    counts = member.flight and (member.alive or not rules.transactions)
    for record in member.flight.wire if counts else ():
        flight = member.flight
        flight = flight._replace(wire=flight.wire - {record}, unheard=flight.unheard | {record})
        (p, offset), outputs = record, world.outputs
        if not rules.transactions:  # Else nobody sees it before the end.
            outputs = put(outputs, p, put(outputs[p], offset, outputs[p][offset] + 1))
        then = with_member(world, s, member._replace(flight=flight))
        yield f"has {p}:{offset} taken", then._replace(outputs=outputs)


def acknowledge(rules: Rules, world: World, s: int) -> Next:
    """A member hears that an output was taken."""
    member = world.members[s]
    for record in member.flight.unheard if member.flight and member.alive else ():
        left = member.flight._replace(unheard=member.flight.unheard - {record})
        heard = world.heard if rules.transactions else world.heard | {record}
        then = with_member(world, s, member._replace(flight=left))
        yield f"hears of {record[0]}:{record[1]}", then._replace(heard=heard)


def arrive(rules: Rules, world: World, s: int) -> Next:
    """What a member told the group arrives; from one who is no member nothing is taken."""
    channel = world.members[s].channel
    for place, (kind, ends) in enumerate(channel):
        if place and (rules.in_order or kind == "commit"):
            continue
        member = world.members[s]._replace(channel=channel[:place] + channel[place + 1 :])
        if not world.joined[s]:
            yield f"has its {kind} refused", with_member(world, s, member)
        elif kind == "commit":
            owed = tuple(None if end in ends else end for end in member.owed)
            then = with_member(world, s, member._replace(owed=owed))
            yield "has its commit taken", accept(checked(then, s, ends), ends)
        else:
            p = ends[0].partition
            then = with_member(world, s, member)
            yield f"is rid of {p}", then._replace(owner=put(world.owner, p, None))


def assign(rules: Rules, world: World, s: int) -> Next:
    """A partition that nobody has goes to its target, at the committed offset."""
    member = world.members[s]
    for p, who in enumerate(world.target):
        free = who == s and world.owner[p] is None and member.alive and world.joined[s]
        if free and not (rules.fetches_stable and p in _open(rules, world)):
            number = world.numbers[p] + 1
            owned = put(member.owned, p, Place(number, world.committed[p]))
            yield (
                f"is given {p} at {world.committed[p]}",
                with_member(world, s, member._replace(owned=owned))._replace(
                    owner=put(world.owner, p, (s, number)), numbers=put(world.numbers, p, number)
                ),
            )


def _open(rules: Rules, world: World) -> set[int]:
    """The partitions for which some transaction, also of the dead, holds offsets open."""
    if "add offsets" not in rules.order:
        return set()
    added = rules.order.index("add offsets") + 1
    flights = (member.flight for member in world.members)
    return {e.partition for f in flights if f and f.done >= added for e in f.turn.ends}


def lose(rules: Rules, world: World, s: int) -> Next:
    """One that was expelled learns it: all is lost, nothing is committed, it joins anew."""
    member = world.members[s]
    if world.joined[s] or not member.alive:
        return
    if rules.transactions and rules.aborts_lost:
        member = abort(rules, world, member)
    none = (None,) * len(member.owned)
    owed = none if rules.forgets_lost else member.owed
    # What was still to arrive came from a member that no longer is one.
    then = member._replace(owned=none, owed=owed, channel=())
    yield "learns it is lost, joins", _join(with_member(world, s, then), s)


def bury(rules: Rules, world: World, s: int) -> Next:
    """The session of the dead expires, its transaction is aborted, a successor joins."""
    member = world.members[s]
    if member.alive:
        return
    if rules.transactions and member.flight:
        yield "has its transaction aborted", with_member(world, s, member._replace(flight=None))
    if world.joined[s]:
        yield "expires", _leave(world, s)
    elif not (rules.transactions and member.flight):
        none = (None,) * len(member.owned)
        yield "has a successor", _join(with_member(world, s, Member(none, none)), s)


def _join(world: World, s: int) -> World:
    target = tuple(s if who is None else who for who in world.target)
    return world._replace(joined=put(world.joined, s, True), target=target)


def _leave(world: World, s: int) -> World:
    other = 1 - s if world.joined[1 - s] else None
    return world._replace(
        joined=put(world.joined, s, False),
        target=tuple(other if who == s else who for who in world.target),
        owner=tuple(None if has and has[0] == s else has for has in world.owner),
    )


# What goes wrong.


def _excuse(world: World, s: int) -> World:
    """What is written of a member's partitions may be written again from here on."""
    owned = world.members[s].owned
    now = zip(owned, world.written, world.excused, strict=True)
    return world._replace(excused=tuple(max(w, e) if has else e for has, w, e in now))


def crash(_: Rules, world: World, s: int) -> Next:
    """It dies. What was on its way may arrive; what was asked of the group may, too."""
    member = world.members[s]
    if member.alive:
        none = (None,) * len(member.owned)
        dead = Member(none, none, flight=member.flight, channel=member.channel, alive=False)
        yield "crashes", with_member(_excuse(world, s), s, dead)


def expel(_: Rules, world: World, s: int) -> Next:
    """Its session expires, and it does not know."""
    if world.members[s].alive and world.joined[s]:
        yield "is expelled", _leave(_excuse(world, s), s)


def move(_: Rules, world: World, s: int) -> Next:
    """The group wants one of its partitions elsewhere: that is no fault, but may be often."""
    for p, who in enumerate(world.target):
        if who == s and world.joined[1 - s]:
            yield f"is to lose {p}", world._replace(target=put(world.target, p, 1 - s))


def fail(rules: Rules, world: World, s: int) -> Next:
    """A commit fails, or a transaction must be aborted."""
    member = world.members[s]
    if not rules.transactions and member.channel and member.channel[0][0] == "commit":
        yield (
            "has its commit fail",
            with_member(world, s, member._replace(channel=member.channel[1:])),
        )
    if rules.transactions and member.flight and member.alive:
        yield "aborts", with_member(world, s, abort(rules, world, member))


def hurry(rules: Rules, world: World, s: int) -> Next:
    """Revoked, and waiting for acknowledgements or commits has taken too long."""
    for p in revoked(world, s):
        member = world.members[s]
        if member.flight or member.owed[p]:
            if rules.transactions and rules.aborts_unsettled:
                member = abort(rules, world, member)
            yield f"gives up {p} unsettled", with_member(_excuse(world, s), s, without(member, p))


STEPS = (read, write, go_on, ask_again, give_up, take, acknowledge, arrive, assign, lose, bury)
FAULTS = (crash, expel, move, fail, hurry)


# What must hold.


def complaint(rules: Rules, world: World) -> str:
    """Say what is wrong in a state, or in the step that led to it."""
    for p, outputs in enumerate(world.outputs):
        for offset, count in enumerate(outputs):
            committed = offset < world.committed[p]
            if committed and not (count and (p, offset) in world.heard):
                return f"committed {p}:{offset}, whose output is not acknowledged"
            if count > 1 and rules.transactions:
                return f"{p}:{offset} has {count} outputs"
    return world.complaint


def finished(world: World) -> bool:
    """Every record has an output, and is committed."""
    return all(
        all(outputs) and committed == len(outputs)
        for outputs, committed in zip(world.outputs, world.committed, strict=True)
    )


class Explored(NamedTuple):
    states: int
    complaint: str = ""
    trace: tuple[str, ...] = ()


def explore(rules: Rules, partitions: int, records: int, faults: tuple[int, ...]) -> Explored:
    """Visit every state that can be reached; stop at the first with a complaint.

    Without one, look whether from each state the end can be reached with no further fault.
    """
    first = start(partitions, records, faults)
    number = {first: 0}
    worlds = [first]
    came: list[tuple[int, str]] = [(0, "")]  # From which state, by which step.
    before: list[list[int]] = [[]]  # From which states by a step that is no fault.
    for here, world in enumerate(worlds):
        if what := complaint(rules, world):
            return Explored(len(worlds), what, _trace(came, here))
        for step, then, is_fault in _following(rules, world):
            there = number.setdefault(then, len(worlds))
            if there == len(worlds):
                worlds.append(then)
                came.append((here, step))
                before.append([])
            if not is_fault:
                before[there].append(here)
    good = [here for here, world in enumerate(worlds) if finished(world)]
    ends = set(good)
    while good:
        new = [b for b in before[good.pop()] if b not in ends]
        ends.update(new)
        good += new
    if stuck := [here for here in range(len(worlds)) if here not in ends]:
        return Explored(len(worlds), "it cannot come to an end", _trace(came, stuck[0]))
    return Explored(len(worlds))


def _following(rules: Rules, world: World) -> Iterator[tuple[str, World, bool]]:
    for s, name in enumerate("AB"):
        for do in STEPS:
            for step, then in do(rules, world, s):
                yield f"{name} {step}", then, False
        for kind, do in enumerate(FAULTS):
            if world.left[kind]:
                left = put(world.left, kind, world.left[kind] - 1)
                for step, then in do(rules, world, s):
                    yield f"{name} {step}", then._replace(left=left), True


def _trace(came: list[tuple[int, str]], here: int) -> tuple[str, ...]:
    steps = []
    while here:
        here, step = came[here]
        steps.append(step)
    return tuple(reversed(steps))
