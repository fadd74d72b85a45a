"""The texts behind the codes of categories, for what explains a flagged event. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from schemas.contract import Contract
from schemas.event import InvalidEvent, parse_event
from schemas.score import TopFeature


def name_categories(
    explained: list[list[TopFeature]], values: Iterable[bytes | None], contract: Contract
) -> list[list[TopFeature]]:
    """Return the top features of events with their categories as texts; `values` are the records'.

    An unseen text is read again from its record, as its code says only that it is unseen: null if
    that was packed. Null is also expected where the model expects none of those that it knows.
    """
    categories = {
        feature.name: (place, feature.categories)
        for place, feature in enumerate(contract.features)
        if feature.kind == "category"
    }
    if not categories:
        return explained

    def named(top: TopFeature, value: bytes | None) -> TopFeature:
        if top.name not in categories:
            return top
        place, texts = categories[top.name]
        seen = _text(top.value, texts)
        if seen is None:
            seen = _text_in(value, contract, place)
        return replace(top, value=seen, expected=_text(top.expected, texts))

    return [
        [named(top, value) for top in tops] for tops, value in zip(explained, values, strict=True)
    ]


def _text(code: float | str | None, texts: Sequence[str]) -> str | None:
    """Return the text of a code, or of the nearest one to what a graph gives for one."""
    if not isinstance(code, float):
        return None
    place = round(max(code, 0.0))
    return texts[place] if place < len(texts) else None


def _text_in(value: bytes | None, contract: Contract, place: int) -> str | None:
    """Return the text of the feature at `place`, as the event in a record has it."""
    heard = [None if codes is None else _Heard() for codes in contract.codes]
    try:
        parse_event(value, contract.layout, contract.paths, heard)
    except InvalidEvent:  # It was packed: there is no text.
        return None
    return next(iter(heard[place] or ()), None)


class _Heard(dict[str, int]):
    """Takes every text for a category, and remembers it."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, 0)
