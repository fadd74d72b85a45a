"""The compiled reader of common JSON events: for which layouts there is one, and how it is made.

`worker/_scanner.c` reads a batch straight into its matrix. It is optional: built where a compiler
was at hand when the package was installed, and the worker reads the same events without it, only
slower. `schemas.event.parse_event` says what an event is, for both. The rule that ties the scanner
to it: what the scanner takes, `parse_event` takes too, with the same result bit for bit, and
whatever is unusual it leaves untaken (`tests/worker/test_scanner.py` searches for a
counter-example).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, cast

from schemas.calibration import Floats
from schemas.category import CATEGORY_CHARS_MAX
from schemas.event import (
    EVENT_BYTES_MAX,
    EVENT_ID_CHARS_MAX,
    TIMESTAMP_MS_MAX,
    EventLayout,
    InvalidEvent,
    Path,
    timestamp_ms,
)

try:
    from worker import _scanner
except ImportError:  # No compiler was at hand.
    _scanner = None  # type: ignore[assignment]

# The compiled scanner gives up at 64 levels, `parse_event` much deeper.
_PATH_KEYS_MAX = 32


class Scanner(Protocol):
    """Reads the common events of one layout."""

    def scan(
        self,
        values: list[bytes | None],
        matrix: Floats,
        event_ids: list[str | None],
        timestamps_ms: list[int | None],
        groups: list[str | None] | None = None,
    ) -> list[int]:
        """Scan records into rows; return the rows not taken, ascending.

        `matrix` is float32 [n, d], writable and C-contiguous; the lists of ids, times and groups
        (None if nobody asks for them) hold n Nones. Of a taken row the features are set (NaN where
        missing), and the id, the time and the group where the event has them. In the places of a
        row not taken anything may stand.

        Raises:
            TypeError, ValueError: the arguments are of other types or sizes.
        """
        ...


def compile_scanner(
    layout: EventLayout, paths: Sequence[Path], group: Path | None = None
) -> Scanner | None:
    """Return a scanner of such events, or None where none was built or the layout is beyond it.

    `group` is where an event has its group, from the top.
    """
    if _scanner is None:
        return None
    nodes = _nodes(layout, paths, group)
    if nodes is None:
        return None
    scanner = _scanner.Scanner(
        nodes,
        len(paths),
        event_bytes_max=EVENT_BYTES_MAX,
        event_id_chars_max=EVENT_ID_CHARS_MAX,
        group_chars_max=CATEGORY_CHARS_MAX,
        timestamp_ms_max=TIMESTAMP_MS_MAX,
    )
    return _Rfc3339Scanner(scanner) if layout.timestamp_kind == "rfc3339" else scanner


class _Rfc3339Scanner:
    """Reads the times that the compiled scanner leaves as text."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner

    def scan(
        self,
        values: list[bytes | None],
        matrix: Floats,
        event_ids: list[str | None],
        timestamps_ms: list[int | None],
        groups: list[str | None] | None = None,
    ) -> list[int]:
        untaken = set(self._scanner.scan(values, matrix, event_ids, timestamps_ms, groups))
        for row, text in enumerate(cast("list[str | None]", timestamps_ms)):
            if text is not None and row not in untaken:
                try:
                    timestamps_ms[row] = timestamp_ms(text, "rfc3339")
                except InvalidEvent:
                    untaken.add(row)
        return sorted(untaken)


Leaf: TypeAlias = tuple[int, int]  # What stands there, and a feature's column.
Tree: TypeAlias = "dict[bytes, Tree | Leaf]"
Nodes: TypeAlias = tuple[tuple[bytes, int, int, int], ...]


def _nodes(layout: EventLayout, paths: Sequence[Path], group: Path | None) -> Nodes | None:
    """Return the layout's keys as the compiled scanner wants them, or None if it wants others."""
    times = {"ms": _scanner.TIME_MS, "s": _scanner.TIME_S, "rfc3339": _scanner.TIME_TEXT}
    heads = {
        layout.event_id: (_scanner.EVENT_ID, 0),
        layout.timestamp: (times[layout.timestamp_kind], 0),
    }
    if group is not None:
        heads[group] = (_scanner.GROUP, 0)
    event: Tree = {}
    try:
        features = _object(event, layout.features)
        for column, path in enumerate(paths):
            _put(features, path, (_scanner.FEATURE, column))
        for path, leaf in heads.items():
            _put(event, path, leaf)
    except ValueError:
        return None
    if len(heads) < (2 if group is None else 3) or not paths:
        return None
    # Of an array of features nothing can stand below.
    above = any(path[: len(layout.features)] == layout.features for path in heads)
    return _flat(event, features, _scanner.NAMED_FEATURES if above else _scanner.FEATURES)


def _put(tree: Tree, path: Path, leaf: Leaf) -> None:
    """Put a leaf where nothing is.

    Raises:
        ValueError: something is there, or the scanner does not read such a path.
    """
    if not path:
        raise ValueError("the whole event is no leaf")
    below = _object(tree, path[:-1])
    key = _bytes_of(path[-1])
    if key in below:
        raise ValueError("two of the contract's places collide")
    below[key] = leaf


def _object(tree: Tree, path: Path) -> Tree:
    """Return the object at `path`, made where there is none; raises as `_put`."""
    if len(path) > _PATH_KEYS_MAX:
        raise ValueError("the path is too long")
    for key in path:
        below = tree.setdefault(_bytes_of(key), {})
        if not isinstance(below, dict):
            raise ValueError("two of the contract's places collide")  # noqa: TRY004
        tree = below
    return tree


def _bytes_of(key: str) -> bytes:
    """Return the key as it stands between quotes; raises ValueError if JSON must escape it."""
    if any(char < " " or char in '"\\' for char in key):
        raise ValueError("the key has to be escaped")
    return key.encode()


def _flat(event: Tree, features: Tree, features_kind: int) -> Nodes:
    """Return the tree's nodes, the children of each as neighbours, by length and then by bytes."""
    waiting: list[tuple[bytes, Tree | Leaf]] = [(b"", event)]
    nodes = []
    for key, held in waiting:  # It grows as it is read.
        if isinstance(held, dict):
            kind = features_kind if held is features else _scanner.OBJECT
            nodes.append((key, kind, len(waiting), len(held)))
            waiting += sorted(held.items(), key=lambda child: (len(child[0]), child[0]))
        else:
            nodes.append((key, *held, 0))
    return tuple(nodes)
