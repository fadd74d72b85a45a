"""The end of the demonstration: do the books balance, and what was found?"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from demo.books import Books
from demo.events import ANOMALIES, NORMAL
from demo.player import Player
from schemas.contract import Contract

DRAWS = 100_000
NEXT = """\
[bold]What to try next[/bold]
  make demo KILL=yes                                        kill -9 the worker half-way
  .venv/bin/odradek-worker check demo/run/collisions.onnx   what is this file?
  .venv/bin/odradek-worker score demo/run/collisions.onnx demo/run/sample.jsonl
  .venv/bin/odradek-trainer evaluate demo/run/collisions.onnx demo/run/labelled.npz
  .venv/bin/odradek-trainer fit YOUR.csv --out yours.onnx   README.md: your own events
"""


def print_summary(
    console: Console,
    books: Books,
    player: Player,
    starts: int,
    worker_exit: int | None,
    contract: Contract,
) -> int:
    """Print the balance; return the demonstration's exit code: 0 if nothing was lost."""
    sent = dict(player.sent)
    missing = books.missing(sent)
    console.print(_found(books, sent, contract))
    console.print(_balance(books, sent, missing, starts))
    problems = []
    if missing:
        problems.append(f"{len(missing):,} events have no output, such as {min(missing)}")
    if player.failed:
        problems.append(f"not every event could be sent: {player.failed}")
    if worker_exit != 0:
        problems.append(
            f"the worker did not stop in order, exit {worker_exit}: its log is demo/run/worker.log"
        )
    for problem in problems:
        console.print(f"[red]{problem}[/red]", soft_wrap=True)
    if not problems:
        console.print("[green]Nothing was lost.[/green]")
    console.print(f"\n{NEXT}", highlight=False, soft_wrap=True)
    return 1 if problems else 0


def _found(books: Books, sent: dict[tuple[int, int], str], contract: Contract) -> Table:
    by_kind = books.flagged_by_kind(sent)
    _, ordinary = by_kind.get(NORMAL, (0, 0))
    table = Table(
        title="flagged, by what the different collisions really were",
        caption=_expected(contract, ordinary),
    )
    table.add_column("kind")
    for name in ("flagged", "of", "share"):
        table.add_column(name, justify="right")
    for kind in (NORMAL, *ANOMALIES):
        flagged, total = by_kind.get(kind, (0, 0))
        share = f"{flagged / total:.2%}" if total else "-"
        name = f"{kind} (false alarms)" if kind == NORMAL else ANOMALIES[kind]
        table.add_row(name, f"{flagged:,}", f"{total:,}", share)
    return table


def _expected(contract: Contract, events: int) -> str:
    """Say how many of so many normal events the threshold may flag.

    It is itself drawn: the k-th largest of n calibration scores is exceeded by a share of normal
    events that is Beta(k, n + 1 - k) distributed, so the count is beta-binomial.
    """
    n, rate = contract.calibration.n, contract.threshold.target_flag_rate
    k = contract.calibration.flagged_max(rate)
    rng = np.random.default_rng(0)
    low, high = np.quantile(
        rng.binomial(events, rng.beta(k, n + 1 - k, DRAWS)), [0.005, 0.995]
    ).astype(int)
    return (
        f"the target for ordinary ones is {rate:.2%}, {rate * events:.0f} of {events:,}; with a "
        f"threshold from {n:,} calibration events, {low} to {high} are to be expected"
    )


def _balance(
    books: Books,
    sent: dict[tuple[int, int], str],
    missing: set[tuple[int, int]],
    starts: int,
) -> Table:
    median, high = books.latency_ms()
    letters = books.dead_letters.total()
    reasons = ", ".join(f"{reason} {n}" for reason, n in books.dead_letters.most_common())
    table = Table(title="the balance", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    table.add_row("sent", f"{len(sent):,}", "acknowledged by the broker")
    table.add_row("scores", f"{len(books.verdicts) - letters:,}", "distinct source positions")
    table.add_row("dead letters", f"{letters:,}", reasons)
    table.add_row("lost", f"{len(missing):,}", "sent, and in neither")
    table.add_row("repeats", f"{books.repeats:,}", "the same source position again")
    table.add_row("worker starts", f"{starts}", "")
    table.add_row("latency", f"{median:.0f} ms", f"median; p99 {high:.0f} ms, as a reader sees it")
    return table
