"""What a category is: a text from a closed list, and the code that stands for it in the matrix.

- In an event and in a data file a category is a text; an integer counts as its decimal text, as
  an event's id does, since codes such as ports and HTTP statuses are written either way. Texts are
  equal or not, nothing is trimmed or folded; the empty text is missing, as in CSV.
- In the matrix it is its code: the place in the contract's list, from 0; of any other text (an
  unseen one) the length of the list; NaN where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

# One column of the graph for each. onnxruntime took 0.2, 0.8, 3.4 and 14 us an event, on one core,
# for 64, 256, 1,024 and 4,096 columns into a layer of 128 and back: beyond 1,024 one category costs
# more than all of the rest.
CATEGORIES_MAX = 1024
# Longer than a name in DNS or Kubernetes (253); what is longer is prose, and would be written out
# again with every flag.
CATEGORY_CHARS_MAX = 256
# Of all lists of a contract: every worker reads it, and `training` beside it, at each new file.
CATEGORY_CHARS_TOTAL_MAX = 2**20


# The code of every text, for each feature that is a category; None for each that is a number.
FeatureCodes = Sequence[Mapping[str, int] | None]


class Codes(dict[str, int]):
    """The code of each text, unseen ones included: `codes[text]` never fails."""

    @classmethod
    def of(cls, categories: Sequence[str]) -> Codes:
        return cls(zip(categories, range(len(categories)), strict=True))

    def __missing__(self, text: str) -> int:
        return len(self)


def category_complaints(categories: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the list of one feature's categories."""
    if not 1 <= len(categories) <= CATEGORIES_MAX:
        yield f"it has {len(categories):,} categories; wanted 1 to {CATEGORIES_MAX:,}"
    if len(set(categories)) < len(categories):
        yield "a category occurs twice"
    longest = max(map(len, categories), default=0)
    if longest > CATEGORY_CHARS_MAX or not all(categories):
        yield f"a category is empty or longer than {CATEGORY_CHARS_MAX} characters"


def total_complaints(lists: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield what is wrong with the lists of all features together."""
    chars = sum(len(text) for categories in lists for text in categories)
    if chars > CATEGORY_CHARS_TOTAL_MAX:
        most = CATEGORY_CHARS_TOTAL_MAX
        yield f"its categories have {chars:,} characters in all; wanted at most {most:,}"
