"""What the command lines of the detection benchmarks have in common."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--data`; `doc` says what a program is for, its usage, and the rest."""
    assert doc is not None
    what, usage, more = doc.split("\n\n", 2)
    parser = argparse.ArgumentParser(
        usage=usage.strip(),
        description=f"{what}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, metavar="")
    add("--data", type=Path, default=os.environ.get("ODRADEK_DATA"), help="folder of sets")
    return parser


def check_folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program, saying why, where `--data` is no folder."""
    if options.data is None or not options.data.is_dir():
        parser.error(f"no folder of sets: {options.data}; name one with --data or ODRADEK_DATA")


def words(text: str) -> list[str]:
    """Read `a,b`."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str) -> list[int]:
    """Read `0,1,2`."""
    return [int(word) for word in words(text)]
