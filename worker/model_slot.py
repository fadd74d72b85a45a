"""Which model is current, and whether a new one may take its place.

The file is looked at between turns, never within one. A changed file is read once, tried, and
either becomes current or is refused by name; a refused one is not tried again until it changes.
There is no thread: opening a model of 1 MB takes about 10 ms on a CPU. While it is tried, two are
open; the old one's memory is let go of as soon as the new one is current.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from schemas.contract import Contract, ModelRefused
from schemas.errors import OutsideError, SettingsError
from worker.logs import fields
from worker.model import Model

log = logging.getLogger(__name__)

Signature = tuple[int, int, int]
GONE_S = 10.0


class ModelSlot:
    """Holds the current model of one file.

    `on_load` is told the outcome of every attempt, `accepted`, `refused`, or `unchanged` where the
    file is the current model's, and which model is current after it. No file is refused too.
    """

    def __init__(
        self,
        path: Path,
        open_model: Callable[[bytes], Model],
        *,
        check_interval_s: float,
        allow_contract_change: bool,
        on_load: Callable[[str, Model], None],
    ) -> None:
        self._path = path
        self._open = open_model
        self._check_interval_s = check_interval_s
        self._allow_contract_change = allow_contract_change
        self._on_load = on_load
        self._seen: Signature | None = _signature(path)
        self._next_check: float = 0.0
        self._gone_since: float | None = None
        self.current = self._first()

    def refresh(self, now: float) -> None:
        """Look for a new file if the interval has passed; `now` is monotonic seconds."""
        if now < self._next_check:
            return
        self._next_check = now + self._check_interval_s
        signature = _signature(self._path)
        if signature is None:
            self._look_for_long(now)
            return
        self._gone_since = None
        if signature == self._seen:
            return
        self._seen = signature
        try:
            model = self._open(self._path.read_bytes())
            self._check_same_features(model)
        except Exception as refusal:  # No file, whatever it holds, may end a worker.
            expected = isinstance(refusal, ModelRefused | OutsideError | OSError)
            log.error(
                "Model file %s was refused: %s. Still scoring with %s. It is tried again when "
                "the file changes.",
                self._path,
                refusal,
                _describe(self.current),
                exc_info=None if expected else refusal,
                extra=fields(outcome="refused"),
            )
            self._on_load("refused", self.current)
            return
        if model.digest == self.current.digest:
            self._on_load("unchanged", self.current)  # Touched, copied over itself, or put back.
            return
        log.info(
            "Now scoring with %s on %s, before with %s.",
            _describe(model),
            model.provider,
            _describe(self.current),
            extra=_fields(model),
        )
        self.current = model
        self._on_load("accepted", model)

    def _look_for_long(self, now: float) -> None:
        """Say that the file is gone; not of the moment between a writer's remove and rename."""
        if self._gone_since is None:
            self._gone_since = now
        if self._seen is not None and now - self._gone_since >= GONE_S:
            self._seen = None  # Whatever comes there next is tried.
            log.error(
                "Model file %s is gone. Still scoring with %s, which is in memory alone: a worker "
                "that starts now finds none and ends.",
                self._path,
                _describe(self.current),
                extra=fields(outcome="refused"),
            )
            self._on_load("refused", self.current)

    def _first(self) -> Model:
        try:
            sealed = self._path.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"the model file {self._path} cannot be read ({error.strerror}); wanted a file "
                "sealed by odradek-trainer. Not starting"
            ) from None
        try:
            model = self._open(sealed)
        except ModelRefused as refusal:
            raise SettingsError(
                f"the model file {self._path} was refused: {refusal}. Not starting"
            ) from None
        log.info(
            "Scoring with %s on %s; JSON is read %s the compiled scanner.",
            _describe(model),
            model.provider,
            "by" if model.decoder.scans else "without",
            extra=_fields(model),
        )
        self._on_load("accepted", model)
        return model

    def _check_same_features(self, model: Model) -> None:
        if self._allow_contract_change:
            return
        old, new = self.current.contract, model.contract
        known = {feature.name: feature for feature in old.features}
        for feature in new.features:
            before = known.get(feature.name, feature)
            if replace(feature, categories=before.categories) == before != feature:
                raise ModelRefused(
                    f"the category {feature.name!r} knows {len(feature.categories):,} texts, other "
                    f"ones than the current model's {len(before.categories):,}, so that packed "
                    "events mean something else; ODRADEK_ALLOW_CONTRACT_CHANGE=true allows it, and "
                    "does no harm where events are JSON"
                )
        if _group_place(old) != _group_place(new):
            raise ModelRefused(
                f"its groups are read from {_group_place(new)}, the current model's from "
                f"{_group_place(old)}; ODRADEK_ALLOW_CONTRACT_CHANGE=true allows it, and events "
                "that say nothing there are judged by the pooled calibration"
            )
        if (old.features, old.layout) != (new.features, new.layout):
            raise ModelRefused(
                f"its {len(new.features)} features or their places differ from the current "
                f"model's {len(old.features)}; ODRADEK_ALLOW_CONTRACT_CHANGE=true would allow it"
            )


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _group_place(contract: Contract) -> str:
    """Return where records say their groups; which groups there are is the training's affair."""
    if contract.groups is UNSET:
        return "nowhere"
    source, place = contract.groups.place
    named = place if isinstance(place, str) else ".".join(place)
    return {"feature": f"the feature {named!r}", "event": f"the event at {named}"}.get(
        source, "the record's key"
    )


def _fields(model: Model) -> dict[str, dict[str, object]]:
    seen = model.reference
    return fields(
        outcome="accepted",
        name=seen.name,
        version=seen.version,
        digest=seen.digest,
        provider=model.provider,
    )


def _describe(model: Model) -> str:
    return f"{model.contract.name} {model.contract.version} ({model.digest[:12]})"
