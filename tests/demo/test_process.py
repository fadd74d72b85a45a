"""Children of this program: they end with it, and not before."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.process import start_child

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
READ_ALL = "import sys; sys.stdin.read()"  # A child for as long as we hold its input.


def test_a_child_has_the_command_the_environment_and_the_streams_that_it_was_given():
    source = "import os, sys; print(*sys.argv[1:], os.environ['WORD']); sys.exit(3)"
    command = [Path(sys.executable), "-c", source, "a b", "-c"]

    child = start_child(command, env={"WORD": "c"}, stdout=subprocess.PIPE)

    output, _ = child.communicate(timeout=WAIT_S)
    assert (output, child.returncode) == (b"a b -c c\n", 3)


def test_a_child_outlives_the_thread_that_started_it():
    """Linux ties the death signal to the thread, not to the program."""
    command = [sys.executable, "-c", "print('here', flush=True); input(); print('still here')"]
    with ThreadPoolExecutor(1) as short_lived:
        starting = short_lived.submit(
            start_child, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        child = starting.result()
        assert child.stdout.readline() == b"here\n"

    output, _ = child.communicate(b"\n", timeout=WAIT_S)

    assert (output, child.returncode) == (b"still here\n", 0)


@pytest.mark.parametrize("new_session", [True, False])
def test_a_child_shares_our_session_unless_it_gets_its_own(new_session):
    command = [sys.executable, "-c", READ_ALL]
    with start_child(command, new_session=new_session, stdin=subprocess.PIPE) as child:
        expected = child.pid if new_session else os.getsid(0)
        assert os.getsid(child.pid) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "sys.exit()", "os._exit(1)"])
def test_a_program_that_ends_in_any_way_leaves_no_child_behind(ending):
    assert_no_child_outlives(f"import os; {ending}")


def test_a_program_that_ends_by_itself_leaves_no_child_behind_on_any_system():
    assert_no_child_outlives("sys.exit()", platform="unheard-of")


def assert_no_child_outlives(ending: str, platform: str = sys.platform) -> None:
    """Have a program start a child and end; the child holds our pipe open while it runs."""
    child = "import time; print('here', flush=True); time.sleep(60)"
    source = (
        "import sys; from demo.process import start_child\n"
        f"sys.platform = {platform!r}\n"
        f"start_child([sys.executable, '-c', {child!r}]); input(); {ending}"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", source]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as program:
        assert program.stdout.readline() == b"here\n"
        output, _ = program.communicate(b"\n", timeout=WAIT_S)
    assert output == b""
