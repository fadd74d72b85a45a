"""The trainer: normal events in, one sealed model out.

It fits, calibrates, seals and verifies. It imports schemas and torch; never the worker, never
Kafka. Read `trainer.__main__` first: it is the recipe.
"""
