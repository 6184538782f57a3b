"""The way of the data is one direction: a room imports only from rooms before it, and no modules import in a circle.

Read from the import statements of every module, those inside functions included. What only annotations need
(`TYPE_CHECKING`) counts for the order of rooms, not for circles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

PACKAGE: Final = Path(__file__).parent.parent / "replay"

ROOMS: Final = (
    "errors",
    "version",
    "engine",
    "linux",
    "logs",
    "grammar",
    "lines",
    "calls",
    "mm",
    "spaces",
    "allocator",
    "heap",
    "console",
    "tables",
    "run",
    "conditions",
    "datasets",
    "report",
    "batch",
    "html",
    "record",
    "whatif",
    "perfetto",
    "library",
    "commands",
    "cli",
    "__init__",
    "__main__",
)
"""Packages and modules below `replay`, each of which may import those before it."""

ALONE: Final = {
    "lark": ("grammar",),
    "typer": ("commands", "cli"),
    "pandas": ROOMS[ROOMS.index("tables") :],
}
"""The rooms that may import a library."""

UPWARDS: Final[dict[str, str]] = {}
"""Imports that run up and are yet to be turned: module to module."""

CIRCLES: Final[tuple[set[str], ...]] = ()
"""Circles that are yet to be opened. None may come in, and one that is open leaves the list."""


class Import(NamedTuple):
    """One module imports another; `typing`: only what is annotated needs it."""

    by: str
    of: str
    typing: bool


def module_name(path: Path) -> str:
    parts = ("replay", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES: Final = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_in(name: str, node: ast.AST, typing: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        only_typing = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
        if isinstance(child, ast.Import):
            yield from (Import(name, alias.name, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 and child.module, f"{name}: imports are absolute"
            for alias in child.names:
                deeper = f"{child.module}.{alias.name}"
                yield Import(name, deeper if deeper in MODULES else child.module, typing)
        yield from imports_in(name, child, only_typing)


IMPORTS: Final = [
    found for name, path in MODULES.items() for found in imports_in(name, ast.parse(path.read_text(encoding="utf-8")))
]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(name) for name in MODULES} <= set(ROOMS)


def test_a_room_imports_only_from_rooms_before_it() -> None:
    order = {room: at for at, room in enumerate(ROOMS)}
    own = [found for found in IMPORTS if found.of.split(".")[0] == "replay"]
    upwards = {found.by: found.of for found in own if order[room_of(found.of)] > order[room_of(found.by)]}
    assert upwards == UPWARDS


def circles() -> list[set[str]]:
    """Return the sets of modules that import each other, by way of others or not."""
    ways: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.of in MODULES and found.of != found.by and not found.typing:
            ways[found.by].add(found.of)
    reached = {name: _reached(ways, name) for name in ways}
    met = ({name, *(other for other in reached[name] if name in reached[other])} for name in ways)
    return [set(circle) for circle in {frozenset(circle) for circle in met if len(circle) > 1}]


def _reached(ways: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for name in ways[ahead.pop()] - found:
            found.add(name)
            ahead.append(name)
    return found


def test_no_modules_import_in_a_circle() -> None:
    assert sorted(map(sorted, circles())) == sorted(map(sorted, CIRCLES))


@pytest.mark.parametrize("library", ALONE)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {room_of(found.by) for found in IMPORTS if found.of.split(".")[0] == library}
    assert users and users <= set(ALONE[library])


# --- the size of files and functions ---

MOST_LINES: Final = 400
MOST_LINES_OF_A_FUNCTION: Final = 40

LONG_FILES: Final = {
    "tables/schema.py": "the data dictionary: a list of columns",
}
"""Files that may be longer, and why."""

LONG_FUNCTIONS: Final = {
    "calls/table.py calls_of": "one line a column",
    "lines/scan_loop.py _scan_line": "compiled; a call more costs on every line",
    "lines/scan_loop.py scan_lines": "compiled; a call more costs on every line",
    "report/malloc/findings.py causes": "one line a field",
    "spaces/replay.py _replay_with": "the order of the stages",
    "whatif/policies.py what_if": "the order of the stages",
}
"""Functions that may be longer, and why. Those of `commands` may: their options and their help stand in them."""


def test_files_and_functions_are_short() -> None:
    files, functions = set(), set()
    for path in MODULES.values():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        if text.count("\n") > MOST_LINES:
            files.add(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION:
                functions.add(f"{name} {node.name}")
    functions = {name for name in functions if not name.startswith("commands/")}
    assert files == set(LONG_FILES)
    assert functions == set(LONG_FUNCTIONS)
