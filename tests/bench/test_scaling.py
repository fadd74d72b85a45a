"""The page on scaling says what the arithmetic and the simulation say, and the measuring works."""

from __future__ import annotations

import re
import sys

import pytest

from bench.scaling import PAGE, PARTS, written_into
from bench.share import measure
from demo.broker import Broker
from tests.components import or_skip


def test_the_pages_figures_are_those_that_are_computed():
    """`python -m bench.scaling --write` renews them."""
    page = PAGE.read_text()
    assert written_into(page) == page


def test_a_page_without_a_place_for_a_part_is_refused():
    page = PAGE.read_text()
    for name in PARTS:
        with pytest.raises(ValueError, match=name):
            written_into(page.replace(f"<!-- {name}: begin -->", ""))


@pytest.mark.skipif(sys.platform != "linux", reason="CPU and cores are read from Linux's /proc")
def test_two_workers_on_two_partitions_are_measured_with_their_shares():
    """It ends with a table only if the two did every event once, between them."""
    with or_skip(Broker) as broker:
        table = measure(broker, 60_000, [(2, 2)])
    shares = re.search(r"\| 2 \| 2 \| [\d,]+ \| ([\d.]+)%, ([\d.]+)% \|", table)
    assert shares is not None, table
    assert sum(map(float, shares.groups())) == pytest.approx(100, abs=0.2)
    assert min(map(float, shares.groups())) > 40
