"""What `odradek-trainer fit` takes for more rows than memory should hold: time by stage, memory.

    python -m bench.large [--rows 10000000] [--folder FOLDER] [--set NAME=VALUE]... [--json FILE]

Makes a Parquet file of so many rows of 57 features in FOLDER (default: the system's for such
files; about 230 bytes a row, and as much again for the trainer's scratch file), fits the default
preset to it as a user would, and removes it. The rows are made up: ten causes, mixed into 57
correlated features, every fifth of them with a heavy tail, one in a hundred values missing.

Memory is what the system cannot take back: the trainer's anonymous memory (RssAnon in
/proc/PID/status), looked at five times a second. The pages of the scratch file, which is mapped,
are cache: they are counted apart (RssFile). Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.report import machine, say, write_json
from schemas.calibration import Floats

RESULTS = Path(__file__).parent / "results"
FEATURES, CAUSES = 57, 10
GROUP_ROWS = 2**17
LOOK_EVERY_S = 0.2
_KIB = 1024


@dataclass
class Taken:
    """Peak memory in bytes; each line of the trainer's, with its second and the peak before it.

    Lines that came between two looks have the memory of the latest one.
    """

    anonymous: int = 0
    mapped: int = 0
    latest: int = 0
    since_line: int = 0
    lines: list[tuple[float, int, str]] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    exit_code: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the file, fit, print what it took, write JSON; return the exit code."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data = Path(folder) / "events.parquet"
        began = time.monotonic()
        write_rows(data, options.rows)
        size = data.stat().st_size
        say(f"{options.rows:,} rows, {size:,} bytes, made in {time.monotonic() - began:.0f} s.")
        taken = fit(data, [part for one in options.set for part in ("--set", one)])
    for second, peak, line in taken.lines:
        say(f"{second:7.1f} s {peak // 2**20:6,} MiB  {line}")
    say(
        f"{taken.wall_s:.0f} s, {taken.cpu_s:.0f} CPU seconds; at most {taken.anonymous:,} bytes "
        f"of memory, and {taken.mapped:,} of mapped files"
    )
    meanwhile = ("lines", "latest", "since_line")
    told = {name: value for name, value in vars(taken).items() if name not in meanwhile}
    asked = {"rows": options.rows, "features": FEATURES, "set": options.set, "bytes": size}
    write_json(options.json, {"machine": machine(), "asked": asked, **told, "lines": taken.lines})
    return taken.exit_code


def write_rows(path: Path, rows: int) -> None:
    """Write a Parquet file of made-up rows."""
    names = [f"x{place:02d}" for place in range(FEATURES)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    mixing = np.random.default_rng(0).normal(size=(CAUSES, FEATURES)).astype(np.float32)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, GROUP_ROWS):
            some = _rows(mixing, min(GROUP_ROWS, rows - start), seed=start)
            writer.write_table(pa.table([*some.T], schema=schema), row_group_size=GROUP_ROWS)


def _rows(mixing: Floats, count: int, seed: int) -> Floats:
    source = np.random.default_rng(seed)
    causes = source.standard_normal((count, CAUSES), np.float32)
    rows = causes @ mixing + source.standard_normal((count, FEATURES), np.float32)
    rows[:, ::5] = np.sinh(rows[:, ::5])
    rows[source.random(rows.shape, np.float32) < 0.01] = np.nan
    return rows


def fit(data: Path, flags: Sequence[str]) -> Taken:
    """Fit to the file in a process of its own and look at it meanwhile."""
    out = data.with_name("model.onnx")
    command = [sys.executable, "-m", "trainer", "fit", str(data), "--out", str(out)]
    began, before, taken = time.monotonic(), os.times(), Taken()
    trainer = subprocess.Popen(
        [*command, "--scratch", str(data.parent), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    looking = threading.Thread(target=_look, args=(trainer.pid, taken), daemon=True)
    looking.start()
    with trainer:
        assert trainer.stdout is not None
        for line in trainer.stdout:
            second = round(time.monotonic() - began, 1)
            said = line.rstrip().replace(f"{data.parent}/", "")
            taken.lines.append((second, taken.since_line, said))
            taken.since_line = taken.latest
    taken.exit_code = trainer.returncode
    looking.join()
    after = os.times()
    taken.wall_s = time.monotonic() - began
    taken.cpu_s = sum(after[2:4]) - sum(before[2:4])
    return taken


def _look(pid: int, taken: Taken) -> None:
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            text = status.read_text()
        except OSError:
            return
        held = dict(line.split(":", 1) for line in text.splitlines())
        if "RssAnon" not in held:
            return  # It has ended.
        anonymous, mapped = (int(held[name].split()[0]) * _KIB for name in ("RssAnon", "RssFile"))
        taken.latest = anonymous
        taken.anonymous = max(taken.anonymous, anonymous)
        taken.since_line = max(taken.since_line, anonymous)
        taken.mapped = max(taken.mapped, mapped)
        time.sleep(LOOK_EVERY_S)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser("bench.large", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path, default=RESULTS / "large.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
