"""The model of `interleavings`: its state, and what a member does.

A member is a worker as the group sees it, reduced to its rules: `worker.service`, `worker.source`
and `worker.committer` without their code. A step is a function that takes a state to all that can
follow it; what cannot be done now yields nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

TURN_RECORDS_MAX = 2
Record = tuple[int, int]  # Partition and offset.


@dataclass(frozen=True)
class Rules:
    """What worker and broker hold themselves to; a test breaks them one at a time."""

    order: tuple[str, ...] = ("settle", "commit")  # What becomes of a turn once it is written.
    commits_by_number: bool = True  # Only under the number of the partition's assignment.
    writes_by_number: bool = True
    commits_the_turn: bool = True  # Not where the consumer stands by then.
    forgets_lost: bool = True
    transactions: bool = False
    waits_for_last: bool = True  # Nothing is written before the last transaction has ended.
    aborts_hand: bool = True  # With a transaction, what is in hand goes too.
    aborts_lost: bool = True
    aborts_unsettled: bool = True  # When a rebalance will not wait.
    # The broker's, and the client's.
    fences: bool = True  # Offsets go into a transaction from members only,
    fetches_stable: bool = True  # and are not fetched while a transaction holds them open.
    in_order: bool = True  # What a member tells the group arrives in the order it was told.


AT_LEAST_ONCE = Rules()
EXACTLY_ONCE = Rules(order=("settle", "add offsets", "end"), transactions=True)


class Place(NamedTuple):
    """A partition that a member has: the number of its assignment, and where it reads."""

    number: int
    position: int


class End(NamedTuple):
    """Where a turn ends in a partition, and the number under which it was read."""

    partition: int
    number: int
    offset: int


class Turn(NamedTuple):
    records: tuple[Record, ...]
    ends: tuple[End, ...]


class Flight(NamedTuple):
    turn: Turn
    wire: frozenset[Record]  # Outputs that the broker has not taken.
    unheard: frozenset[Record] = frozenset()  # Taken, not heard acknowledged.
    done: int = 0  # How many steps of `Rules.order`.


class Member(NamedTuple):
    owned: tuple[Place | None, ...]
    owed: tuple[End | None, ...]  # Offsets asked for and not confirmed.
    hand: Turn | None = None
    flight: Flight | None = None
    channel: tuple[tuple[str, tuple[End, ...]], ...] = ()  # Told to the group, not arrived.
    alive: bool = True


class World(NamedTuple):
    members: tuple[Member, ...]
    joined: tuple[bool, ...]  # Whether the group counts the member.
    target: tuple[int | None, ...]  # Who is to have each partition.
    owner: tuple[tuple[int, int] | None, ...]  # Who has it, under which number.
    numbers: tuple[int, ...]  # Of the latest assignments.
    committed: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]  # How many each record has, for `read_committed`.
    left: tuple[int, ...]  # How often each of `FAULTS` may still happen.
    heard: frozenset[Record]  # Some worker knows that the output was taken.
    written: tuple[int, ...]  # Up to where outputs were ever written.
    excused: tuple[int, ...]  # Up to where a crash or a loss explains a repeat.
    complaint: str = ""  # What the step to here did that must not be.


Next = Iterator[tuple[str, World]]


def start(partitions: int, records: int, faults: tuple[int, ...]) -> World:
    """Partition p is with member p; nothing has been read."""
    each = range(partitions)
    zero, none = (0,) * partitions, (None,) * partitions
    members = tuple(Member(put(none, s, Place(1, 0)) if s in each else none, none) for s in (0, 1))
    return World(
        members, (True, True), tuple(each), tuple((p, 1) for p in each), (1,) * partitions, zero,
        ((0,) * records,) * partitions, faults, frozenset(), zero, zero,
    )  # fmt: skip


def put(items: tuple, at: int, item: object) -> tuple:
    return (*items[:at], item, *items[at + 1 :])


def with_member(world: World, s: int, member: Member) -> World:
    return world._replace(members=put(world.members, s, member))


# What a member does.


def read(_: Rules, world: World, s: int) -> Next:
    """Take one or two records that wait; their offsets are fixed here."""
    member = world.members[s]
    if member.hand or not member.alive:
        return
    for counts in _batches(len(member.owned)):
        owned, records, ends = member.owned, [], []
        for p, place in enumerate(member.owned):
            if place and counts[p] and place.position + counts[p] <= len(world.outputs[p]):
                end = place.position + counts[p]
                records += [(p, offset) for offset in range(place.position, end)]
                ends.append(End(p, place.number, end))
                owned = put(owned, p, Place(place.number, end))
        if len(records) == sum(counts):
            hand = Turn(tuple(records), tuple(ends))
            then = member._replace(owned=owned, hand=hand)
            yield f"reads {text(hand.records)}", with_member(world, s, then)


def write(rules: Rules, world: World, s: int) -> Next:
    """Hand over the outputs of the turn in hand, once none is in flight."""
    member = world.members[s]
    if member.hand is None:
        return
    turn = still_owned(member, member.hand) if rules.writes_by_number else member.hand
    wire = frozenset(turn.records)
    if member.flight is None:
        then = member._replace(hand=None, flight=Flight(turn, wire) if turn.ends else None)
    elif turn.records and not rules.waits_for_last:  # Into the transaction that is open.
        both = Turn(member.flight.turn.records + turn.records, member.flight.turn.ends)
        flight = member.flight._replace(turn=both, wire=member.flight.wire | wire)
        then = member._replace(hand=Turn((), turn.ends), flight=flight)
    else:
        return
    noted = world if rules.transactions else _note_written(world, s, turn)
    yield f"writes {text(turn.records)}", with_member(noted, s, then)


def go_on(rules: Rules, world: World, s: int) -> Next:
    """Take the turn in flight one step further in `Rules.order`."""
    member = world.members[s]
    if member.flight and member.alive:
        step = rules.order[member.flight.done]
        done = member.flight.done + 1
        flight = None if done == len(rules.order) else member.flight._replace(done=done)
        further = with_member(world, s, member._replace(flight=flight))
        yield from _ORDERED[step](rules, further, s, member.flight)


def settle(_: Rules, world: World, __: int, flight: Flight) -> Next:
    """Every output is acknowledged."""
    if not flight.wire and not flight.unheard:
        yield "settles", world


def commit(rules: Rules, world: World, s: int, flight: Flight) -> Next:
    """Ask for the turn's offsets and for all that are owed; do not wait."""
    member = world.members[s]
    turn = still_owned(member, flight.turn) if rules.commits_by_number else flight.turn
    owed = member.owed
    for end in turn.ends:
        place = member.owned[end.partition]
        position = end.offset if rules.commits_the_turn or not place else place.position
        owed = put(owed, end.partition, end._replace(offset=position))
    then = _ask(member._replace(owed=owed))
    yield f"commits {text(filter(None, owed))}", with_member(world, s, then)


