"""The contract: canonical JSON, its own consistency, and the digest over the file."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import category as category_module
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
from tests.schemas.golden_records import CONTRACT, EXTRAPOLATING, TAIL

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(tuple)
KINDS = st.just({}) | st.fixed_dictionaries(
    {
        "kind": st.just("category"),
        "categories": st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple),
        "unseen": st.sampled_from(["other", "refuse"]),
    }
)


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
                **draw(KINDS),
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


def tailed(**changes: Any) -> Contract:
    tail = msgspec.structs.replace(TAIL, **changes)
    calibration = msgspec.structs.replace(CONTRACT.calibration, tail=tail)
    return msgspec.structs.replace(EXTRAPOLATING, calibration=calibration)


def table(values: list[float], p_values: list[float]) -> dict[str, bytes]:
    return {
        "values": np.array(values, "<f4").tobytes(),
        "p_values": np.array(p_values, "<f8").tobytes(),
    }


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
    "a category without texts": (
        changed(features=feature(0, kind="category")),
        "of the feature 'amount', it has 0 categories; wanted 1 to 1,024",
    ),
    "too many categories": (
        changed(features=feature(0, kind="category", categories=tuple(map(str, range(1025))))),
        "it has 1,025 categories",
    ),
    "a category twice": (
        changed(features=feature(0, kind="category", categories=("a", "b", "a"))),
        "a category occurs twice",
    ),
    "an empty category": (
        changed(features=feature(0, kind="category", categories=("a", ""))),
        "a category is empty or longer than 256 characters",
    ),
    "a long category": (
        changed(features=feature(0, kind="category", categories=("a" * 257,))),
        "a category is empty or longer than 256 characters",
    ),
    "a number with categories": (
        changed(features=feature(0, categories=("a",))),
        "a number has categories, or a policy for unseen ones",
    ),
    "a number with a policy for unseen ones": (
        changed(features=feature(1, unseen="refuse")),
        "a number has categories, or a policy for unseen ones",
    ),
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
    "a tail under the conformal rule": (
        changed(calibration=EXTRAPOLATING.calibration),
        "the threshold's rule is 'conformal', and there is a tail",
    ),
    "the rule of a tail without one": (
        changed(threshold=threshold(rule="generalised_pareto")),
        "the threshold's rule is 'generalised_pareto', and there is no tail",
    ),
    "a tail for a rate that needs none": (
        msgspec.structs.replace(
            EXTRAPOLATING,
            threshold=msgspec.structs.replace(
                EXTRAPOLATING.threshold, target_flag_rate=0.5, value=1.5
            ),
        ),
        "the threshold's rule is 'generalised_pareto', and its rate, 0.5, needs no tail",
    ),
    "a rate that a tail does not reach": (
        msgspec.structs.replace(
            EXTRAPOLATING,
            threshold=msgspec.structs.replace(EXTRAPOLATING.threshold, target_flag_rate=1e-4),
        ),
        "3 calibration scores cannot support a rate of 0.0001",
    ),
    "an extrapolated threshold that its tail does not give": (
        msgspec.structs.replace(
            EXTRAPOLATING, threshold=msgspec.structs.replace(EXTRAPOLATING.threshold, value=4.0)
        ),
        "the threshold is 4.0; its rule gives 3.5",
    ),
    "a tail of nothing": (tailed(values=b"", p_values=b""), "the tail's lengths differ"),
    "a tail cut short": (tailed(p_values=TAIL.p_values[:-8]), "the tail's lengths differ"),
    "half a step of a tail": (tailed(values=b"\x00" * 5), "the tail's lengths differ"),
    "a tail that goes back": (
        tailed(**table([1.5, 3.5, 3.5], [0.5, 0.1, 0.01])),
        "the tail's values are not finite and ascending",
    ),
    "a tail without end": (
        tailed(**table([1.5, 3.5, np.inf], [0.5, 0.1, 0.01])),
        "the tail's values are not finite and ascending",
    ),
    "a tail whose p-values rise": (
        tailed(**table([1.5, 3.5, 9], [0.5, 0.01, 0.1])),
        "the tail's p-values are not within 0 to 1 and descending",
    ),
    "a tail with a p-value of nothing": (
        tailed(**table([1.5, 3.5, 9], [0.5, 0.1, 0.0])),
        "the tail's p-values are not within 0 to 1 and descending",
    ),
    "a tail with a p-value that is none": (
        tailed(**table([1.5, 3.5, 9], [0.5, np.nan, 0.1])),
        "the tail's p-values are not within 0 to 1 and descending",
    ),
    "a tail that begins at no score": (
        tailed(**table([1.25, 3.5, 9], [0.5, 0.1, 0.01])),
        "does not begin at a calibration score, with the p-value above it",
    ),
    "a tail that begins above its score's p-value": (
        tailed(**table([1.5, 3.5, 9], [0.75, 0.1, 0.01])),
        "does not begin at a calibration score, with the p-value above it",
    ),
    "a tail of another number of excesses": (
        tailed(excesses=2),
        "the tail is of 2 excesses; 1 scores lie above",
    ),
    "a fit that is no chance": (tailed(fit_p_value=7.0), "its fit's p-value not within 0 to 1"),
    "a flag rate out of order": (
        tailed(flag_rate_low=0.3, flag_rate_high=0.2),
        "the tail's flag rates are not within 0 to 1 and ascending",
    ),
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


def test_too_long_lists_of_categories_are_refused(monkeypatch):
    monkeypatch.setattr(category_module, "CATEGORY_CHARS_TOTAL_MAX", 5)
    contract = changed(features=feature(0, kind="category", categories=("abc", "def")))
    with pytest.raises(ModelRefused, match="its categories have 6 characters in all; wanted at"):
        contract.check()


def test_a_reader_from_before_categories_refuses_a_contract_with_one():
    """Which is why the format's version did not rise: it knew the kind `number` alone."""

    class Before(msgspec.Struct):
        name: str
        kind: Literal["number"] = "number"

    contract = changed(features=feature(0, kind="category", categories=("a",)))
    contract.check()
    features = json.loads(contract.to_json())["features"]
    with pytest.raises(msgspec.ValidationError, match="kind"):
        msgspec.convert(features, list[Before])
    numbers = json.loads(CONTRACT.to_json())["features"]
    assert len(msgspec.convert(numbers, list[Before])) == len(numbers)


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
        (edited(format_version=3), "its format version is 3; this program reads versions 1 and 2"),
        (edited(format_version="1"), "its contract cannot be read"),
        (edited(features=[{"name": "a", "path": ["a"], "kind": "image"}]), "cannot be read"),
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


def test_an_extrapolation_comes_back_as_it_was():
    assert Contract.from_json(EXTRAPOLATING.to_json()) == EXTRAPOLATING
    assert "tail" not in CONTRACT.to_json()


def test_a_reader_from_before_tails_refuses_a_contract_with_one():
    """So that the format's version need not rise: nobody takes it for a conformal one."""

    class EarlierThreshold(msgspec.Struct):
        value: float
        target_flag_rate: float
        requested_flag_rate: float | None
        rule: Literal["conformal"] = "conformal"

    written = msgspec.json.encode(EXTRAPOLATING.threshold)
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'generalised_pareto'"):
        msgspec.json.decode(written, type=EarlierThreshold)


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
