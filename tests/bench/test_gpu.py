"""The GPU benchmark's self-check: what it says without a GPU, and how it finds the crossing."""

from __future__ import annotations

import json

import pytest

from bench import gpu
from bench.gpu import (
    ALL,
    CUDA,
    GRAPHS,
    ONE,
    ScoresDiffer,
    Timing,
    crossings,
    main,
    measure,
    opened_everywhere,
    table,
)
from bench.model import sealed_model
from bench.sizes import sizes
from worker import session

WIDTHS = (57, 67, 17, 67, 57)
has_gpu = any(device.exists() for device in session._GPU_DEVICES)


def timing(place: str, rows: int, p50_us: float) -> Timing:
    return Timing(WIDTHS, 10_000, place, rows, 100, p50_us, 2 * p50_us)


def test_a_quick_run_on_the_cpu_alone_writes_a_row_for_each_batch(tmp_path, capsys):
    written = tmp_path / "gpu.json"
    assert main(["--quick", "--allow-cpu-only", "--json", str(written)]) == 0
    found = json.loads(written.read_text())
    rows = [timing for timing in found["timings"] if timing["place"] == ONE]
    assert {timing["rows"] for timing in rows} == set(gpu.QUICK_BATCHES)
    assert all(timing["events_per_s"] > 0 for timing in rows)
    assert capsys.readouterr().out.count("|") > 10
    assert str(tmp_path) not in written.read_text()


@pytest.mark.skipif(has_gpu, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path, capsys):
    written = tmp_path / "gpu.json"
    assert main(["--quick", "--json", str(written)]) == 3
    assert "No GPU: no NVIDIA device was found" in capsys.readouterr().err
    assert not written.exists()


def test_the_crossing_is_where_the_gpu_begins_to_stay_ahead():
    timings = [
        *(timing(ONE, rows, rows) for rows in (1, 16, 64, 256)),
        *(timing(ALL, rows, rows / 4) for rows in (1, 16, 64, 256)),
        *(timing(CUDA, rows, 40) for rows in (1, 16, 64, 256)),
        *(timing(GRAPHS, rows, 70) for rows in (1, 16, 64, 256)),
    ]
    one, every = crossings(timings)
    assert one.endswith(f"CUDA is faster than {ONE} from 64 rows on")
    assert every.endswith(f"CUDA is faster than {ALL} from 256 rows on")
    assert crossings([timing(ONE, 1, 1), timing(CUDA, 1, 40)])[0].endswith("at no batch")
    assert not crossings([timing(ONE, 1, 1)])


def test_a_place_without_a_figure_has_a_dash():
    lines = table([timing(ONE, 1, 10), timing(ONE, 2, 10), timing(GRAPHS, 1, 5)]).splitlines()
    assert lines[2].endswith("| 1 | 100,000 | 10, 20 | 200,000 | 5, 10 |")
    assert lines[3].endswith("| 2 | 200,000 | 10, 20 | - | - |")


def test_another_model_at_another_place_gives_no_figures():
    first, second, *_ = sizes((57,))
    (_, model), *_ = opened_everywhere(sealed_model(first.widths), 1, cuda=False)
    (_, other), *_ = opened_everywhere(sealed_model(second.widths), 1, cuda=False)
    assert measure(first, [(ONE, model), (CUDA, model)], (1, 3), 0.0)
    with pytest.raises(ScoresDiffer, match="on cuda: 1 of 1 scores differ"):
        measure(first, [(ONE, model), (CUDA, other)], (1, 3), 0.0)
