"""The worker without its compiled scanner, as where it was installed without a C compiler.

python -m bench.contenders.pure_worker run
"""

from __future__ import annotations

import sys

sys.modules["worker._scanner"] = None  # type: ignore[assignment]  # Its import fails from now on.

from worker import scanner  # noqa: E402
from worker.__main__ import cli  # noqa: E402

if __name__ == "__main__":
    assert vars(scanner)["_scanner"] is None, "the worker found its scanner"
    cli()
