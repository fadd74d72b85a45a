"""The digest of a sealed model: put in once, checked before any parser sees the file.

What it is and where it stands in the file: see `schemas.contract`.
"""

from __future__ import annotations

import hashlib
import re

from schemas.contract import ModelRefused

FILE_BYTES_MAX = 2**31 - 1  # Protocol buffers stop here.
DIGEST_KEY = "odradek.digest"

_DIGEST_ZEROS = b"0" * 64
# Two length-prefixed strings inside an entry of ModelProto.metadata_props: key, then 64 bytes.
_DIGEST_ENTRY = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY.encode() + b"\x12\x40"
_DIGEST_PATTERN = re.compile(re.escape(_DIGEST_ENTRY) + rb"([0-9a-f]{64})")


def stamp(unstamped: bytes) -> bytes:
    """Return the file with its digest; `unstamped` holds 64 zeros in the digest's place.

    Raises:
        ModelRefused: the digest's entry does not occur exactly once, or the file is too large.
    """
    start = _digest_place(unstamped)
    if unstamped[start : start + 64] != _DIGEST_ZEROS:
        raise ModelRefused("its digest's place does not hold zeros; it was stamped before")
    digest = hashlib.sha256(unstamped).hexdigest().encode()
    return unstamped[:start] + digest + unstamped[start + 64 :]


def verified_digest(sealed: bytes) -> str:
    """Return the digest that the file carries, once it has been found to be right.

    Raises:
        ModelRefused: it is too large, carries no digest or several, or was changed.
    """
    start = _digest_place(sealed)
    claimed = sealed[start : start + 64].decode()
    sha256 = hashlib.sha256(memoryview(sealed)[:start])
    sha256.update(_DIGEST_ZEROS)
    sha256.update(memoryview(sealed)[start + 64 :])
    if sha256.hexdigest() != claimed:
        raise ModelRefused(
            f"its bytes do not match its digest {claimed[:12]}...; it was cut short or changed"
        )
    return claimed


def _digest_place(data: bytes) -> int:
    if len(data) > FILE_BYTES_MAX:
        raise ModelRefused(f"it has {len(data):,} bytes; at most {FILE_BYTES_MAX:,} are read")
    places = [match.start(1) for match in _DIGEST_PATTERN.finditer(data)]
    if len(places) != 1 or data.count(_DIGEST_ENTRY) != 1:
        raise ModelRefused(
            "it carries no digest: it is no sealed model, or it was cut short"
            if not places
            else f"it carries {len(places)} digests; wanted one"
        )
    return places[0]
