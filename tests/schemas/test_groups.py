"""Groups: what names one, and that a batch is judged as each of its groups by itself would be."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.calibration import Calibration
from schemas.contract import FORMAT_VERSION, Contract, Feature, ModelRefused
from schemas.groups import (
    GROUPS_MAX,
    Group,
    GroupCalibrations,
    group_bytes,
    group_in,
    group_text,
)
from tests.schemas.golden_records import CONTRACT, EXTRAPOLATING, GROUPED, TAIL

# Few distinct values, so that ties are common; zeros of both signs; and any float32 beside them.
SCORES = st.one_of(
    st.integers(-3, 3).map(float),
    st.just(-0.0),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
CALIBRATIONS = st.lists(SCORES, min_size=3, max_size=30).map(Calibration.of)
RATES = st.sampled_from([0.25, 0.3, 0.5, 0.9])


@given(st.lists(CALIBRATIONS, min_size=1, max_size=5), RATES, st.data())
def test_a_batch_is_judged_as_each_group_by_itself(calibrations, rate, data):
    *own, pooled = calibrations
    groups = [Group(text=str(i), threshold=c.threshold(rate), calibration=c) for i, c in
              enumerate(own)]  # fmt: skip
    together = GroupCalibrations(groups, pooled, pooled.threshold(rate))
    stored = np.concatenate([c.scores for c in calibrations])
    near = np.concatenate([stored, np.nextafter(stored, np.finfo(np.float32).max), -stored])
    seen = np.array(data.draw(st.lists(SCORES, max_size=9)), np.float32)
    scores = np.concatenate([near, seen, np.float32([np.inf, -np.inf, np.nan, -np.nan])])
    codes = np.array(
        data.draw(st.lists(st.integers(0, len(own)), min_size=len(scores), max_size=len(scores)))
    )
    p_values, thresholds = together.p_values(scores, codes), together.thresholds(codes)
    finite = np.isfinite(scores)
    for code, calibration in enumerate(calibrations):
        of = (codes == code) & finite
        np.testing.assert_array_equal(p_values[of], calibration.p_values(scores[of]))
        assert (thresholds[of] == np.float32(calibration.threshold(rate))).all()
    np.testing.assert_array_equal((scores > thresholds)[finite], (p_values <= rate)[finite])


def test_an_empty_batch_has_no_p_values():
    groups = GroupCalibrations(GROUPED.groups.members, GROUPED.calibration, 2.5)
    nothing = np.empty(0, np.intp)
    assert groups.p_values(np.empty(0, np.float32), nothing).shape == (0,)
    assert groups.thresholds(nothing).shape == (0,)


NAMES_A_GROUP = [("oslo", "oslo"), (17, "17"), (-3, "-3"), (" ", " "), ("\0é😀", "\0é😀"),
                 ("x" * 256, "x" * 256), (2**70, str(2**70))]  # fmt: skip
NAMES_NONE = [None, "", True, False, 1.0, 1.5, float("nan"), [], {}, "x" * 257, 10**300, "\ud800"]


@pytest.mark.parametrize(("value", "text"), NAMES_A_GROUP)
def test_texts_and_integers_name_a_group(value, text):
    assert group_text(value) == text
    assert group_in(json.dumps({"a": {"b": value}}).encode(), ("a", "b")) == text
    assert group_bytes(text.encode()) == text


@pytest.mark.parametrize("value", NAMES_NONE, ids=lambda value: repr(value)[:20])
def test_all_else_names_none(value):
    assert group_text(value) is None
    if value == value and value != 10**300:
        assert group_in(json.dumps({"a": value}).encode(), ("a",)) is None


@pytest.mark.parametrize(
    "value",
    [None, b"", b"rubbish", b"[]", b"{}", b'{"a":1}', b'{"a":[]}', b'{"a":"\xff"}', b'{"a":null}'],
)
def test_whatever_the_event_nothing_is_raised(value):
    assert group_in(value, ("a", "b")) is None
    assert group_bytes(value and b"\xff" + value) is None


def grouped(**changes) -> Contract:
    return replace(GROUPED, groups=replace(GROUPED.groups, **changes))


def member(**changes) -> tuple[Group, ...]:
    return (replace(GROUPED.groups.members[0], **changes),)


COUNTRY = Feature(name="country", path=("c",), kind="category", categories=("de", "fr"))
REFUSED = {
    "groups in version 1": (
        replace(GROUPED, format_version=FORMAT_VERSION),
        "its version is 1; only one with groups has version 2",
    ),
    "version 2 without groups": (replace(CONTRACT, format_version=2), "only one with groups"),
    "no groups": (grouped(members=()), "it has 0 groups; wanted 1 to 1,024"),
    "a group twice": (grouped(members=member() * 2), "or occurs twice"),
    "a group without text": (grouped(members=member(text="")), "a group is empty"),
    "a group with a long text": (grouped(members=member(text="x" * 257)), "longer than 256"),
    "a threshold of another rate": (
        grouped(members=member(threshold=0.5)),
        "of the group 'café', the threshold is 0.5; its rule gives 0.75",
    ),
    "a group with too few events": (
        grouped(members=member(calibration=Calibration.of([1, 2]))),
        "of the group 'café', 2 calibration scores cannot support a rate of 0.25",
    ),
    "a group's calibration cut short": (
        grouped(members=member(calibration=Calibration(values=b"\0"))),
        "of the group 'café', the calibration's lengths differ",
    ),
    "a group with a tail": (
        grouped(members=member(calibration=replace(CONTRACT.calibration, tail=TAIL))),
        "of the group 'café', there is a tail",
    ),
    "groups that have no name": (grouped(name=""), "its groups have no name"),
    "groups of an event without a place": (grouped(path=()), "as their place in a event"),
    "groups of a key with a place": (grouped(source="key"), "as their place in a key"),
    "groups where the id stands": (grouped(path=("meta", "id")), "where something else does"),
    "groups where a feature stands": (
        grouped(path=("features", "amount")),
        "its groups stand at features.amount, where something else does",
    ),
    "groups of no feature": (
        grouped(source="feature", path=(), name="amount"),
        "'amount' is no category that knows all of its groups",
    ),
    "groups beside an extrapolation": (
        replace(EXTRAPOLATING, format_version=2, groups=GROUPED.groups),
        "of the group 'café', 3 calibration scores cannot support",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_groups_that_contradict_the_contract_are_refused(name):
    contract, why = REFUSED[name]
    with pytest.raises(ModelRefused, match="its contract is inconsistent: ") as refused:
        Contract.from_json(contract.to_json())
    assert why in str(refused.value)


def test_more_groups_than_there_may_be_are_refused():
    many = tuple(member(text=str(place))[0] for place in range(GROUPS_MAX + 1))
    grouped(members=many[:-1]).check()
    with pytest.raises(ModelRefused, match="it has 1,025 groups; wanted 1 to 1,024"):
        grouped(members=many).check()


def test_a_group_may_be_a_category_that_knows_all_of_them():
    amount = CONTRACT.features[0]
    groups = replace(
        GROUPED.groups, source="feature", path=(), name="country", members=member(text="fr")
    )
    good = replace(GROUPED, features=(amount, COUNTRY), groups=groups)
    good.check()
    with pytest.raises(ModelRefused, match="is no category that knows all of its groups"):
        replace(good, groups=replace(groups, members=member(text="it"))).check()


@pytest.mark.parametrize("source", ["key", "feature"])
def test_groups_that_no_event_holds_collide_with_no_place_even_where_features_are_the_top(source):
    layout = replace(GROUPED.layout, features=())
    groups = replace(GROUPED.groups, source=source, path=())
    if source == "feature":
        groups = replace(groups, name="country", members=member(text="fr"))
    features = (CONTRACT.features[0], COUNTRY)
    replace(GROUPED, layout=layout, features=features, groups=groups).check()


def test_a_reader_of_version_1_would_not_take_a_file_with_groups():
    """It knows no groups, and would judge every event by the pooled threshold."""
    held = json.loads(GROUPED.to_json())
    assert held["format_version"] == 2
    assert {*held} - {*json.loads(CONTRACT.to_json())} == {"groups"}
    assert CONTRACT.groups is msgspec.UNSET
    assert CONTRACT.by_group is None
