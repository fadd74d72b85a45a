"""Children of this program: processes that end when it does.

This module owns how a child process is started and tied to us.

1. No child outlives its program: on Linux the kernel kills it with us, elsewhere `atexit` does.
2. A child may be started in any thread, and lives on when that thread ends.

It does not stop a child politely or wait for one: whoever starts it does. POSIX only.
"""

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

# The child itself asks to die with its parent, then becomes the command under the same pid.
# Rejected: a preexec_fn, which runs Python between fork and exec and, beside the threads of a Kafka
# client, may deadlock and warns from Python 3.12 on. A parent that is gone already never signals.
LAUNCHER = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
# The kernel's "parent" is the thread that started the child. This one lives as long as the program,
# so that a child started in a short-lived thread does too.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")
_left_to_atexit: list[subprocess.Popen[bytes]] = []


def start_child(
    command: Sequence[str | Path],
    *,
    new_session: bool = False,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that dies with this program; the rest is as with Popen.

    The command begins with a path: PATH is not searched. A terminal's Ctrl-C reaches the child too,
    unless it gets a new session, which its pid then also names to `os.killpg`.
    """
    arguments = [str(part) for part in command]
    if sys.platform == "linux":
        arguments = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *arguments]
    child = _starter.submit(
        lambda: subprocess.Popen(
            arguments,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
        )
    ).result()
    if sys.platform != "linux":
        _left_to_atexit.append(child)
    return child


# Registered before anything that imports us can register its own end, and so run after it.
@atexit.register
def _kill_children() -> None:
    for child in _left_to_atexit:
        child.kill()
