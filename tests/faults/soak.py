"""The soak: faults at random, as long as asked, and the books balanced at the end.

    python -m tests.faults.soak --minutes 10 --seed 1 --delivery at-least-once

The same seed draws the same faults; how they meet the traffic is up to the machine. Ctrl-C ends it
early, with the balance. The exit code is 1 if anything was missed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from demo.broker import BrokerUnavailable
from tests.faults.entries import Balance
from tests.faults.faults import BY_NAME, FAULTS, Fault, Site
from tests.faults.rounds import Drawer, Round, a_site, a_stage, deal
from tests.faults.stall import stall
from tests.faults.stops import stop_often
from tests.faults.terms import REBALANCE_S, Terms

EVENTS_WANTED = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    chosen = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    terms = Terms(
        workers=chosen.workers,
        rate=chosen.rate,
        delivery=chosen.delivery,
        protocol=chosen.protocol,
        static_ids=chosen.static_ids,
        seed=chosen.seed,
        session_s=chosen.session_s,
        log_level=chosen.log_level,
    )
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="odradek-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {terms.seed}, {terms.delivery}, group protocol {terms.protocol}, {folder}")
    print(_limits(terms), flush=True)
    try:
        if chosen.stall_s:
            return stall(terms, folder, chosen.stall_s)
        if chosen.stops:
            return stop_often(terms, folder, chosen.stops)
        return soak(terms, folder, chosen.minutes, _allowed(chosen.only, chosen.without))
    except BrokerUnavailable as unavailable:
        print(unavailable, file=sys.stderr)
        return 3


def soak(terms: Terms, folder: Path, minutes: float, allowed: Sequence[Fault]) -> int:
    """Deal rounds of faults for so long; print each, the table and the balance."""
    rng = random.Random(terms.seed)
    drawer = Drawer(rng, allowed)
    rounds: list[Round] = []
    more = {"ODRADEK_ON_GAP": "jump"} if any(fault.destroys for fault in allowed) else {}
    with a_stage(terms) as stage, a_site(stage, terms, folder, more) as site:
        started = time.monotonic()
        try:
            while time.monotonic() - started < 60 * minutes:
                rounds.append(deal(site, drawer.draw(), rng))
                print(f"{time.monotonic() - started:5.0f} s  {rounds[-1].line()}", flush=True)
                if rounds[-1].trouble and "no steady flow" in rounds[-1].trouble:
                    break  # What follows would only blur what has been seen.
        except KeyboardInterrupt:
            print("Ended early; closing the books.", flush=True)
        balance = site.arena.close_the_books()
        return report(site, rounds, balance)


def report(site: Site, rounds: Sequence[Round], balance: Balance) -> int:
    """Print the table of faults and the balance; return the exit code."""
    print(f"\n{'fault':<36}times alone  worst recovery  limit  repeats  most in a partition")
    for fault in FAULTS:
        if any(fault.name in each.names for each in rounds):
            print(_line(fault, site.arena.terms, rounds, balance))
    together = [each for each in rounds if len(each.names) > 1]
    if together:
        worst = f"{max(each.recovery_s for each in together):.2f} s"
        print(f"{'(rounds of several at once)':<36}{len(together):>5}{'':>6}{worst:>16}")
    events = sum(len(each.names) for each in rounds)
    late = [each for each in rounds if each.is_late]
    bad_stops = [stop for stop in site.stops if stop.code != 0]
    longest = max((stop.seconds for stop in site.stops), default=0.0)
    print(
        f"\n{events} fault events in {len(rounds)} rounds; {len(late)} rounds later than their "
        f"limit.\n{len(site.stops)} stops in order, {len(bad_stops)} of them not clean, the "
        f"longest {longest:.1f} s. {site.arena.group.restarts} restarts of dead workers, "
        f"{len(site.arena.group.exits)} of which had ended by themselves."
    )
    if site.false_starts:
        print(
            f"{site.false_starts} starts of the broker were false: it served its groups half "
            "loaded (Kafka's own fault, see tests/faults/loading.py), and was started again before "
            "workers could reach it."
        )
    for exit_ in site.arena.group.exits:
        print(f"  worker {exit_.worker} ended with {exit_.code}: {exit_.last_words}")
    print("\n".join(balance.lines()))
    troubles = [each for each in rounds if each.trouble]
    missed = [*balance.misses, *late, *bad_stops, *troubles, *site.arena.group.exits]
    if events < EVENTS_WANTED:
        print(f"Fewer than {EVENTS_WANTED} fault events: not a whole soak.")
    print("MISSED" if missed else "Nothing was missed.")
    return 1 if missed else 0


def _line(fault: Fault, terms: Terms, rounds: Sequence[Round], balance: Balance) -> str:
    times = sum(fault.name in each.names for each in rounds)
    alone = [each for each in rounds if each.names == (fault.name,)]
    worst = f"{max(each.recovery_s for each in alone):.2f} s" if alone else "-"
    repeats, most = balance.repeats_by_blow.get(fault.name, (0, 0))
    return (
        f"{fault.name:<36}{times:>5}{len(alone):>6}{worst:>16}{fault.limit_s(terms):>5.1f} s"
        f"{repeats:>9}{most:>21}"
    )


def _limits(terms: Terms) -> str:
    text = f"a worker's death may hold up the flow for {terms.death_limit_s:g} s: session timeout "
    text += f"{terms.session_s:g} s and {REBALANCE_S:g} s for the rebalance that follows"
    if terms.exactly_once:
        text += (
            f", transaction.timeout.ms {terms.transaction_timeout_s:g} s and the broker's sweep "
            f"{terms.transaction_sweep_s:g} s"
        )
    return text


def _allowed(only: str | None, without: str | None) -> list[Fault]:
    return [
        fault
        for fault in BY_NAME.values()
        if (not only or any(part in fault.name for part in only.split(",")))
        and not (without and any(part in fault.name for part in without.split(",")))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delivery", choices=("at-least-once", "exactly-once"))
    parser.add_argument("--protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument("--static-ids", action="store_true")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--session-s", type=float, default=Terms.session_s)
    parser.add_argument("--only", help="faults whose name contains one of these, with commas")
    parser.add_argument("--without", help="leave out faults whose name contains one of these")
    parser.add_argument("--folder", type=Path, help="for logs; default: a temporary one")
    parser.add_argument("--log-level", default="info", help="of the workers")
    parser.add_argument("--stops", type=int, default=0, help="only so many stops under load")
    parser.add_argument("--stall-s", type=float, default=0, help="only one output stall, so long")
    parser.set_defaults(delivery="at-least-once")
    return parser


if __name__ == "__main__":
    sys.exit(main())
