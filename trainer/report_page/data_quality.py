"""What the page says of the training data: what is missing, never varies, has heavy tails or texts.

All of it is read from the contract: `Contract.training` was written when the model was made, and
each part of it is shown where it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.contract import Contract, Feature
from trainer.report_page.parts import (
    LISTING_ROWS_MAX,
    Listing,
    Section,
    flat,
    mapping,
    percent,
    written,
)

# A category's texts that are named; a feature's holes, from which on it is worth seeing.
_TEXTS_MAX = 3
_MISSING_NOTABLE = 0.01

_COUNTS = {
    "rows_read": "events read",
    "anomalies_left_out": "labelled anomalies, left out",
    "unscorable_left_out": "events with too little in them to be scored, left out",
    "rows_used": "events used",
    "repeated_rows": "events used that repeat another",
}
# They have their own place in the section.
_TOLD = {*_COUNTS, "missing_values", "missing_rows", "categories"}
_KINDS = {
    "constant": "never varied",
    "asinh": "with heavy tails (asinh)",
    "standardise": "standardised",
    "category": "categories",
}
_IF_MISSING = {"mask": "scored without it", "refuse": "not scored"}
_IF_UNSEEN = {"other": "scored as rare", "refuse": "not scored"}
_COLUMNS = {"kind": "transform", "centre": "centre", "low": "lowest", "high": "highest"}
# Of use to the graph alone.
_INNER = {"width", "mean", "scale"}


class _Data(NamedTuple):
    """What is on record: of each feature by its name, `missing` in events."""

    features: Sequence[Feature]
    counts: Mapping[str, Any]
    events: int
    missing: Mapping[str, int]
    texts: Mapping[str, Any]
    transforms: Mapping[str, Mapping[str, Any]]

    def share(self, events: object) -> float:
        return events / self.events if isinstance(events, int) and self.events else 0.0


def data(contract: Contract) -> Section:
    """Show what was seen in the training data, and what each feature is turned into."""
    record = contract.training
    counts = mapping(record.get("data_quality"))
    seen = _Data(
        features=contract.features,
        counts=counts,
        events=_whole(counts.get("rows_used")),
        missing={name: _whole(rows) for name, rows in mapping(counts.get("missing_rows")).items()},
        texts=mapping(counts.get("categories")),
        transforms={
            name: mapping(fitted) for name, fitted in mapping(record.get("transforms")).items()
        },
    )
    listed = [(title, counts[name]) for name, title in _COUNTS.items() if name in counts]
    others = flat({name: value for name, value in counts.items() if name not in _TOLD})
    listed += [(name.replace("_", " "), value) for name, value in others]
    listings = [Listing.of("Training data", ("", "number"), listed)] if listed else []
    listings += _categories(seen)
    listings.append(_features(seen))
    sentences = [*_kinds(seen), *_missing(seen)]
    if listings[-1].total > len(listings[-1].rows):
        sentences.append(
            "Listed first are features that never varied, then those that are missing in at least "
            f"{percent(_MISSING_NOTABLE)} of the events, then those with heavy tails."
        )
    return Section("data", "Data quality", tuple(sentences), listings=tuple(listings))


def _kinds(seen: _Data) -> Iterator[str]:
    kinds = Counter(str(fitted.get("kind", "unknown")) for fitted in seen.transforms.values())
    said = ", ".join(f"{count:,} {_KINDS.get(kind, kind)}" for kind, count in kinds.most_common())
    if said:
        yield f"Of {len(seen.features):,} features: {said}."


def _missing(seen: _Data) -> Iterator[str]:
    """Yield how many values are missing, and where most of them are."""
    total = seen.counts.get("missing_values")
    values = seen.events * len(seen.features)
    if not isinstance(total, int) or not values:
        return
    if total == 0:
        yield "No value is missing."
        return
    said = f"Of {values:,} values {total:,} are missing ({percent(total / values)})"
    worst = max(seen.missing, key=lambda name: seen.missing[name], default=None)
    if worst is not None:
        said += (
            f", in {len(seen.missing):,} of the features; most often {written(worst)}, in "
            f"{percent(seen.share(seen.missing[worst]))} of the events"
        )
    yield f"{said}."


def _categories(seen: _Data) -> Iterator[Listing]:
    """Yield what texts the categories know, and what becomes of others."""
    rows = []
    for feature in seen.features:
        if feature.kind != "category":
            continue
        counted = mapping(seen.texts.get(feature.name))
        rare = counted.get("rare_texts")
        others = "" if rare is None else "none"
        if rare:
            others = f"{rare:,} in {percent(seen.share(counted.get('rare_rows')))} of events"
        rows.append(
            (
                feature.name,
                len(feature.categories),
                ", ".join(_frequent(feature, counted.get("known"), seen)),
                others,
                _IF_UNSEEN.get(feature.unseen, feature.unseen),
            )
        )
    columns = ("category", "texts known", "most frequent", "too rare to be known", "if unseen")
    if rows:
        yield Listing.of("Categories", columns, rows)


def _frequent(feature: Feature, known: object, seen: _Data) -> Iterator[str]:
    """Yield the most frequent texts with their shares of the events, by their codes' counts."""
    if not isinstance(known, list) or len(known) != len(feature.categories):
        return
    counted = sorted(zip(feature.categories, known, strict=True), key=lambda one: -one[1])
    for text, events in counted[:_TEXTS_MAX]:
        yield f"{written(text, 24)} {percent(seen.share(events))}"


def _features(seen: _Data) -> Listing:
    """List the features; of more than a page bears, those that are worth seeing first."""
    features = seen.features
    if len(features) > LISTING_ROWS_MAX:
        features = sorted(features, key=lambda feature: _notable(feature.name, seen))
    numbers = [one for one in seen.transforms.values() if one.get("kind") != "category"]
    first = next(iter(numbers), {})
    names = [name for name in _COLUMNS if name in first]
    names += [name for name in first if name not in _COLUMNS and name not in _INNER]
    on_record = "missing_rows" in seen.counts
    rows = []
    for feature in features:
        kind = f"{feature.kind}, {feature.unit}" if feature.unit else feature.kind
        fitted = seen.transforms.get(feature.name, {})
        # A category's numbers are its codes, which tell a reader nothing.
        cells = [fitted.get(name, "") for name in names] if feature.kind == "number" else []
        missing = [percent(seen.share(seen.missing.get(feature.name, 0)))] if on_record else []
        policy = _IF_MISSING.get(feature.missing, feature.missing)
        rows.append(
            (feature.name, kind, *missing, policy, *cells, *[""] * (len(names) - len(cells)))
        )
    columns = ("feature", "kind", *(["missing"] if on_record else []), "if missing")
    return Listing.of(
        "Features and their transforms", (*columns, *(_COLUMNS.get(n, n) for n in names)), rows
    )


def _notable(name: str, seen: _Data) -> tuple[int, float]:
    """Return what puts features that are worth seeing first when sorted by it."""
    kind, share = seen.transforms.get(name, {}).get("kind"), seen.share(seen.missing.get(name, 0))
    if kind == "constant":
        return 0, 0.0
    if share >= _MISSING_NOTABLE:
        return 1, -share
    return (2 if kind == "asinh" else 3), -share


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
