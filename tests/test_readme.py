"""The README is true: its tables are the code's, and its tour runs as it stands."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.stream import Stream, ends
from tests.readme import README, ROOT, TREE, block, part, settings_table, tree

TEXT = README.read_text()
COLUMNS = ("amount", "items", "hour")


def test_the_settings_table_is_the_code():
    assert part("settings", TEXT) == settings_table(), "run: python -m tests.readme"


def test_the_tree_is_the_code():
    assert part("tree", TREE.read_text()) == tree(), "run: python -m tests.readme"


@pytest.mark.parametrize(
    "page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_within_the_documentation_leads_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())
    assert links or page != README
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


def _anchors(markdown: str) -> set[str]:
    """What a heading is linked by: its words in lower case, hyphens between them."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_that_the_documentation_names_exists():
    pages = [README, *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def test_the_score_record_that_the_readme_shows_has_the_fields_of_one():
    from schemas.score import decode_score

    shown = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert shown
    assert decode_score(shown[1].encode()).verdict == "anomalous"


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV that the project has never seen, after the tour's first part."""
    folder = tmp_path_factory.mktemp("tour")
    rng = random.Random(3)
    for name, rows in (("payments.csv", 1500), ("today.csv", 200)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", *COLUMNS])
            for number in range(rows):
                size = rng.lognormvariate(0, 0.5)
                row = [30 * size, rng.gauss(2 * size, 0.2), rng.gauss(14, 3)]
                writer.writerow([f"p-{number}", *(f"{value:.3f}" for value in row)])
        if name == "today.csv":
            with (folder / name).open("a") as file:
                file.write("p-odd,9100,1,3\np-gap,35,,14\n")
    assert "is fit to serve" in run_block("csv", folder)
    return folder


def run_block(name: str, folder: Path) -> str:
    """Run a block of the tour as it stands; return what it printed."""
    done = subprocess.run(
        ["bash", "-euc", block(name, TEXT)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """As after `source .venv/bin/activate`, without settings of whoever runs the tests."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("ODRADEK_", "KAFKA_"))}
    return {**plain, "PATH": f"{Path(sys.executable).parent}:{plain['PATH']}"}


def test_the_tour_from_a_csv_flags_the_odd_payment(tour: Path):
    scores = [json.loads(line) for line in (tour / "scores.jsonl").read_text().splitlines()]
    by_id = {score["event_id"]: score for score in scores}
    assert len(by_id) == 202
    assert by_id["p-odd"]["verdict"] == "anomalous"
    assert by_id["p-odd"]["top_features"][0]["name"] in {"amount", "items"}
    assert by_id["p-gap"]["verdict"] in {"normal", "anomalous"}
    assert sum(score["verdict"] == "anomalous" for score in scores) < 15


def test_the_tour_evaluates_on_labelled_rows(tour: Path):
    with (tour / "labelled.csv").open("w") as file:
        file.write("id,amount,items,hour,fraud\n")
        file.writelines(f"n-{n},{30 + n},{2 + n / 15},14,0\n" for n in range(20))
        file.writelines(f"f-{n},{9000 + n},1,3,1\n" for n in range(5))
    assert "on 20 normal events and 5 anomalies" in run_block("labelled", tour)
    assert "labelled.csv" in (tour / "report.html").read_text()


def test_the_tour_reads_a_users_own_json(tour: Path):
    rng = random.Random(5)
    with (tour / "history.jsonl").open("w") as file:
        for number in range(600):
            x = rng.gauss(0, 1)
            event = {
                "meta": {"id": f"h-{number}", "at": "2026-01-31T12:00:00Z"},
                "payload": {"metrics": {"x": x, "y": x + rng.gauss(0, 0.1)}, "host": "a"},
            }
            file.write(json.dumps(event) + "\n")
    run_block("nested", tour)
    scores = [json.loads(line) for line in (tour / "nested.jsonl").read_text().splitlines()]
    assert [score["event_id"] for score in scores[:2]] == ["h-0", "h-1"]
    assert {score["timestamp"] for score in scores} == {1769860800000}


def test_the_tour_from_a_topic_serves_the_same_model(tour: Path, stream: Stream, tmp_path: Path):
    script = block("topic", TEXT).replace("127.0.0.1:9092", stream.servers)
    assert stream.servers in script
    settings = {
        "ODRADEK_INPUT_TOPIC": stream.input,
        "ODRADEK_OUTPUT_TOPIC": stream.output,
        "ODRADEK_DEAD_LETTER_TOPIC": stream.dead_letter,
        "ODRADEK_HTTP_PORT": "0",
    }
    event = {"event_id": "p-17", "features": dict(zip(COLUMNS, (9100, 1, 3), strict=True))}
    sent = stream.send([json.dumps(event).encode()])
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            ["bash", "-euc", script.replace("odradek-worker run", "exec odradek-worker run")],
            cwd=tour,
            env={**environment(), **settings},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while stream.committed() != ends(sent):
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0, log.read_text()
    finally:
        worker.kill()