def add_offsets(rules: Rules, world: World, s: int, flight: Flight) -> Next:
    """Put the turn's offsets into its transaction; who is no member is fenced, and aborts."""
    member = world.members[s]
    if rules.fences and not world.joined[s]:
        yield "is fenced and aborts", with_member(world, s, abort(rules, world, member))
        return
    turn = flight.turn._replace(ends=still_owned(member, flight.turn).ends)
    then = member._replace(flight=member.flight._replace(turn=turn))
    yield f"adds offsets {text(turn.ends)}", with_member(checked(world, s, turn.ends), s, then)


def end(rules: Rules, world: World, _: int, flight: Flight) -> Next:
    """Commit the transaction: its outputs can be read, and its offsets hold, at once."""
    outputs = world.outputs
    for p, offset in flight.turn.records:
        outputs = put(outputs, p, put(outputs[p], offset, outputs[p][offset] + 1))
    heard = world.heard | frozenset(flight.turn.records)
    world = world._replace(outputs=outputs, heard=heard)
    if "add offsets" in rules.order:
        world = accept(world, flight.turn.ends)
    yield "ends its transaction", world


_ORDERED = {"settle": settle, "commit": commit, "add offsets": add_offsets, "end": end}


def ask_again(_: Rules, world: World, s: int) -> Next:
    """Ask for what is owed when no commit is on its way."""
    member = world.members[s]
    if any(member.owed) and not any(kind == "commit" for kind, _ in member.channel):
        yield "asks again", with_member(world, s, _ask(member))


