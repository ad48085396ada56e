"""The house is in order: imports run one way, the root is small, and what a user can mend is told from a fault."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "srp_exp"
sys.path.insert(0, str(ROOT / "scripts"))
import house  # noqa: E402 - the figures that scripts/house.py prints

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (PACKAGE, ROOT / "hydra_plugins")
    for path in folder.rglob("*.py")
}


def imported(module: str) -> set[str]:
    """The modules of ours that `module` imports anywhere, also late within a function, or for types only."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module is not None
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return {name for name in found if name in FILES}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other all around, or an empty list."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in finished:
            for other in sorted(graph[name]):
                if found := visit(other, [*path, name]):
                    return found
            finished.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_two_modules_import_each_other() -> None:
    graph = {name: imported(name) - {name} for name in FILES}
    assert sum(map(len, graph.values())) > 200
    assert circle(graph) == []


def test_imports_run_one_way() -> None:
    """Each package imports those below it only; those on one line know nothing of each other, unless it says so."""
    below = {
        "__main__": {"commands", "runs", "studies"},
        "commands": {"runs", "studies"},
        "studies": {"runs"},
        "runs": {"training", "evaluation", "export"},
        "evaluation": {"training"},
        "training": {"datasets", "backbones", "srp"},
        "export": {"datasets", "backbones", "srp"},
        "datasets": {"config"},
        "backbones": {"config"},
        "srp": {"config"},
        "config": set(),
    }

    def reachable(package: str) -> set[str]:
        return below.get(package, set()).union(*(reachable(other) for other in below.get(package, ())))

    for name in FILES:
        package = name.split(".")[1] if name.startswith("srp_exp.") else ""
        if package in below:
            others = {other.split(".")[1] for other in imported(name) if other.startswith("srp_exp.")}
            if name == "srp_exp.commands.report.command":
                others -= {"__main__"}  # srp-report compare is srp-exp mode=compare
            upwards = (others - {package, "errors", "files", "remembered", "seeding"}) - reachable(package)
            assert not upwards, f"{name} imports {upwards}"


def test_the_root_is_small() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()} - {"__init__.py", "__main__.py", "py.typed"}
    assert len(files) <= 4, files


def test_folders_are_small() -> None:
    folders = Counter(path.parent for path in FILES.values())
    assert len(folders) > 15
    assert {folder.name: count for folder, count in folders.items() if count > 15} == {}


def test_a_public_name_is_one_thing() -> None:
    assert house.defined_twice() == {}


def test_the_words_are_plain() -> None:
    assert [place for _, place in house.stiff_words()] == []


def test_what_is_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names defined twice, constants and aliases too, and words of the list."""
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(
            '"""Which goes on."""\nLIMIT = 1\nSide: TypeAlias = int\n_own = 1\nclass Run: ...\n'
        )
    monkeypatch.setattr(house, "PACKAGE", tmp_path)
    monkeypatch.setattr(house, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("")
    assert set(house.defined_twice()) == {"LIMIT", "Side", "Run"}
    assert [word for word, _ in house.stiff_words()] == ["goes on", "goes on"]


def test_the_page_of_the_architecture_leads_to_what_exists() -> None:
    """Each path that it names exists; ten changes lead to the file that holds what they change."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    paths = {path for path in re.findall(r"`([\w/]+(?:/|\.py))`", page) if "/" in path}
    assert len(paths) > 40
    assert [path for path in paths if not ((PACKAGE / path).exists() or (ROOT / path).exists())] == []
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", page, re.MULTILINE))
    changes = {
        "a precision": "_DTYPES", "what a run's hash contains": "def identity_of", "a depth schedule": "class Linear",
        "a column of `srp-report runs`": "def list_runs", "which modules get SRP": "def _is_norm",
        "when a statement counts as shown, at each look": "def boundary", "a rule between settings": "def validate",
        "what a checkpoint from elsewhere may build": "KIND_OF_GROUP", "an augmentation": "def train_transform",
        "an error message of Hydra's or of a library's": "def known_failure",
    }  # fmt: skip
    for change, held in changes.items():
        named = [ROOT / path for path in re.findall(r"`(srp_exp/[\w/]+\.py)`", rows[change])]
        assert any(held in path.read_text() for path in named), change


def raised(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            yield node.lineno, node.exc.func.id


def test_what_a_user_can_mend_is_an_error_of_our_own() -> None:
    """A ValueError is a fault, which keeps its traceback: input is refused by a UserError."""
    plain = {"ValueError", "FileNotFoundError"}
    found = [
        f"{name}:{line}"
        for name, path in FILES.items()
        for line, kind in raised(ast.parse(path.read_text()))
        if kind in plain
    ]
    assert found == []
