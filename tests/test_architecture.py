"""The order of imports, from the source text: no folder imports a later one, no cycle, one home per rule."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = "static_dynamic"
# Each folder, and the folders that its modules may import besides their own.
BASE = {"static_dynamic", "configs"}
BELOW = BASE | {"datasets", "models"}
RUN, ESTIMATE, SHOW = "analysis.run", "analysis.estimate", "analysis.show"
MAY_IMPORT = {
    "static_dynamic": BASE,
    "configs": BASE,
    "datasets": BASE,
    "models": BASE,
    "stylize": BASE | {"datasets"},
    RUN: BELOW,
    ESTIMATE: BELOW | {RUN},
    SHOW: BELOW | {RUN, ESTIMATE},
    "analysis.vos": BELOW | {RUN, ESTIMATE, SHOW},
    "analysis.explain": BELOW | {RUN, ESTIMATE, SHOW},
    "analysis.ablation": BELOW | {RUN, ESTIMATE, "analysis.vos"},
    "analysis.outputs": BELOW | {RUN, ESTIMATE, SHOW, "analysis.vos", "analysis.explain"},
    "analysis.tasks": BELOW
    | {
        RUN,
        ESTIMATE,
        SHOW,
        "analysis.vos",
        "analysis.explain",
        "analysis.ablation",
        "analysis.outputs",
        "stylize",
    },
}
FOLDERS = ("static_dynamic", "configs", "datasets", "models", "stylize", "analysis", "misc", "bench")


@cache
def sources() -> dict[str, Path]:
    """Dotted name of every module outside tests, without the prefix ``static_dynamic.`` -> its file."""
    files = chain([ROOT / "main.py"], *(sorted((ROOT / name).rglob("*.py")) for name in FOLDERS))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


@cache
def tree(file: Path) -> ast.Module:
    """The parsed text of a file."""
    return ast.parse(file.read_text())


@cache
def faces() -> dict[str, dict[str, str]]:
    """Folder with a stub -> name in it -> module that the name is loaded from."""
    found = {}
    for stub in ROOT.glob("*/__init__.pyi"):
        part = stub.parent.name
        found[part] = {
            alias.name: f"{part}.{statement.module}"
            for statement in tree(stub).body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
    return found


def targets(statement: ast.stmt, folder: Path) -> Iterator[str]:
    """Modules of the project that an import statement names, without the prefix ``static_dynamic.``.

    `folder`, relative to the repository, holds the file with the statement.
    """
    if isinstance(statement, ast.Import):
        names = [(alias.name, "") for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom):
        assert statement.level < 2, f"relative import of {statement.module} from another folder"
        parts = [part for part in (PACKAGE, *folder.parts) if statement.level]
        if folder.parts[:1] == (PACKAGE,):
            parts = parts[1:]
        module = ".".join([*parts, *filter(None, [statement.module])])
        names = [(module, alias.name) for alias in statement.names]
    else:
        return
    for module, name in names:
        first, *rest = module.split(".")
        if first != PACKAGE:
            continue
        module = ".".join(rest)
        if rest and rest[0] not in FOLDERS or not rest and name not in FOLDERS:
            module = f"{PACKAGE}.{module}".rstrip(".")  # static_dynamic.errors lies in static_dynamic/
        full = f"{module}.{name}".lstrip(".")
        yield faces().get(module, {}).get(name) or (full if full in sources() else module)


@cache
def imports(file: Path, *, at_load: bool) -> set[str]:
    """Modules of the project that a file imports; with `at_load` only imports that run when it is loaded."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if at_load and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.stmt):
                found.update(targets(child, file.parent.relative_to(ROOT)))
            visit(child)

    visit(tree(file))
    return found


def folder_of(module: str) -> str:
    """The entry of `MAY_IMPORT` that a module belongs to, else its first name."""
    two = ".".join(module.split(".")[:2])
    return two if two in MAY_IMPORT else module.split(".")[0]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_no_folder_imports_a_later_one(folder):
    wrong = [
        f"{module} imports {target}"
        for module, file in sources().items()
        if folder_of(module) == folder
        for target in imports(file, at_load=False)
        if folder_of(target) not in MAY_IMPORT[folder] | {folder}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_graph_is_what_the_files_say():
    """The tests above would also pass if no import were found."""
    graph = {module: imports(file, at_load=True) for module, file in sources().items()}
    assert "static_dynamic.errors" in graph["datasets.clips"]
    assert "datasets.clips" in graph["analysis.run.identity"], "a name of a lazy face"
    assert "analysis.outputs" in graph["analysis.tasks.profile"]
    assert "analysis.estimate.moments" in graph["analysis.estimate.bootstrap"], "a relative import"
    assert "datasets.loader" not in graph["datasets.clips"]
    assert "datasets.loader" in imports(sources()["datasets.clips"], at_load=False)
    assert set(chain(*graph.values())) <= set(sources()) | {PACKAGE}


def test_no_import_cycle():
    graph = {module: imports(file, at_load=True) for module, file in sources().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_tasks_are_imported_by_nobody():
    """The program looks a task up by its name."""
    wrong = [
        f"{module} imports {target}"
        for module, file in sources().items()
        for target in imports(file, at_load=False)
        if target.startswith("analysis.tasks")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", sorted((ROOT / "analysis" / "tasks").glob("[!_]*.py")), ids=lambda f: f.stem)
def test_a_task_is_one_function(file):
    names = [node.name for node in tree(file).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [name for name in names if not name.startswith("_")] == ["run"]
    assert len(file.read_text().splitlines()) <= 80


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("choose_device", "static_dynamic.device"),
        ("subsample_positions", "static_dynamic.spacing"),
        ("evenly_spaced", "static_dynamic.spacing"),
        ("layer_score", "analysis.estimate.moments"),
        ("unit_score", "analysis.estimate.moments"),
        ("require_same_run", "analysis.run.manifest"),
        ("json_sha256", "static_dynamic.files"),
    ],
)
def test_a_rule_has_one_home(name, home):
    homes = [
        module
        for module, file in sources().items()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert homes == [home]


@pytest.mark.parametrize(
    ("call", "homes"),
    [
        ("is_available", {"static_dynamic.device"}),  # of torch.cuda: which device computes
        ("linspace", {"static_dynamic.spacing"}),  # which frames of a clip a network sees
    ],
)
def test_parts_of_a_rule_are_nowhere_else(call, homes):
    """In the folders that choose devices or frames, bench and figures apart."""
    found = {
        module
        for module, file in sources().items()
        if folder_of(module) in ("static_dynamic", "datasets", "models", "analysis.run", "analysis.tasks")
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == call
    }
    assert found <= homes


def test_no_ladder_over_kinds_of_networks_and_clips():
    """Networks with optical flow differ by methods and attributes."""
    wrong = [
        f"{module}, line {node.lineno}"
        for module, file in sources().items()
        if module.startswith("analysis")
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
        & {"DavisClips", "TwoStreamNetwork", "FlowBatches"}
    ]
    assert not wrong, "\n".join(wrong)
