"""The check of flag rates by group, on connections of two services that do not score alike."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

from bench import groups


@pytest.fixture
def folder(tmp_path):
    """3,000 connections like those of NSL-KDD: one service is ten times as noisy as the other."""
    streams = tmp_path / "streams"
    streams.mkdir()
    (streams / "nsl-kdd-fields.csv").write_text("bytes,continuous\nservice,symbolic\n")
    rng = np.random.default_rng(0)
    noisy = rng.random(3_000) < 0.3
    sizes = rng.normal(size=3_000) * np.where(noisy, 10, 1)
    with gzip.open(streams / "nsl-kdd-train20.csv.gz", "wt") as file:
        rows = zip(sizes.tolist(), noisy.tolist(), strict=True)
        csv.writer(file).writerows(
            [size, "ftp" if odd else "http", "normal", 20] for size, odd in rows
        )
    return tmp_path


def test_it_shows_the_groups_that_one_threshold_fails_and_their_own_do_not(folder, capsys):
    told_to = ["--rate", "0.05", "--seeds", "0", "--set", "detectors=norm"]
    assert groups.main(["--data", str(folder), *told_to]) == 0
    *_, http, ftp = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (http[0], ftp[0]) == ("http", "ftp")
    one_for_all = [float(line[2].rstrip("%")) for line in (http, ftp)]
    assert one_for_all[0] < 1 < 10 < one_for_all[1]
    assert http[3:6] == ftp[3:6] == ["0", "of", "1"]
    assert http[7:] == ftp[7:] == ["1", "of", "1"]


def test_without_the_data_it_says_where_to_name_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        groups.main(["--data", str(tmp_path)])
    assert ended.value.code == 2
    assert f"no NSL-KDD in {tmp_path}; name its folder" in capsys.readouterr().err
