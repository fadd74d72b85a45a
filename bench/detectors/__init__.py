"""What `python -m bench.quality` is made of: sets, splits, detectors, and what they are worth.

Trials (`trials`) come out of the sets of a folder (`sets`) by a protocol (`splits`); a detector
(`detector`) fits and scores one of them (`measure`: ours by `ours`, PyOD's by `peers` in an
environment of its own, where `pyod_side` runs), or a run before has done it already (`cache`).
What it gives is an `Outcome` with the score of every test row, and all figures are made of those:
`figures`, `flag_rates`, `dirt`; `tables` and `picture` show them.
"""
