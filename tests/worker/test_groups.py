"""Groups in the worker: however an event says its group, the group's calibration judges it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import Feature
from schemas.dead_letter import Reason
from schemas.event import InvalidEvent, parse_event
from schemas.groups import group_in
from schemas.packed_event import CONTENT_TYPE_HEADER, GROUP_HEADER, PACKED, encode_packed
from schemas.score import Score, decode_score
from tests.builders import a_sealed_model, an_event, records
from tests.worker.grouped import SCALE, a_grouped_model, a_sealed_grouped_model, with_groups
from tests.worker.scanned import (
    FITTING,
    GOOD_TIMES,
    IDS,
    Members,
    built,
    damaged,
    put,
    written,
)
from tests.worker.test_decode import LAYOUTS, WRONG, a_contract_of, one_of
from tests.worker.test_model_slot import Place
from worker import offline
from worker.decode import Decoder
from worker.model import Model
from worker.read_json import JsonReader
from worker.results import to_results
from worker.scanner import compile_scanner
from worker.turn import Records
from worker.typed_json import compile_reader

# A place beside the features, one that is nested, one among the features.
PATHS = {"default": ("site",), "nested": ("meta", "site"), "root": ("deep", "site"),
         "id and time among the features": ("data", "site"), "rfc3339": ("timestamp", "site"),
         "a feature below another": ("site",)}  # fmt: skip
CONTRACTS = {
    name: with_groups(a_contract_of(*LAYOUTS[name]), "event", path) for name, path in PATHS.items()
}
DECODERS = {name: Decoder(contract) for name, contract in CONTRACTS.items()}
PLAIN = {name: JsonReader(contract, None) for name, contract in CONTRACTS.items()}
GROUPS = st.one_of(
    one_of('"quiet" "söder" "s\\u00f6der" "17" 17 17.0 1.7e1 -0 "" null true [] {} "\\ud800"'),
    st.text(max_size=3).map(json.dumps),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(['"' + "x" * 256 + '"', '"' + "x" * 257 + '"', '"\\u00e9' + "x" * 255 + '"']),
    WRONG,
)


@st.composite
def grouped_events(draw) -> tuple[str, bytes]:
    """An event of a layout, mostly whole, with something where the contract looks for its group."""
    name = draw(st.sampled_from([*PATHS]))
    layout, paths = LAYOUTS[name]
    parts = [
        (layout.event_id, IDS),
        (layout.timestamp, GOOD_TIMES[layout.timestamp_kind].map(str)),
        *(((*layout.features, *path), FITTING) for path in paths),
        (PATHS[name], GROUPS),
    ]
    if draw(st.integers(0, 3)) == 0:
        parts.pop(draw(st.integers(0, len(parts) - 1)))
    event: Members = []
    for path, value in draw(st.permutations(parts)):
        put(event, path, draw(value))
    return name, draw(damaged(written(event, "").encode("utf-8", "surrogatepass")))


@settings(max_examples=500, deadline=None)
@given(grouped_events())
def test_every_reader_reads_the_group_that_the_exact_one_reads(named):
    name, value = named
    contract = CONTRACTS[name]
    try:
        parse_event(value, contract.layout, contract.paths)
    except InvalidEvent:
        wanted = []  # A group never makes or mends an event.
    else:
        wanted = [group_in(value, PATHS[name])]
    assert DECODERS[name].decode(records([value])).groups == wanted
    assert PLAIN[name].read(records([value])).groups == wanted


@built
@pytest.mark.parametrize("name", ["default", "nested", "root"])
def test_the_scanner_and_the_second_reader_take_events_with_groups(name):
    """Otherwise the property above would hold of readers that take nothing."""
    (layout, paths), group = LAYOUTS[name], PATHS[name]
    time = {"ms": 1, "s": 1, "rfc3339": "2026-01-31T12:00:00Z"}[layout.timestamp_kind]
    features = [((*layout.features, *path), 1.5) for path in paths]
    event: dict[str, Any] = {}
    for path, value in [(group, "söder"), (layout.timestamp, time), *features]:
        node = event
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    value = json.dumps(event, ensure_ascii=False).encode()
    scanner = compile_scanner(layout, paths, group)
    assert scanner is not None
    groups: list[str | None] = [None]
    matrix = np.empty((1, len(paths)), np.float32)
    assert scanner.scan([value], matrix, [None], [None], groups) == []
    assert groups == ["söder"]
    assert compile_reader(layout, paths, (), group)(value)[3] == "söder"


@built
def test_a_group_below_another_part_of_the_event_is_read_without_the_scanner():
    assert not JsonReader.of(CONTRACTS["rfc3339"]).scans
    value = b'{"timestamp":{"site":"quiet"},"features":[1,2,3]}'
    assert [r.reason for r in DECODERS["rfc3339"].decode(records([value])).rejects] == [
        Reason.BAD_TIMESTAMP
    ]


@built
@pytest.mark.parametrize("groups", [[None], [None] * 3, (None, None), "no"])
def test_groups_of_another_size_or_type_are_no_place_to_write_to(groups):
    scanner = compile_scanner(*LAYOUTS["default"], ("site",))
    assert scanner is not None
    value = an_event(1, 2, 3, site="quiet")
    with pytest.raises((TypeError, ValueError)):
        scanner.scan([value] * 2, np.empty((2, 3), np.float32), [None] * 2, [None] * 2, groups)


MODEL = a_grouped_model()
KEYED = a_grouped_model("key", ())
COUNTRIES = ("17", "quiet", "rare", "söder")
FEATURES = (
    Feature(name="x0", path=("x0",)),
    Feature(name="country", path=("country",), kind="category", categories=COUNTRIES),
    Feature(name="x2", path=("x2",)),
)
BY_FEATURE = a_grouped_model("feature", (), "country", features=FEATURES)


def scores_of(taken: Records, model: Model) -> list[Score]:
    batch = model.decoder.decode(taken)
    outputs = to_results(taken, batch, model.score(batch.features), model, 5)
    return [decode_score(value or b"") for value in outputs.scores.values]


def by_site(*sites: Any) -> list[Score]:
    return scores_of(records([an_event(1.5, 1.5, 1.5, site=site) for site in sites]), MODEL)


def test_one_event_is_judged_by_its_own_groups_threshold():
    quiet, plain, loud, pooled = by_site("quiet", "söder", 17, "elsewhere")
    assert {score.score for score in (quiet, plain, loud, pooled)} == {2.25}
    assert [s.calibration_group for s in (quiet, plain, loud, pooled)] == [*SCALE, None]
    assert (quiet.verdict, loud.verdict) == ("anomalous", "normal")
    of = dict(zip(MODEL.contract.groups.texts, MODEL.contract.groups.members, strict=True))
    for score in (quiet, plain, loud):
        member = of[score.calibration_group]
        assert score.threshold == np.float32(member.threshold)
        assert score.p_value == member.calibration.p_values(score.score)
        assert (score.verdict == "anomalous") == (score.p_value <= 0.1)
    assert pooled.threshold == np.float32(MODEL.contract.threshold.value)
    assert pooled.p_value == MODEL.contract.calibration.p_values(2.25)


@pytest.mark.parametrize("site", [None, "", "never seen", 1.0, 17.5, True, ["quiet"], "x" * 300])
def test_whatever_is_no_known_group_is_pooled_and_never_a_dead_letter(site):
    scores = by_site("quiet", site)
    assert [score.calibration_group for score in scores] == ["quiet", None]


def test_rejects_among_the_records_do_not_shift_the_groups():
    values = [an_event(1, 1, 1, site="quiet"), b"rubbish", None, an_event(1, 1, 1, site="17")]
    for model, keys in ((MODEL, [None] * 4), (KEYED, [b"quiet", b"17", b"17", b"17"])):
        taken = records(values)
        taken.keys[:] = keys
        scores = scores_of(taken, model)
        assert [score.calibration_group for score in scores] == ["quiet", "17"]


def test_a_records_key_may_be_the_group():
    taken = records([an_event(1, 1, 1, site="quiet")] * 5)
    taken.keys[:] = [b"17", "söder".encode(), b"\xff", None, b""]
    groups = [score.calibration_group for score in scores_of(taken, KEYED)]
    assert groups == ["17", "söder", None, None, None]


def test_a_category_may_be_the_group_and_needs_no_other_place():
    countries = ["quiet", "rare", "never seen", None, "17"]
    taken = records([an_event(1, country, 1) for country in countries])
    groups = [score.calibration_group for score in scores_of(taken, BY_FEATURE)]
    assert groups == ["quiet", None, None, None, "17"]


def test_packed_events_say_their_group_in_a_header_their_key_or_their_code():
    marked = (CONTENT_TYPE_HEADER, PACKED)
    taken = records([encode_packed([1, 1, 1])] * 4 + [an_event(1, 1, 1, site="quiet"), b"short"])
    taken.headers[:] = [
        [marked, (GROUP_HEADER, b"17")],
        [marked, (GROUP_HEADER, b"\xff")],
        [marked],
        [(GROUP_HEADER, "söder".encode()), marked],
        None,
        [marked, (GROUP_HEADER, b"17")],
    ]
    scores = scores_of(taken, MODEL)
    assert [s.calibration_group for s in scores] == ["17", None, None, "söder", "quiet"]
    taken.keys[:] = [b"quiet"] * 6
    assert {s.calibration_group for s in scores_of(taken, KEYED)} == {"quiet"}
    coded = records([encode_packed([1, code, 1]) for code in (1, 2, 4, np.nan)])
    coded.headers[:] = [[marked]] * 4
    groups = [s.calibration_group for s in scores_of(coded, BY_FEATURE)]
    assert groups == ["quiet", None, None, None]


def test_an_unscorable_event_says_its_group_and_has_no_p_value():
    taken = records([an_event(None, None, None, site="quiet"), an_event(1, 1, 1, site="quiet")])
    unscorable, scored = scores_of(taken, MODEL)
    assert (unscorable.verdict, unscorable.p_value) == ("unscorable", None)
    assert unscorable.calibration_group == scored.calibration_group == "quiet"
    assert unscorable.threshold == scored.threshold


def test_an_event_is_judged_alike_in_any_batch():
    rng = np.random.default_rng(0)
    sites = [*SCALE, "other", None]
    values = [an_event(*map(float, row), site=sites[place % 5]) for place, row in
              enumerate(rng.normal(size=(200, 3)))]  # fmt: skip
    together = scores_of(records(values), MODEL)
    for place in range(0, 200, 7):
        (alone,) = scores_of(records([values[place]]), MODEL)
        whole = together[place]
        assert (alone.p_value, alone.verdict, alone.threshold, alone.calibration_group) == (
            whole.p_value,
            whole.verdict,
            whole.threshold,
            whole.calibration_group,
        )


SOMEWHERE_ELSE = {
    "another place": lambda: a_sealed_grouped_model("event", ("meta", "site")),
    "the key": lambda: a_sealed_grouped_model("key", ()),
    "nowhere": a_sealed_model,
}


@pytest.mark.parametrize("where", SOMEWHERE_ELSE)
def test_a_new_model_that_reads_groups_from_elsewhere_is_refused(where, tmp_path, caplog):
    first = a_sealed_grouped_model(version="grouped")
    place = Place(tmp_path / "model.onnx", first=first)
    place.put(SOMEWHERE_ELSE[where]())
    assert place.look() == "grouped"
    assert "its groups are read from" in caplog.text
    assert "ODRADEK_ALLOW_CONTRACT_CHANGE=true allows it" in caplog.text


def test_it_is_let_in_where_that_is_allowed(tmp_path):
    place = Place(tmp_path / "model.onnx", allow_contract_change=True)
    place.put(a_sealed_grouped_model(version="grouped"))
    assert place.look() == "grouped"


def test_a_new_model_may_know_other_groups(tmp_path):
    place = Place(tmp_path / "model.onnx", first=a_sealed_grouped_model(version="2"))
    place.put(a_sealed_grouped_model(version="3", members=1))
    assert place.look() == "3"


@pytest.mark.parametrize("source", ["event", "key"])
def test_a_file_is_judged_by_its_groups_as_a_topic_would_be(source, tmp_path, capsys):
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_grouped_model(source, ("meta", "at") if source == "event" else ()))
    table = tmp_path / "events.csv"
    table.write_text(f"x0,x1,x2,site\n1,1,1,quiet\n1,1,1,17\n1,1,1,\n1,1,1,{'x' * 300}\n")
    lines = tmp_path / "events.jsonl"
    place = {"meta": {"at": "quiet"}} if source == "event" else {"site": "quiet"}
    lines.write_bytes(an_event(1, 1, 1, **place) + b"\n" + an_event(1, 1, 1))
    seen = []
    for path in (table, lines):
        assert offline.score([str(model), str(path)]) == 0
        out = capsys.readouterr().out.splitlines()
        seen.append([json.loads(line)["calibration_group"] for line in out])
    assert seen == [["quiet", "17", None, None], ["quiet", None]]


def test_check_says_what_judges_whom(tmp_path, capsys):
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_grouped_model())
    assert offline.check([str(model), "--events-per-second", "10"]) == 0
    first, groups, others, a_day = capsys.readouterr().out.splitlines()
    assert "pooled threshold" in first
    assert groups.startswith("3 group(s) of 'site' have thresholds of their own, 0.0")
    assert "about 100,000 false alarms per million normal events of each group" in groups
    assert others.endswith(
        "calibration events of theirs, and for all of them together the rate holds"
    )
    assert a_day == "about 86,400 false alarms a day at 10 events a second of such groups"
