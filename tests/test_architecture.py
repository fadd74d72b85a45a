"""The plan of the house, held by a test: who may import whom, how large things grow."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from worker.declared import DECLARED

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "trainer", "worker", "demo")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).glob("**/*.py"))]
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 50
LONGER_FUNCTIONS: set[str] = set()

KAFKA, RUNTIME = "confluent_kafka", "onnxruntime"
# Who -> what it never imports.
FORBIDDEN = {
    "schemas/": ("trainer", "worker", "demo", "torch", "onnx", KAFKA, RUNTIME),
    "trainer/": ("worker", "demo", KAFKA),
    "worker/": ("trainer", "demo", "torch", "onnx"),
    "worker/service.py": (KAFKA, RUNTIME, "worker.source", "worker.sink", "time", "os"),
    # Pure: no clock, no system, no network.
    "worker/decode.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/read_json.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/read_packed.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/typed_json.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/groups.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/scanner.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/results.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/sample.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/statistics.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/turn.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/trace_context.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/span_links.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/assignments.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/breaker.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/finite.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/redrive.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/delivery.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
    "worker/starts.py": (KAFKA, RUNTIME, "time", "os", "socket", "random"),
}
PURE_OF_SYSTEM = ("time", "os", "socket", "random")
# Only these may meet the world's two clients, and the tracing that may be there.
MAY_IMPORT = {
    KAFKA: {
        f"worker/{name}.py"
        for name in (
            "committer",
            "ends",
            "kafka_client",
            "kafka_records",
            "lags",
            "membership",
            "outputs",
            "placing",
            "ranges",
            "size_limits",
            "positions",
            "sink",
            "source",
            "topics",
            "transactional_client",
            "transactions",
        )
    },
    RUNTIME: {"worker/session.py", "worker/buckets.py"},
    # An extra: only what ODRADEK_TRACING turns on.
    "opentelemetry": {"worker/tracing.py", "worker/span_links.py", "worker/span_export.py"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, and all of their parents."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            module = node.module or ""
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names | {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}


def by_name(path: Path) -> str:
    return name_of(path)


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_imports_follow_the_arrows(path):
    name = name_of(path)
    seen = imports_of(path)
    for who, never in FORBIDDEN.items():
        if name.startswith(who):
            assert not seen & set(never), f"{name}: {who} never imports this"
    if name.startswith("worker/"):
        for module, allowed in MAY_IMPORT.items():
            assert module not in seen or name in allowed, f"{name} must not know {module}"
    if name.startswith("schemas/"):
        assert not seen & set(PURE_OF_SYSTEM), f"{name} is pure"


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_files_and_functions_stay_readable(path):
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{name_of(path)} has {lines} lines; split it"
    assert not {"utils", "util", "common", "helpers"} & set(path.with_suffix("").parts)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if f"{name_of(path)} {node.name}" not in LONGER_FUNCTIONS:
                where = f"{name_of(path)}:{node.lineno} {node.name}"
                assert length <= FUNCTION_LINES_MAX, f"{where} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_every_file_says_what_it_owns(path):
    assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("package", ["schemas", "worker"])
def test_nothing_prints_but_the_one_place_that_speaks(package):
    for path in sorted((ROOT / package).glob("*.py")):
        calls = [
            node.lineno
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
        assert not calls or name_of(path) == "schemas/errors.py", f"{name_of(path)}:{calls}"


def test_only_the_service_loops_over_turns():
    """The life of the worker is on one screen: no other module has a loop without an end."""
    loops = {
        f"{name_of(path)}:{node.lineno}"
        for path in sorted((ROOT / "worker").glob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.While) and isinstance(node.test, ast.Constant)
    }
    # Waits that end by themselves: a full queue at write, a broker that answers at start, and one
    # that grants a transactional id. And a view that the person who looks at it ends.
    waits = {
        *("worker/outputs.py", "worker/topics.py", "worker/transactions.py"),
        "worker/top_command.py",
    }
    assert {place.split(":")[0] for place in loops} <= waits


def test_every_metric_has_its_sentence_and_no_dashboard_uses_another():
    declared = {metric.scraped_name: metric for metric in DECLARED}
    assert len(declared) == len(DECLARED)
    for name, metric in declared.items():
        assert re.fullmatch(r"odradek_[a-z_0-9]+", name), name
        assert re.fullmatch(r"[A-Z0-9].+\.", metric.sentence), name
        assert metric.unit, name
        assert all(label.values or label.bound for label in metric.labels), name
    for path in sorted((ROOT / "deploy").glob("**/*")):
        if path.suffix in {".json", ".yml", ".yaml"}:
            for used in set(re.findall(r"\bodradek_[a-z_0-9]+", path.read_text())):
                base = re.sub(r"_(bucket|sum|count)$", "", used)
                assert {used, base} & declared.keys(), f"{name_of(path)} uses {used}"


def test_every_folder_of_tests_is_a_package():
    """Otherwise one test module would shadow another of the same name."""
    for path in (ROOT / "tests").glob("**/test_*.py"):
        assert (path.parent / "__init__.py").exists(), path
