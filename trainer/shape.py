"""The shape of an event: how its features lie along axes, for the families that look for that.

A sequence is STEPSxVALUES, as 19x3 for 19 objects of 3 values each; an image is
CHANNELSxROWSxCOLUMNS, as 1x28x28. The features of an event are such an array in row-major order:
the last axis varies fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field


def _read_shape(given: object) -> object:
    sizes = given.lower().split("x") if isinstance(given, str) else given
    if not isinstance(sizes, list | tuple) or len(sizes) not in (2, 3):
        raise ValueError(
            "wanted STEPSxVALUES, as 19x3 for 19 objects of 3 values, or CHANNELSxROWSxCOLUMNS, "
            "as 1x28x28 for an image"
        )
    return tuple(sizes)


Size = Annotated[int, Field(ge=1, le=65_536)]
EventShape = Annotated[tuple[Size, ...], BeforeValidator(_read_shape)]


def axes_of(shape: Sequence[int]) -> Sequence[int]:
    """Return the sizes of the axes that have neighbours: of a sequence its steps alone."""
    return shape[:1] if len(shape) == 2 else shape[1:]


def channels_of(shape: Sequence[int]) -> int:
    """Return how many values there are at each place along those axes."""
    return shape[1] if len(shape) == 2 else shape[0]


def text_of(shape: Sequence[int]) -> str:
    """Return the shape as one writes it on the command line."""
    return "x".join(map(str, shape))
