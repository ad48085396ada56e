"""Figures of the code: imports between packages, largest files and functions, names defined twice, stiff words.

    python scripts/house.py [--all]

Public names are the classes, functions and constants of a module that don't begin with an underscore; modules with
the same role may share one (`execute` of the commands, `build` of the backbones). Words are searched in strings,
docstrings, comments and pages. --all lists every place.
"""

import argparse
import ast
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "srp_exp"
SAME_ROLE = {"execute": PACKAGE / "commands", "build": PACKAGE / "backbones"}
STIFF = (
    r"\bis there\b", r"\bare there\b", r"\bisn't there\b", r"\bgo(es)? on\b", r"\bwent on\b", r"\bpassed over\b",
    r"\bof several (tasks|processes)\b", r"\bhas a word\b", r"\bwithout a word\b",
    r"\b(another|other) than\b", r"\bmay be any\b", r"\bpasses by\b",
)  # fmt: skip


def public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, functions and constants at the top of a module, but for those of one that only starts a command."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def defined_twice() -> dict[str, list[str]]:
    """Public names that several modules of srp_exp define, with these modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for name in public_names(ast.parse(file.read_text())):
            if not name.startswith("_") and name != "main" and SAME_ROLE.get(name) != file.parent:
                places[name].append(str(file.relative_to(PACKAGE)))
    return {name: files for name, files in places.items() if len(files) > 1}


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings and comments of a Python file; of a page every line."""
    if file.suffix != ".py":
        yield from enumerate(file.read_text().splitlines(), 1)
        return
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    with file.open("rb") as opened:
        for token in tokenize.tokenize(opened.readline):
            if token.type in kinds:
                yield from enumerate(token.string.splitlines(), token.start[0])


def stiff_words() -> list[tuple[str, str]]:
    """(word, "file:line: text") wherever one of the list stands."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "conf").rglob("*.yaml")]
    found = []
    for file in [*sorted(PACKAGE.rglob("*.py")), *sorted(pages)]:
        for line, text in prose(file):
            for pattern in STIFF:
                if match := re.search(pattern, text, re.IGNORECASE):
                    found.append((match[0].lower(), f"{file.relative_to(ROOT)}:{line}: {text.strip()}"))
    return found


def imports() -> Counter[tuple[str, str]]:
    """How many modules of a package import from another one."""
    counts: Counter[tuple[str, str]] = Counter()
    for file in PACKAGE.rglob("*.py"):
        package = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        tree = ast.walk(ast.parse(file.read_text()))
        modules = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module}
        others = {module.split(".")[1] for module in modules if module.startswith("srp_exp.")}
        counts.update((package, other) for other in others - {package})
    return counts


def functions() -> list[tuple[int, str]]:
    """(lines, "file:name") of every function."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.append(((node.end_lineno or 0) - node.lineno + 1, f"{file.relative_to(PACKAGE)}:{node.name}"))
    return sorted(found, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="list every place")
    most = None if parser.parse_args().all else 10

    sizes = sorted(((len(f.read_text().splitlines()), f) for f in PACKAGE.rglob("*.py")), reverse=True)
    print(f"{len(sizes)} files, {sum(size for size, _ in sizes):,} lines; the largest:")
    for size, file in sizes[:most]:
        print(f"  {size:4} {file.relative_to(PACKAGE)}")
    lengths = functions()
    print(f"{len(lengths):,} functions, median {median(length for length, _ in lengths):g} lines; the longest:")
    for length, name in lengths[:most]:
        print(f"  {length:4} {name}")
    folders = Counter(file.parent for _, file in sizes)
    print(f"fullest folder: {folders.most_common(1)[0][1]} files in {folders.most_common(1)[0][0].relative_to(ROOT)}")
    print("imports between packages (modules that import):")
    for (one, other), count in sorted(imports().items()):
        print(f"  {count:4} {one} -> {other}")
    twice = defined_twice()
    print(f"public names defined twice: {len(twice)}")
    for name, files in sorted(twice.items()):
        print(f"  {name}: {', '.join(files)}")
    words = stiff_words()
    counted = Counter(word for word, _ in words).most_common()
    print(f"stiff words: {len(words)} ({', '.join(f'{word} {count}' for word, count in counted)})")
    for _, place in words[:most]:
        print(f"  {place}")


if __name__ == "__main__":
    main()
