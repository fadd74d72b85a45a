"""What the page says of how a model was made: its training, and what it costs to run.

All of it is read from the contract. `Contract.training` has free keys, so each is shown where it
is known and listed by name where it is not; none is required to be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

from trainer.report_page.feature_plots import loss_curve
from trainer.report_page.parts import Listing, Plot, Section, flat, mapping, percent, written
from trainer.runtime import BATCH_ROWS, SealedModel
from trainer.settings import is_heeded

_CURVES_MAX = 8
# These have their own place on the page.
_KNOWN = {
    *("settings", "seed", "versions", "rows", "rows_sha256"),
    *("data_quality", "transforms", "curves", "curves_by_detector", "notes"),
    *("detectors", "stored_rows"),
}


class Cost(NamedTuple):
    """CPU microseconds per event: median, lowest and highest of several batches."""

    median: float
    lowest: float
    highest: float
    batches: int
    processor: str


def model(sealed: SealedModel) -> Section:
    """Say what the file is."""
    contract = sealed.contract
    refusing = sum(feature.missing == "refuse" for feature in contract.features)
    kinds = Counter(feature.kind for feature in contract.features)
    categories = f", {kinds['category']:,} of them categories" if kinds["category"] else ""
    rows = [
        ("name", contract.name),
        ("version", contract.version),
        ("created", contract.created_at),
        ("digest (SHA-256)", sealed.digest),
        ("size", f"{sealed.file_bytes:,} bytes"),
        ("format", f"{contract.format} {contract.format_version}"),
        ("features", f"{len(contract.features):,}{categories}"),
        ("features that must not be missing", refusing),
        ("where an event holds its features", ".".join(contract.layout.features) or "at the top"),
        ("threshold", f"{contract.threshold.value:.6g}"),
        ("target flag rate", percent(contract.threshold.target_flag_rate)),
        ("rule of the threshold", contract.threshold.rule),
        ("scores hold on other machines to", f"{contract.score_tolerance.relative:g} relative"),
        ("detectors", ", ".join(_weighed(mapping(contract.training.get("detectors"))))),
        ("training rows inside the file", contract.training.get("stored_rows") or "some")
        if contract.holds_training_rows
        else ("training rows inside the file", "none"),
    ]
    sentences = tuple(_strings(contract.training.get("notes")))
    if contract.holds_training_rows:
        sentences += ("The file holds rows of the training data: who has the file can read them.",)
    identity = Listing.of("Identity", ("", ""), rows)
    return Section("model", "The model", sentences, listings=(identity,))


def _weighed(detectors: Mapping[str, Any]) -> Iterator[str]:
    for name, weight in detectors.items():
        yield name if len(detectors) == 1 else f"{name} (weight {written(weight)})"


def training(record: Mapping[str, Any]) -> Section:
    """Show the parts that the rows were dealt into, and the loss by epoch."""
    parts = mapping(record.get("rows"))
    names = [*_PARTS, *(name for name in parts if name not in _PARTS)]
    rows = [(name, parts[name], _PARTS.get(name, "")) for name in names if parts.get(name)]
    listings = (Listing.of("Rows, no row in two parts", ("part", "rows", ""), rows),)
    # Where several detectors have networks, `curves` are only the first one's.
    curves = record.get("curves_by_detector") or record.get("curves")
    plots = tuple(islice(_curves(curves), _CURVES_MAX))
    digest = record.get("rows_sha256")
    return Section(
        "training",
        "Training",
        (f"The SHA-256 of the names and values it was made from is {digest}.",) if digest else (),
        plots=plots,
        listings=listings if rows else (),
    )


def cost(measured: Cost) -> Section:
    """Say what an event costs."""
    sentence = (
        f"{measured.median:.2f} CPU microseconds per event, the median of {measured.batches:,} "
        f"batches of {BATCH_ROWS:,} events ({measured.lowest:.2f} to {measured.highest:.2f}). "
        "Measured when this page was written, on the machine that wrote it "
        f"({measured.processor}): onnxruntime, one thread, the graph alone, on ordinary golden "
        "rows over and over. Reading and writing records comes on top."
    )
    return Section("cost", "Cost per event", (sentence,))


def making(record: Mapping[str, Any]) -> Section:
    """List the settings, the versions and all else on record, by name."""
    settings = list(flat(_in_force(record)))
    versions = list(flat(mapping(record.get("versions"))))
    others = list(flat({name: value for name, value in record.items() if name not in _KNOWN}))
    titled = (
        ("Settings", ("setting", "value"), settings),
        ("Versions", ("package", "version"), versions),
        ("Also on record", ("", ""), others),
    )
    return Section(
        "making",
        "How it was made",
        listings=tuple(Listing.of(title, names, rows) for title, names, rows in titled if rows),
    )


def _in_force(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are set, without those that no chosen detector heeds."""
    settings, detectors = mapping(record.get("settings")), mapping(record.get("detectors"))
    return {
        name: value
        for name, value in settings.items()
        if value is not None and (is_heeded(name, detectors) or not detectors)
    }


_PARTS = {
    "fit": "preprocessing and the network's weights",
    "trimmed": "left out of the fit rows as dirt, as was asked",
    "stop": "when to stop, and how well each feature is reconstructed",
    "combine": "how several detectors are brought together",
    "calibrate": "threshold and p-values",
}


def _curves(value: object, head: str = "") -> Iterator[Plot]:
    """Yield a plot for each pair of curves, however deep under the names of networks."""
    curves = mapping(value)
    training, validation = curves.get("training"), curves.get("validation")
    if _are_losses(training) and _are_losses(validation) and len(training) == len(validation):
        best = curves.get("best_epoch")
        yield loss_curve(head, training, validation, best if isinstance(best, int) else 0)
        return
    inside = enumerate(value, 1) if isinstance(value, list) else curves.items()
    for name, part in inside:
        if isinstance(part, dict | list):
            yield from _curves(part, f"{head} {name}".strip())


def _are_losses(value: object) -> TypeGuard[list[float | None]]:
    """Say whether this is a curve: numbers, at least one, with null where one was not finite."""
    if not isinstance(value, list):
        return False
    numbers = [loss for loss in value if loss is not None]
    return bool(numbers) and all(isinstance(loss, int | float) for loss in numbers)


def _strings(value: object) -> Iterator[str]:
    yield from (str(item) for item in value) if isinstance(value, list) else ()
