"""What `bench.compare` runs: one file a contender, and the list of them in `entries`.

Contenders that are frameworks run in environments of their own (`environments`). Of this
project they import `records` and, through it, `schemas`: nothing that needs more than numpy,
msgspec and onnxruntime. All of them read the worker's environment variables.
"""
