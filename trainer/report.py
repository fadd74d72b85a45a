"""One self-contained HTML page about a sealed model, for a person to send to a colleague.

The page needs nothing but itself: no script, no network, its colours follow the reader's light or
dark, and print is light. It is the same for the same model and labelled events, but for the
measured cost. Whatever names the model and its features bear is text there, never HTML: the
template escapes it, Vega does in plots, and the page's own policy lets nothing run or load.
"""

from __future__ import annotations

import platform
import time
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from msgspec import UNSET

from schemas.contract import Contract
from schemas.errors import SettingsError
from trainer.report_page import data_quality, groups, record, sections
from trainer.report_page.labelled import Labelled
from trainer.report_page.parts import Section, percent, written
from trainer.report_page.record import Cost
from trainer.runtime import BATCH_ROWS, SealedModel, run
from trainer.seal import check_place, staged

_MEASURE_CPU_S = 0.5
_BATCHES_MIN, _BATCHES_MAX = 5, 200


def write_report(out: Path, model: SealedModel, labelled: Labelled | None, written_by: str) -> None:
    """Write the page to `out`, whole or not at all; `written_by` is the command that does.

    Raises:
        OutsideError: the disk is full, or does not let us.
    """
    page = render(model, labelled, measure_cost(model), written_by)
    with staged(out) as draft:
        draft.write_text(page, encoding="utf-8")


def check_page_writable(out: Path, flag: str) -> None:
    """Check, before any work, that the page will have a place; `flag` is what named it.

    Raises:
        SettingsError: it is no name of an HTML file, or its folder is absent or closed to us.
    """
    if out.suffix not in {".html", ".htm"}:
        raise SettingsError(f"{flag} {out}: wanted a name that ends in .html")
    check_place(out, flag)


def render(
    model: SealedModel, labelled: Labelled | None, cost: Cost, written_by: str = "report"
) -> str:
    """Return the page."""
    contract = model.contract
    grouped = contract.groups is not UNSET
    parts = [
        sections.scores(contract, labelled),
        groups.false_alarms(contract) if grouped else sections.false_alarms(contract),
        sections.detection(contract, labelled),
        groups.promise(contract, labelled)
        if grouped and labelled
        else sections.promise(contract, labelled),
        sections.features(contract, labelled),
        record.model(model),
        record.training(contract.training),
        data_quality.data(contract),
        record.cost(cost),
        record.making(contract.training),
    ]
    return _lay_out(contract, _cards(model, labelled, cost), parts, written_by)


def measure_cost(model: SealedModel) -> Cost:
    """Measure the CPU time of the graph, for about half a second.

    The less extreme half of the golden rows stands for ordinary events, over and over.
    """
    golden = model.contract.golden
    order = np.argsort(golden.expected_scores(), kind="stable")  # NaN is last.
    rows = golden.rows(len(model.contract.features))[order[: max(1, len(order) // 2)]]
    batch = np.resize(rows, (BATCH_ROWS, rows.shape[1]))
    run(model.session, batch)
    spent: list[float] = []
    while len(spent) < _BATCHES_MIN or (sum(spent) < _MEASURE_CPU_S and len(spent) < _BATCHES_MAX):
        start = time.process_time()
        run(model.session, batch)
        spent.append(time.process_time() - start)
    per_event = np.array(spent) / BATCH_ROWS * 1e6
    return Cost(
        float(np.median(per_event)),
        float(per_event.min()),
        float(per_event.max()),
        len(spent),
        _processor(),
    )


def _cards(model: SealedModel, labelled: Labelled | None, cost: Cost) -> list[tuple[str, str]]:
    """Return the figures that stand at the top."""
    contract = model.contract
    cards = [
        ("target flag rate", percent(contract.threshold.target_flag_rate)),
        ("calibration events", f"{groups.calibration_events(contract):,}"),
        ("CPU per event", f"{cost.median:.2f} µs"),
    ]
    if labelled:
        at = labelled.evaluation
        cards[:0] = [
            ("area under ROC", f"{at.auc:.4f}"),
            ("anomalies found", percent(at.tpr)),
            ("normal events flagged", percent(at.fpr)),
        ]
    return cards


def _lay_out(
    contract: Contract, cards: list[tuple[str, str]], parts: list[Section], written_by: str
) -> str:
    files = resources.files("trainer.report_page")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["written"] = written
    template = environment.from_string(files.joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        contract=contract,
        cards=cards,
        sections=parts,
        written_by=written_by,
        style=Markup(files.joinpath("page.css").read_text("utf-8")),  # noqa: S704  # Our own file.
    )


def _processor() -> str:
    """Return what the machine calls its processor, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
