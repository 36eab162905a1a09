"""The page of promises: forty-eight rows, each with tests that exist, a figure and a planted fault."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8")
TEST = re.compile(r"(\*?)`([\w/]+\.py)::(\w+)`")


def rows(page: str) -> list[list[str]]:
    """The cells of the numbered rows: number, promise, tests, figure, planted fault."""
    lines = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@cache
def functions(path: Path) -> dict[str, bool]:
    """The tests of a file, and whether each is a long proof as a whole."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: any(ast.unparse(d) == "pytest.mark.proof" for d in node.decorator_list) for node in tests}


def wrong(row: list[str]) -> list[str]:
    """What is wrong with a row, in words."""
    found = [f"{len(row)} cells"] if len(row) != 5 else []
    found += [
        f"no {name}" for name, cell in zip(("promise", "test", "figure", "fault"), row[1:], strict=False) if not cell
    ]
    for cell in (row[2], row[-1]):
        found += [] if TEST.search(cell) else [f"no test in '{cell}'"]
        for italic, path, name in TEST.findall(cell):
            file = TESTS / path
            tests = functions(file) if file.is_file() else {}
            if name not in tests:
                found.append(f"{path}::{name} does not exist")
            elif tests[name] != bool(italic):
                found.append(f"{path}::{name} is {'no' if italic else 'a'} long proof")
    return found


def test_there_are_forty_eight_promises_in_order():
    assert [int(row[0]) for row in rows(PAGE)] == list(range(1, 49))


@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row[0])
def test_each_has_tests_that_exist_a_figure_and_a_fault(row):
    assert wrong(row) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("test_cli.py", "test_clu.py"), "does not exist"),
        (("500 tried", ""), "no figure"),
        (("`command", "*`command"), "is no long proof"),
    ],
)
def test_a_row_that_is_wrong_is_noticed(change, message):
    row = ["21", "promise", "`command/test_cli.py::test_run_py_is_the_verb_train`", "500 tried", ""]
    row[4] = row[2]
    row[2:4] = [cell.replace(*change) for cell in row[2:4]]
    assert any(message in text for text in wrong(row))
