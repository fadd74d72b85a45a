"""Stand-ins for the stack's base images, where no registry of images can be reached.

They have the real names, in podman's storage only, and are not the real images: `make.sh` says
what they are made of.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from demo.kafka_files import KAFKA_VERSION, install, maven
from tests.deploy.engine import ROOT, Engine, NoEngine

MAKE = Path(__file__).with_name("make.sh")
WORK = ROOT / "build/stand-ins"  # A Debian, kept for the next time, and what its tools have said.
# Kafka's command lines, which the embedded broker has no use for.
TOOLS = ("org.apache.kafka", "kafka-tools")


def make(engine: Engine) -> None:
    """Make those that are not there; two minutes for all, from Debian's packages.

    Raises:
        NoEngine: they cannot be made, or not for this engine.
    """
    if engine.name != "podman":
        raise NoEngine(
            f"stand-ins are for podman's storage, and it is {engine.name} that answers; leave out "
            "STAND_INS. Nothing was started"
        )
    missing = subprocess.run(["bash", MAKE, "--missing"], capture_output=True, text=True).stdout
    if not missing.split():
        return
    try:
        kafka = install()
        with tempfile.TemporaryDirectory() as folder:
            jars = Path(folder, "jars")
            shutil.copytree(kafka.folder / "jars", jars)
            tools = maven(Path(folder, "repository")).project(*TOOLS)
            shutil.copy(tools.at_version(KAFKA_VERSION).artifact().resolve(), jars)
            subprocess.run(["bash", MAKE, WORK, kafka.java.parents[1], jars], check=True)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        raise NoEngine(
            f"no stand-ins for {', '.join(missing.split())}: {error}. Wanted: root, debootstrap, "
            f"Debian's packages and a Maven repository; {WORK} has the logs. Nothing was started"
        ) from error
