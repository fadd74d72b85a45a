"""The parts of the documentation that are written from the code: `python -m tests.readme`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from worker.settings import PREFIX, WorkerSettings

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TREE = ROOT / "docs" / "tree.md"
SENTENCE_MAX = 84
ROOMS = {
    "trainer": "fits, calibrates, seals; knows torch, never Kafka",
    "schemas": "what both programs and the outside agree on",
    "worker": "reads, decodes, scores, writes; knows Kafka, never torch",
    "demo": "what `make demo` runs, and the embedded broker",
    "bench": "side-by-side benchmarks",
}


def settings_table() -> str:
    """The worker's settings, one a line."""
    rows = ["| variable | default | |", "| --- | --- | --- |"]
    for name, field in WorkerSettings.model_fields.items():
        required = field.default is PydanticUndefined
        default = "(required)" if required else _default(field.default)
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def tree() -> str:
    """Every source file with the first sentence of its docstring."""
    lines = ["```"]
    for room, purpose in ROOMS.items():
        lines.append(f"{room + '/':28}{purpose}")
        files = [f for kind in ("*.py", "*.c", "*.h") for f in (ROOT / room).rglob(kind)]
        for path in sorted(files):
            name = path.relative_to(ROOT / room).as_posix()
            if path.name != "__init__.py" or path.parent.name != room:
                lines.append(f"  {name:25} {_first_sentence(path)}")
    others = {
        "tests/": "mirrors the packages; broker/, hostile/, end_to_end/ on real things",
        "docs/": "pages that are too long for the README",
        "deploy/": "images, Prometheus, Grafana; docker-compose.yml is at the top",
    }
    lines += [f"{name:28}{purpose}" for name, purpose in others.items()]
    return "\n".join([*lines, "```"])


def part(name: str, text: str) -> str:
    """What stands between the markers of a part."""
    match = re.search(rf"<!-- {name}: begin -->\n(.*?)\n?<!-- {name}: end -->", text, re.DOTALL)
    assert match, f"there is no part {name!r}"
    return match[1]


def block(name: str, text: str) -> str:
    """The code block that follows a marker."""
    match = re.search(rf"<!-- tour: {name} -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert match, f"the README has no tour {name!r}"
    return match[1]


def _default(value: object) -> str:
    if value is None:
        return "not set"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _first_sentence(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(text)) or ""
    else:
        docstring = re.sub(r"^ ?\*", "", text.partition("/*")[2].partition("*/")[0], flags=re.M)
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?]) ", paragraph)[0].rstrip(".:")
    return sentence if len(sentence) <= SENTENCE_MAX else sentence.partition(":")[0]


def update() -> None:
    for page, name, wanted in (
        (README, "settings", settings_table()),
        (TREE, "tree", tree()),
    ):
        text = page.read_text()
        page.write_text(
            text.replace(
                f"<!-- {name}: begin -->\n{part(name, text)}".rstrip("\n"),
                f"<!-- {name}: begin -->\n{wanted}",
            )
        )


if __name__ == "__main__":
    update()
