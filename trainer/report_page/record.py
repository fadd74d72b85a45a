"""What the page says of how a model was made: its data, its training, and what it costs to run.

All of it is read from the contract. `Contract.training` has free keys, so each is shown where it
is known and listed by name where it is not; none is required to be there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

from schemas.contract import Feature
from trainer.report_page.feature_plots import loss_curve
from trainer.report_page.parts import LISTING_ROWS_MAX, Listing, Plot, Section, percent, written
from trainer.runtime import BATCH_ROWS, SealedModel

_CURVES_MAX = 8
_ITEMS_MAX = 8
# These have their own place on the page.
_KNOWN = {
    *("settings", "seed", "versions", "rows", "rows_sha256"),
    *("data_quality", "transforms", "curves", "curves_by_detector", "notes"),
    *("detectors", "stored_rows"),
}
# What is worth seeing of many features comes first.
_NOTABLE = {"constant": 0, "asinh": 1}


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
    kinds = sorted({feature.kind for feature in contract.features})
    rows = [
        ("name", contract.name),
        ("version", contract.version),
        ("created", contract.created_at),
        ("digest (SHA-256)", sealed.digest),
        ("size", f"{sealed.file_bytes:,} bytes"),
        ("format", f"{contract.format} {contract.format_version}"),
        ("features", f"{len(contract.features):,} ({', '.join(kinds)})"),
        ("features that must not be missing", refusing),
        ("where an event holds its features", ".".join(contract.layout.features) or "at the top"),
        ("threshold", f"{contract.threshold.value:.6g}"),
        ("target flag rate", percent(contract.threshold.target_flag_rate)),
        ("rule of the threshold", contract.threshold.rule),
        ("scores hold on other machines to", f"{contract.score_tolerance.relative:g} relative"),
        ("detectors", ", ".join(_weighed(_mapping(contract.training.get("detectors"))))),
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
    parts = _mapping(record.get("rows"))
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


def data(sealed: SealedModel) -> Section:
    """Show what was seen in the training data, and what each feature is turned into."""
    contract = sealed.contract
    quality = _flat(_mapping(contract.training.get("data_quality")))
    seen = [(name.replace("_", " "), value) for name, value in quality]
    transforms = {
        name: _mapping(fitted)
        for name, fitted in _mapping(contract.training.get("transforms")).items()
    }
    kinds = Counter(str(transform.get("kind", "unknown")) for transform in transforms.values())
    said = ", ".join(f"{count:,} {_KINDS.get(kind, kind)}" for kind, count in kinds.most_common())
    sentences = [f"Of {len(contract.features):,} features: {said}."] if said else []
    listings = [Listing.of("Training data", ("", "events or values"), seen)] if seen else []
    listings.append(_features(contract.features, transforms))
    if listings[-1].total > len(listings[-1].rows):
        sentences.append("Of the features, constants are listed first, then heavy tails.")
    return Section("data", "Data quality", tuple(sentences), listings=tuple(listings))


def _features(features: Sequence[Feature], transforms: Mapping[str, Mapping[str, Any]]) -> Listing:
    """List the features; of more than a page bears, those that are worth seeing first."""
    if len(features) > LISTING_ROWS_MAX:
        kinds = {name: str(transform.get("kind")) for name, transform in transforms.items()}
        features = sorted(features, key=lambda f: _NOTABLE.get(kinds.get(f.name, ""), 2))
    first = next(iter(transforms.values()), {})
    names = [name for name in _COLUMNS if name in first]
    names += [name for name in first if name not in _COLUMNS and name not in _INNER]
    rows = []
    for feature in features:
        kind = f"category of {len(feature.categories):,}" if feature.categories else feature.kind
        kind = f"{kind}, {feature.unit}" if feature.unit else kind
        fitted = transforms.get(feature.name, {})
        rows.append((feature.name, kind, feature.missing, *(fitted.get(n, "") for n in names)))
    columns = ("feature", "kind", "if missing", *(_COLUMNS.get(n, n) for n in names))
    return Listing.of("Features and their transforms", columns, rows)


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
    settings = list(_flat(_mapping(record.get("settings"))))
    versions = list(_flat(_mapping(record.get("versions"))))
    others = list(_flat({name: value for name, value in record.items() if name not in _KNOWN}))
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


_PARTS = {
    "fit": "preprocessing and the network's weights",
    "stop": "when to stop, and how well each feature is reconstructed",
    "combine": "how several detectors are brought together",
    "calibrate": "threshold and p-values",
}
_KINDS = {
    "constant": "never varied",
    "asinh": "with heavy tails (asinh)",
    "standardise": "standardised",
}
_COLUMNS = {"kind": "transform", "centre": "centre", "low": "lowest", "high": "highest"}
# Of use to the graph alone.
_INNER = {"width", "mean", "scale"}


def _curves(value: object, head: str = "") -> Iterator[Plot]:
    """Yield a plot for each pair of curves, however deep under the names of heads."""
    curves = _mapping(value)
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


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted names and their values; a long list is only counted."""
    for name, value in values.items():
        place = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}.")
        elif isinstance(value, list | tuple):
            few = len(value) <= _ITEMS_MAX and not any(isinstance(x, dict | list) for x in value)
            yield place, ", ".join(map(written, value)) if few else f"{len(value):,} in all"
        else:
            yield place, value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> Iterator[str]:
    yield from (str(item) for item in value) if isinstance(value, list) else ()
