"""The types of the compiled module; what its numbers and arguments mean is in _scanner.c."""

from schemas.calibration import Floats

OBJECT: int
FEATURES: int
NAMED_FEATURES: int
FEATURE: int
EVENT_ID: int
TIME_MS: int
TIME_S: int
TIME_TEXT: int
GROUP: int

class Scanner:
    def __new__(
        cls,
        nodes: tuple[tuple[bytes, int, int, int], ...],
        width: int,
        *,
        event_bytes_max: int,
        event_id_chars_max: int,
        group_chars_max: int,
        timestamp_ms_max: int,
    ) -> Scanner: ...
    def scan(
        self,
        values: list[bytes | None],
        matrix: Floats,
        event_ids: list[str | None],
        timestamps_ms: list[int | None],
        groups: list[str | None] | None = None,
    ) -> list[int]: ...
