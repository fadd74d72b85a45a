"""The contract: canonical JSON, its own consistency, and the digest over the file."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import contract as module
from schemas import digest as digest_module
from schemas.calibration import Calibration
from schemas.contract import (
    CONTRACT_KEY,
    Contract,
    Feature,
    GoldenBatch,
    ModelRefused,
    ScoreTolerance,
    Threshold,
)
from schemas.digest import stamp, verified_digest
from schemas.event import EventLayout
from tests.builders import a_sealed_model
from tests.schemas.golden_records import CONTRACT

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)


@st.composite
def contracts(draw) -> Contract:
    width = draw(st.integers(1, 4))
    scores = st.floats(0, 1e6, width=32)
    calibration = Calibration.of(draw(st.lists(scores, min_size=1, max_size=20)))
    k = draw(st.integers(1, calibration.n))
    rate = k / (calibration.n + 1)
    rows = draw(st.integers(1, 3))
    return Contract(
        name=draw(WORDS),
        version=draw(WORDS),
        created_at="2026-01-01T00:00:00Z",
        layout=EventLayout(event_id=draw(PATHS), features=draw(st.just(()) | PATHS)),
        features=tuple(
            Feature(
                name=name,
                path=path,
                unit=draw(st.none() | WORDS),
                missing=draw(st.sampled_from(["mask", "refuse"])),
            )
            for name, path in zip(
                draw(st.lists(WORDS, min_size=width, max_size=width, unique=True)),
                draw(st.lists(PATHS, min_size=width, max_size=width, unique=True)),
                strict=True,
            )
        ),
        threshold=Threshold(
            value=calibration.threshold(rate), target_flag_rate=rate, requested_flag_rate=None
        ),
        calibration=calibration,
        score_tolerance=ScoreTolerance(relative=1e-5, scale=draw(scores)),
        golden=GoldenBatch.of(np.zeros((rows, width)), np.zeros(rows)),
        holds_training_rows=draw(st.booleans()),
        training=draw(st.dictionaries(WORDS, WORDS | st.integers(0, 9) | st.none(), max_size=3)),
    )


@given(contracts())
def test_a_contract_comes_back_as_it_was(contract):
    assert Contract.from_json(contract.to_json()) == contract


@given(contracts())
def test_its_json_is_canonical(contract):
    text = contract.to_json()
    canonical = json.dumps(
        json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert Contract.from_json(canonical).to_json() == text
    assert list(json.loads(text)) == sorted(json.loads(text))


def changed(**changes: Any) -> Contract:
    return msgspec.structs.replace(CONTRACT, **changes)


def feature(place: int, **changes: Any) -> tuple[Feature, ...]:
    features = list(CONTRACT.features)
    features[place] = msgspec.structs.replace(features[place], **changes)
    return tuple(features)


def threshold(**changes: Any) -> Threshold:
    return msgspec.structs.replace(CONTRACT.threshold, **changes)


FLOATS = np.array([0.5, 1.5, 2.5], "<f4")
INCONSISTENT: dict[str, tuple[Contract, str]] = {
    "no features": (changed(features=()), "it names 0 features"),
    "no name": (changed(name=""), "no name or no version"),
    "no version": (changed(version=""), "no name or no version"),
    "a name twice": (
        changed(features=feature(0, name="caf\u00e9")),
        "name is empty or occurs twice",
    ),
    "an empty name": (changed(features=feature(0, name="")), "name is empty or occurs twice"),
    "a path twice": (
        changed(features=feature(0, path=("shop", "caf\u00e9"))),
        "path is empty or occurs twice",
    ),
    "an empty path": (changed(features=feature(0, path=())), "path is empty or occurs twice"),
    "no calibration": (changed(calibration=Calibration(values=b"")), "lengths differ"),
    "half a calibration score": (changed(calibration=Calibration(values=b"\x00" * 5)), "lengths"),
    "counts of another length": (
        changed(calibration=Calibration(values=FLOATS.tobytes(), counts=b"\x01\x00\x00\x00")),
        "lengths differ",
    ),
    "calibration not ascending": (
        changed(calibration=Calibration(values=FLOATS[::-1].tobytes())),
        "not finite and ascending",
    ),
    "calibration with a NaN": (
        changed(calibration=Calibration(values=np.array([0.5, np.nan], "<f4").tobytes())),
        "not finite and ascending",
    ),
    "a count of nothing": (
        changed(
            calibration=Calibration(
                values=FLOATS.tobytes(), counts=np.array([1, 0, 1], "<u4").tobytes()
            )
        ),
        "counts for nothing",
    ),
    "no tolerance": (
        changed(score_tolerance=ScoreTolerance(relative=0.0, scale=1.0)),
        "score tolerance",
    ),
    "a loose tolerance": (
        changed(score_tolerance=ScoreTolerance(relative=0.1, scale=1.0)),
        "score tolerance",
    ),
    "a negative scale": (
        changed(score_tolerance=ScoreTolerance(relative=1e-5, scale=-1.0)),
        "score tolerance",
    ),
    "a rate that is not supported": (
        changed(threshold=threshold(target_flag_rate=0.01)),
        "3 calibration scores cannot support a rate of 0.01",
    ),
    "a rate of one": (changed(threshold=threshold(target_flag_rate=1.0)), "cannot support"),
    "another threshold": (changed(threshold=threshold(value=2.0)), "its rule gives 2.5"),
    "no golden rows": (changed(golden=GoldenBatch(features=b"", scores=b"")), "golden batch"),
    "a golden row too short": (
        changed(golden=GoldenBatch(features=b"\x00" * 4, scores=b"\x00" * 4)),
        "golden batch",
    ),
    "a golden score too many": (
        changed(golden=GoldenBatch(features=b"\x00" * 8, scores=b"\x00" * 8)),
        "golden batch",
    ),
}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_a_contract_that_contradicts_itself_is_refused(name):
    contract, why = INCONSISTENT[name]
    with pytest.raises(ModelRefused, match="its contract is inconsistent: ") as refused:
        Contract.from_json(contract.to_json())
    assert why in str(refused.value)


def test_too_many_features_are_refused(monkeypatch):
    monkeypatch.setattr(module, "FEATURES_MAX", 1)  # The real limit would take a large contract.
    with pytest.raises(ModelRefused, match="it names 2 features; wanted 1 to 1"):
        CONTRACT.check()


def edited(**changes: Any) -> str:
    return json.dumps({**json.loads(CONTRACT.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its contract cannot be read"),
        ("{", "its contract cannot be read"),
        ("[]", "its contract cannot be read"),
        (b"\xff\xfe{}", "its contract cannot be read"),
        ("{}", "its format is ''"),
        (edited(format="other"), "its format is 'other'; wanted 'odradek-sealed-model'"),
        (edited(format_version=2), "its format version is 2; this program reads version 1"),
        (edited(format_version="1"), "its contract cannot be read"),
        (edited(features=[{"name": "a", "path": ["a"], "kind": "category"}]), "cannot be read"),
        (edited(threshold={"value": None, "target_flag_rate": 0.25}), "cannot be read"),
        (edited(calibration={"values": "not base64!"}), "cannot be read"),
        (edited(golden=None), "cannot be read"),
        (CONTRACT.to_json().replace("2.5", "NaN"), "cannot be read"),
    ],
)
def test_what_is_no_contract_is_refused(text, why):
    with pytest.raises(ModelRefused) as refused:
        Contract.from_json(text)
    assert why in str(refused.value)


def test_unknown_keys_of_training_are_kept_and_ignored():
    contract = Contract.from_json(edited(training={"later": [1]}))
    assert contract.training == {"later": [1]}


@given(st.floats(0, 1e6), st.floats(-1e-4, 1e-4), st.floats(0, 10))
def test_the_tolerance_is_relative_to_the_score_or_the_scale(score, offset, scale):
    tolerance = ScoreTolerance(relative=1e-5, scale=scale)
    wanted = not abs(score - (score + offset)) <= 1e-5 * max(score, scale)
    assert bool(tolerance.differ([score], [score + offset])[0]) == wanted


def test_nan_equals_nan_and_nothing_else():
    tolerance = ScoreTolerance(relative=1e-5, scale=1.0)
    differ = tolerance.differ([np.nan, np.nan, 1.0, np.inf], [np.nan, 1.0, np.nan, 1.0])
    assert differ.tolist() == [False, True, True, True]


class TestDigest:
    sealed = a_sealed_model()

    def test_a_sealed_file_carries_its_digest(self):
        digest = verified_digest(self.sealed)
        assert len(digest) == 64
        assert self.sealed.count(digest.encode()) == 1
        assert CONTRACT_KEY.encode() in self.sealed

    def test_any_changed_byte_is_caught(self):
        """Every byte of the digest's entry and a sample of the others."""
        place = self.sealed.index(b"odradek.digest")
        places = {*range(0, len(self.sealed), 37), *range(place - 4, len(self.sealed))}
        for at in places:
            changed = bytearray(self.sealed)
            changed[at] ^= 1
            with pytest.raises(ModelRefused):
                verified_digest(bytes(changed))

    @given(st.data())
    def test_any_edit_is_caught(self, data):
        start = data.draw(st.integers(0, len(self.sealed)))
        end = data.draw(st.integers(start, min(len(self.sealed), start + 9)))
        edited = self.sealed[:start] + data.draw(st.binary(max_size=9)) + self.sealed[end:]
        if edited == self.sealed:
            assert verified_digest(edited) == verified_digest(self.sealed)
        else:
            with pytest.raises(ModelRefused):
                verified_digest(edited)

    @pytest.mark.parametrize("kept", [0, 1, 100, -1, -64, -70, -90])
    def test_a_file_cut_short_is_caught(self, kept):
        with pytest.raises(ModelRefused, match=r"no digest|do not match"):
            verified_digest(self.sealed[:kept])

    def test_a_file_without_a_digest_is_no_sealed_model(self):
        with pytest.raises(ModelRefused, match="it carries no digest: it is no sealed model"):
            verified_digest(b"onnx" * 100)

    def test_two_digests_are_refused(self):
        place = self.sealed.index(b"\x0a\x0eodradek.digest")
        with pytest.raises(ModelRefused, match="it carries 2 digests"):
            verified_digest(self.sealed + self.sealed[place:])

    def test_a_digest_in_capitals_is_not_one(self):
        digest = verified_digest(self.sealed).encode()
        with pytest.raises(ModelRefused, match="carries no digest"):
            verified_digest(self.sealed.replace(digest, b"A" + digest[1:]))

    def test_a_stamped_file_is_not_stamped_again(self):
        with pytest.raises(ModelRefused, match="stamped before"):
            stamp(self.sealed)

    def test_stamping_is_repeatable(self):
        digest = verified_digest(self.sealed).encode()
        assert stamp(self.sealed.replace(digest, b"0" * 64)) == self.sealed

    def test_a_file_beyond_the_limit_is_refused_before_it_is_searched(self, monkeypatch):
        monkeypatch.setattr(digest_module, "FILE_BYTES_MAX", 100)
        with pytest.raises(ModelRefused, match="at most 100 are read"):
            verified_digest(self.sealed)
