"""The report of a study as one HTML page: readable in light and dark, on a phone, without a network or a script."""

from collections import Counter
from pathlib import Path

from srp_exp.studies.contents import Contents, commit_of
from srp_exp.studies.formats import spans
from srp_exp.studies.plots import plots
from srp_exp.studies.store import State

TEMPLATE = "page.html.jinja"
ORIGINS = ("torch", "timm", "torchvision")
"""Packages whose versions the page names."""


def page(contents: Contents) -> str:
    """The whole page, as a self-contained HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["svg"] = Markup  # the pictures are our own and escape what they show
    environment.globals.update(spans=spans, commit_of=commit_of)
    return environment.get_template(TEMPLATE).render(
        contents=contents,
        study=contents.results.study,
        plots=plots(contents.results),
        provenance=provenance(contents),
    )


def provenance(contents: Contents) -> dict[str, str]:
    """From what the finished runs come: commits, versions, devices, each with the number of its runs."""
    runs = {run.folder: run for *_, run in contents.runs if run.state == State.finished}.values()
    origins = {
        "commit (+: uncommitted changes)": Counter(commit_of(run) for run in runs),
        **{name: Counter(run.provenance["packages"].get(name, "unknown") for run in runs) for name in ORIGINS},
        "Python": Counter(run.provenance["python"] for run in runs),
        "device": Counter(run.provenance["device"] for run in runs),
    }
    return {
        name: ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.most_common())
        for name, counts in origins.items()
        if counts
    }
