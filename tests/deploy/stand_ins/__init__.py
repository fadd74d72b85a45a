"""Stand-ins for the stack's base images, where no registry of images can be reached.

They have the real names, in podman's storage only, and are not the real images: `make.sh` says
what they are made of.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from demo.kafka_files import KAFKA_VERSION, install

MAKE = Path(__file__).with_name("make.sh")
# Kafka's command lines, which the embedded broker has no use for.
TOOLS = ("org.apache.kafka", "kafka-tools")


def make() -> None:
    """Make those that are not there; three minutes for all, from Debian's packages.

    Raises:
        subprocess.CalledProcessError: `make.sh` did not end well; it has said why.
    """
    from jgo.maven import MavenContext

    kafka = install()
    with tempfile.TemporaryDirectory() as folder:
        jars = Path(folder, "jars")
        shutil.copytree(kafka.folder / "jars", jars)
        maven = MavenContext(repo_cache=Path(folder, "repository"))
        tools = maven.project(*TOOLS).at_version(KAFKA_VERSION).artifact().resolve()
        shutil.copy(tools, jars)
        java_home = kafka.java.parents[1]
        subprocess.run(
            ["bash", str(MAKE), str(Path(folder, "work")), str(java_home), str(jars)], check=True
        )
