"""The table of families: that it runs on the data that is there, and what it says."""

from __future__ import annotations

import json

import numpy as np

from bench.families import Worth, main, table


def some_events(folder, n=150):
    """Collision events in name and shape alone."""
    rng = np.random.default_rng(0)
    kinds = {"background": n, "a4l": 20, "lq": 20, "h0tt": 20}
    events = {name: rng.normal(size=(rows, 19, 3)) for name, rows in kinds.items()}
    np.savez(folder / "lhc57.npz", **events)


def test_it_measures_what_is_there_and_says_what_is_not(tmp_path, capsys):
    some_events(tmp_path)
    arguments = [str(tmp_path), "--families", "dense", "--steps", "2"]

    assert main([*arguments, "--json", str(tmp_path / "found.json")]) == 0

    written = capsys.readouterr()
    assert "28_pendigits.npz is absent, and left out" in written.err
    assert "lhc57" in written.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["steps"] == 2
    (one,) = found["found"]
    assert (one["family"], one["parameters"]) == ("dense", 33_223)
    assert set(one["auc"]) == {"a4l", "lq", "h0tt"}
    assert one["us_per_event"] > 0


def test_the_table_has_a_block_for_each_data_set():
    found = [
        Worth("lhc57", "conv", {"lq": 0.95, "a4l": 0.97}, {"lq": 70.0, "a4l": 200.0}, 1234, 5.5),
        Worth("pendigits", "conv", {"anomalies": 0.99}, {"anomalies": 500.0}, 567, 2.25),
    ]

    blocks = table(found).strip().split("\n\n")

    assert [block.split()[0] for block in blocks] == ["lhc57", "pendigits"]
    assert blocks[0].splitlines()[1].split() == ["conv", "0.9500", "0.9700", "1,234", "5.50"]