def give_up(_: Rules, world: World, s: int) -> Next:
    """Revoked, and all is settled and committed: the number goes."""
    member = world.members[s]
    for p in revoked(world, s):
        if not member.flight and not member.owed[p]:
            yield f"gives up {p}", with_member(world, s, without(member, p))


# What its steps are made of.


@functools.cache
def _batches(partitions: int) -> list[tuple[int, ...]]:
    """How many records of each partition a turn can have."""
    counts = product(range(TURN_RECORDS_MAX + 1), repeat=partitions)
    return [each for each in counts if 1 <= sum(each) <= TURN_RECORDS_MAX]


def text(items: Iterable[tuple]) -> str:
    return " ".join(f"{item[0]}:{item[-1]}" for item in items) or "nothing"


def still_owned(member: Member, turn: Turn) -> Turn:
    """Return what is left of a turn after the rebalances since it was read."""
    ends = tuple(e for e in turn.ends if (has := member.owned[e[0]]) and has.number == e.number)
    kept = {end.partition for end in ends}
    return Turn(tuple(record for record in turn.records if record[0] in kept), ends)


def revoked(world: World, s: int) -> list[int]:
    owned = world.members[s].owned
    return [p for p, has in enumerate(owned) if has and world.joined[s] and world.target[p] != s]


def without(member: Member, p: int) -> Member:
    told = (*member.channel, ("give up", (End(p, 0, 0),)))
    owned, owed = put(member.owned, p, None), put(member.owed, p, None)
    return member._replace(owned=owned, owed=owed, channel=told)


def abort(rules: Rules, world: World, member: Member) -> Member:
    """Drop the transaction and what is in hand; read again from what is committed."""
    if not rules.aborts_hand:
        return member._replace(flight=None)
    owned = (p and Place(p.number, c) for p, c in zip(member.owned, world.committed, strict=True))
    return member._replace(owned=tuple(owned), hand=None, flight=None)


def accept(world: World, ends: Iterable[End]) -> World:
    """Hold these offsets as the group's."""
    for p, _, offset in ends:
        if offset < world.committed[p]:
            world = world._replace(complaint=f"partition {p} goes back to {offset}")
        world = world._replace(committed=put(world.committed, p, offset))
    return world


def checked(world: World, s: int, ends: Iterable[End]) -> World:
    """Complain if offsets were taken of one who does not own the partition as it was read."""
    for p, number, offset in ends:
        if world.owner[p] != (s, number):
            world = world._replace(complaint=f"{p}:{offset} of one who does not own it")
    return world


def _ask(member: Member) -> Member:
    ends = tuple(end for end in member.owed if end)
    return member._replace(channel=(*member.channel, ("commit", ends))) if ends else member


def _note_written(world: World, s: int, turn: Turn) -> World:
    """Complain of a repeat that no crash and no loss explains."""
    for p, offset in turn.records:
        written, excused = world.written, world.excused
        if not world.joined[s]:  # Expelled, and does not know: lost with all that it still writes.
            world = world._replace(excused=put(excused, p, max(excused[p], offset + 1)))
        elif offset < world.committed[p] or excused[p] <= offset < written[p]:
            world = world._replace(complaint=f"{p}:{offset} is repeated without a reason")
        world = world._replace(written=put(written, p, max(written[p], offset + 1)))
    return world
