"""Pages about data: one self-contained HTML file each, in the style of a run's report."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def rendered(template: str, **context: object) -> str:
    """A page that runs no script and fetches nothing.

    Args:
        template: a file in ``data/``; it may include ``report.css``.
        context: what it shows; escaped.
    """
    here = Path(__file__).parent
    jinja = Environment(
        loader=FileSystemLoader([here / "data", here / "evaluation"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template(template).render(context)
