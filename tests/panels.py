"""A fragment of the report rendered by itself, with the macros of the page."""

from importlib import resources

from jinja2 import Environment, StrictUndefined

from test_report_runs import Structure, parsed


def rendered(name: str, panel: dict[str, object] | None) -> Structure:
    """What a browser sees of panels/NAME.html; fails on a tag closed out of turn and on a value that is not there."""
    report = resources.files("metier.report")
    macros = report.joinpath("page.html").read_text(encoding="utf-8").partition("<!DOCTYPE")[0]
    fragment = report.joinpath("panels", f"{name}.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    structure = parsed(environment.from_string(macros + fragment).render({name: panel}))
    assert structure.open == []
    return structure
