"""What others have stored must stay readable: bytes do not change without their version."""

from __future__ import annotations

import pytest

from schemas.contract import FORMAT_VERSION, Contract
from schemas.dead_letter import DEAD_LETTER_VERSION
from schemas.score import SCORE_VERSION, decode_score
from tests.schemas import golden_records
from tests.schemas.golden_records import FOLDER

VERSIONS = {"score": SCORE_VERSION, "dead_letter": DEAD_LETTER_VERSION, "contract": FORMAT_VERSION}
GOLDEN_VERSION = {"score": 1, "dead_letter": 1, "contract": 1}


@pytest.mark.parametrize("name", golden_records.records())
def test_a_format_changes_only_with_its_version(name):
    """If this fails by intent: raise the version, write golden/ anew, and say so in CHANGELOG."""
    kind = next(kind for kind in VERSIONS if name.startswith(kind))
    stored = (FOLDER / name).read_bytes()
    if VERSIONS[kind] == GOLDEN_VERSION[kind]:
        assert golden_records.records()[name] == stored
    else:
        pytest.fail(f"{kind} has version {VERSIONS[kind]}; its golden bytes have another")


def test_no_golden_file_is_forgotten():
    assert {path.name for path in FOLDER.iterdir()} == set(golden_records.records())


def test_stored_score_records_are_read_as_they_were_meant():
    assert decode_score((FOLDER / "score_normal.json").read_bytes()) == golden_records.NORMAL
    assert decode_score((FOLDER / "score_anomalous.json").read_bytes()) == golden_records.ANOMALOUS
    of_a_group = decode_score((FOLDER / "score_of_a_group.json").read_bytes())
    assert of_a_group == golden_records.OF_A_GROUP
    assert decode_score((FOLDER / "score_pooled.json").read_bytes()) == golden_records.POOLED
    unscorable = decode_score((FOLDER / "score_unscorable.json").read_bytes())
    assert unscorable == golden_records.UNSCORABLE


def test_a_stored_contract_is_read_as_it_was_meant():
    assert Contract.from_json((FOLDER / "contract.json").read_bytes()) == golden_records.CONTRACT
    grouped = Contract.from_json((FOLDER / "contract_grouped.json").read_bytes())
    assert grouped == golden_records.GROUPED
