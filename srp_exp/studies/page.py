"""The report of a study as one HTML page: readable in light and dark, on a phone, without a network or a script."""

from pathlib import Path

from srp_exp.studies.contents import Contents, commit_of
from srp_exp.studies.formats import spans
from srp_exp.studies.plots import plots

TEMPLATE = "page.html.jinja"


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
    )
