"""A worker on a machine whose GPU cannot be used: the device is there, and CUDA is not.

So it is after an update of the driver that went wrong. The worker is the real one, and so is
onnxruntime, which tries to load CUDA and fails. Only the device is made: in a `/dev` that no other
process sees, by Linux' mount namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from demo.worker_process import WorkerProcess

# Its first argument is an empty folder, the others are the command that sees the other /dev.
_PREPARE = """\
set -e
dev=$1
shift
mount -t tmpfs none "$dev"
for name in null zero full random urandom; do
  touch "$dev/$name"
  mount --bind "/dev/$name" "$dev/$name"
done
mkdir "$dev/shm"
mount --rbind /dev/shm "$dev/shm"
touch "$dev/nvidiactl"
mount --rbind "$dev" /dev
exec "$@"
"""


@cache
def why_not() -> str | None:
    """Return why such a machine cannot be had here; None if it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "it takes Linux and its program unshare"
    with tempfile.TemporaryDirectory() as folder:
        command = [*_within(Path(folder)), "true"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no mount namespace: {tried.stderr.strip()}"


def start_beside_a_broken_gpu(worker: WorkerProcess) -> None:
    """Start a worker that was ended; do not wait."""
    dev = worker.log.with_suffix(".dev")
    dev.mkdir(exist_ok=True)
    worker.start(_within(dev))


def _within(dev: Path) -> list[str]:
    """Return the command that starts another, named after it, where it sees that device."""
    unshare = shutil.which("unshare") or ""
    return [unshare, "--mount", "--map-root-user", "sh", "-c", _PREPARE, "sh", str(dev)]
