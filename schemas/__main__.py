"""Write the JSON Schemas of the three records: `python -m schemas`."""

from __future__ import annotations

from schemas.json_schemas import write_all

write_all()
