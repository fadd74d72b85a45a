"""The compiled scanner reads each number as Python and NumPy do, the hardest included."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.event import FLOAT32_LIMIT, EventLayout
from tests.worker.scanned import built, check
from worker.scanner import compile_scanner


def exactly(number: Fraction) -> str:
    """All digits of a number that has finitely many."""
    tens = 0
    while number.denominator != 1:
        number, tens = number * 10, tens + 1
    digits = str(abs(number.numerator)).rjust(tens + 1, "0")
    point = len(digits) - tens
    return ("-" if number < 0 else "") + digits[:point] + "." + (digits[point:] or "0")


@st.composite
def near_midpoints(draw) -> str:
    """Halfway between two neighbouring floats, or very close to it, in full or to 17 digits."""
    bits = draw(st.integers(0, 0x7F7FFFFF))
    low, high = struct.unpack("=2f", struct.pack("=2I", bits, min(bits + 1, 0x7F7FFFFF)))
    middle = (Fraction(low) + Fraction(high)) / 2
    middle += middle * draw(st.sampled_from([0, 1, -1])) / 10 ** draw(st.sampled_from([16, 30]))
    shown = draw(st.sampled_from([exactly, lambda number: repr(float(number)), short]))
    return draw(st.sampled_from(["", "-"])) + shown(middle)


def short(number: Fraction) -> str:
    """With so few digits that the quick way takes it."""
    return f"{float(number):.16e}"


DIGITS = st.text("0123456789", min_size=1, max_size=40)
DECIMALS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    DIGITS.map(lambda digits: digits.lstrip("0") or "0"),
    st.just("") | DIGITS.map(".{}".format) | st.integers(1, 60).map(lambda n: "." + "0" * n + "1"),
    st.just("")
    | st.builds("{}{}".format, st.sampled_from(["e", "E", "e+", "e-", "E-"]), st.integers(0, 400))
    | st.builds("e-{}".format, st.integers(0, 60)),
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e40, 1e40).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    DECIMALS,
    near_midpoints(),
)


@built
@settings(max_examples=1000, deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=3))
@example(["3.4028235677973366e38", "0", "0"])
@example(
    ["340282356779733661637539395458142568447", "340282356779733661637539395458142568448", "1"]
)
@example(["1e1000000000000000000000", "1e-1000000000000000000000", "0e99999999999"])
@example(["1e18446744073709551621", "0", "0"])
@example(["1e-18446744073709551621", "0", "0"])
@example(["0." + "0" * 400 + "1e401", "1" + "0" * 400 + "e-400", "1" * 400 + "e-390"])
@example(["1e-45", "7.006492321624085e-46", "7.0064923216240854e-46"])
@example(["1.1754943508222875e-38", "1.17549435082228745e-38", "1.1754942807573643e-38"])
@example(["9007199254740993", "16777217", "16777217.000000001"])
def test_a_number_becomes_the_float_nearest_to_its_nearest_double(texts):
    scanned = check("default", [f'{{"features":[{",".join(texts)}]}}'.encode()])
    fits = all(abs(float(text)) < FLOAT32_LIMIT for text in texts)
    assert scanned.taken == ([0] if fits else [])


@built
def test_numbers_beside_the_middle_of_two_floats_are_rounded_as_numpy_rounds_them():
    """Where the scanner's quick way would go wrong, were it trusted there. Thousands, as few do."""
    rng = np.random.default_rng(5)
    low = rng.integers(0, 0x7F7FFFFF, (200, 100), np.uint32)
    middles = (low.view(np.float32).astype(np.float64) + (low + 1).view(np.float32)) / 2
    doubles = (middles.view(np.int64) + rng.integers(-20, 21, low.shape)).view(np.float64)
    scanner = compile_scanner(EventLayout(), [(f"x{place}",) for place in range(100)])
    matrix = np.empty(low.shape, np.float32)
    for digits in (15, 16, 17):
        texts = [[f"{number:.{digits}e}" for number in row] for row in doubles.tolist()]
        values: list[bytes | None] = [f'{{"features":[{",".join(t)}]}}'.encode() for t in texts]
        assert scanner.scan(values, matrix, [None] * 200, [None] * 200) == []
        nearest = np.array([[float(text) for text in row] for row in texts]).astype(np.float32)
        assert (matrix.view(np.uint32) == nearest.view(np.uint32)).all()


@built
@settings(max_examples=300)
@given(st.floats(0, 3e11) | st.integers(0, 3 * 10**14) | st.decimals(0, 300_000_000_000, places=4))
def test_a_time_is_rounded_as_python_rounds_it(time):
    value = f'{{"timestamp":{time},"features":[1,2,3]}}'.encode()
    for name in ("default", "seconds"):
        check(name, [value])
