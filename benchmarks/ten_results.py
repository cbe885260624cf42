"""The ten results of finished runs beside one another, as a table in Markdown: every figure as results.json has it, and
what was not measured as such.

Usage:
    metier adapt DATA --evidence full --minutes 60 --out runs/a
    python benchmarks/ten_results.py runs/a [runs/b …]
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metier.report.figures import MISSING
from metier.runs import RunFolder, read_json

Results = Mapping[str, Any]


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def bits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def between(part: Mapping[str, Any], low: str = "ci_low", high: str = "ci_high") -> str:
    return f"({bits(part[low])} to {bits(part[high])})" if part.get(low) is not None else "(no interval)"


def gain(found: Results) -> str:
    part = found["gain"]
    shown = f"{percent(part['relative_ci_low'])} to {percent(part['relative_ci_high'])}"
    said = f"{bits(part['base'])} → {bits(part['adapted'])}, {percent(part['relative'])} fewer bits ({shown}; "
    said += f"{part['n_documents']} documents)"
    for control in found.get("controls", {}).get("controls", []):
        said += f"; {control['name']} beaten by {bits(control['beaten_by']['diff'])} {between(control['beaten_by'])}"
    return said


def retention(found: Results) -> str:
    slices = [one for one in found["retention"]["slices"] if one["upper_95"] is not None]
    kept = sum(one["passed"] is True for one in slices)
    worst = max(slices, key=lambda one: one["upper_95"] / one["margin"])
    shown = f"{kept} of {len(slices)} slices within their margins; nearest to it {worst['name']}, "
    shown += f"{worst['diff']:+.3f}, bound {bits(worst['upper_95'])}, margin {bits(worst['margin'])}"
    apart = found["retention"].get("divergence", {}).get("slices", {})
    nats = ", ".join(f"{name} {bits(one['kl'])}" for name, one in apart.items())
    return f"{shown}; divergence in nats a token: {nats or MISSING}"


def dial(found: Results) -> str:
    part = found["dial"]
    said = f"strength {part['chosen']:.2g} ({part['verdict']}), keeps {percent(part['kept_gain'])} of the gain"
    if sure := part.get("confirmation"):
        said += f"; foretold {bits(sure['predicted']['gain'])}, measured {bits(sure['measured']['gain'])}"
        said += f", within the band: {sure['within']}"
    if out := part.get("left_out"):
        said += f"; {out['within']} of {out['of']} hidden figures within their bands"
    return said


def scratch(found: Results) -> str:
    part = found["scratch"]
    sizes = ", ".join(f"{bits(one['bits'])} from {one['tokens']:,} tokens" for one in part["sizes"])
    floors = part["floors"]
    said = f"random weights: {sizes or part['sentence']}; n-grams {bits(floors['ngram'])}, compressor "
    said += f"{bits(floors['compressor'])}, base {bits(part['base_bits'])}, adapted {bits(part['adapted_bits'])}"
    return f"{said}; needs {part['data_multiple']['value']:,.0f} times the text, by a law"


def sufficiency(found: Results) -> str:
    part = found["sufficiency"]
    said = part["decision"].replace("_", " ")
    if hidden := part["hidden"]:
        said += f"; hidden full size foretold {bits(hidden['predicted'])} ({bits(hidden['low'])} to "
        said += f"{bits(hidden['high'])}), got {bits(hidden['got'])}"
    if doubling := part["per_doubling"]:
        said += f"; twice the data adds {bits(doubling['gain'])} ({bits(doubling['low'])} to {bits(doubling['high'])})"
    quality = part.get("quality", {})
    if quality.get("decision"):
        said += f"; random half − closest half {bits(quality['diff'])} {between(quality)}"
    return said


def jargon(found: Results) -> str:
    part = found["jargon"]
    said = part["decision"].replace("_", " ")
    if beyond := part.get("beyond"):
        said += f"; beyond ordinary words {bits(beyond['value'])} {between(beyond)}, {part['n_terms']} terms"
    for key, name in (("cloze", "which term"), ("definition_choice", "which definition")):
        if asked := part.get(key):
            said += f"; {name} {percent(asked['accuracy_base'])} → {percent(asked['accuracy_adapted'])}"
            said += f" (n {asked['n_items']}, p {asked['mcnemar_p']:.2g})"
    return said


def cheaper(found: Results) -> str:
    part = found["arms"]
    arms = ", ".join(f"{one['name']} {bits(one['bits'])}" for one in part["arms"])
    return f"{arms}; recommended: {part['recommended'] or 'cannot tell'}"


def overdone(found: Results) -> str:
    part = found["overdone"]
    fired = [one["name"] for one in part["detectors"] if one["fired"]]
    measured = f"{part['n_measured']} of {len(part['detectors'])} measured"
    return f"{part['level']}; {measured}, fired: {', '.join(fired) or 'none'}"


def inside(found: Results) -> str:
    layers = found["inside"]["layers"]
    most = {name: max(layers, key=lambda one: one[name]) for name in ("weights", "field", "general")}
    return "; ".join(f"{name} most in layer {one['layer']} ({percent(one[name])})" for name, one in most.items())


def stability(found: Results) -> str:
    part = found["stability"]
    runs = ", ".join(bits(run["gain"]) for run in part["runs"])
    return f"gains of seeds {runs}; smallest difference that means anything {bits(part['smallest_difference'])}"


def tasks(found: Results) -> str:
    part = found["tasks"]
    said = f"{bits(part['base'])} → {bits(part['adapted'])} on {part['n_items']} tasks"
    if ahead := part["helped_by"]:
        cost = part["field_cost"]
        said += f"; {percent(ahead['value'])} fewer bits than without ({percent(ahead['ci_low'])} to "
        said += f"{percent(ahead['ci_high'])}), field {percent(cost['value'])} more"
    return said


ROWS: tuple[tuple[str, Callable[[Results], str]], ...] = (
    ("1 gain, specific", gain),
    ("2 retention", retention),
    ("3 dial", dial),
    ("4 from scratch", scratch),
    ("5 sufficiency", sufficiency),
    ("6 jargon", jargon),
    ("7 cheaper ways", cheaper),
    ("8 overdone", overdone),
    ("9 inside", inside),
    ("10 stability", stability),
    ("mined tasks", tasks),
)


def cell(read: Callable[[Results], str], found: Results) -> str:
    try:
        return read(found)
    except KeyError as error:
        return f"not measured ({error.args[0]})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    runs = parser.parse_args().runs
    results = [read_json(RunFolder(Path(run)).results) for run in runs]
    print("| | " + " | ".join(Path(run).name for run in runs) + " |")
    print("| --- |" + " --- |" * len(runs))
    print("| verdict | " + " | ".join(found["verdict"]["decision"] for found in results) + " |")
    for name, read in ROWS:
        print(f"| {name} | " + " | ".join(cell(read, found) for found in results) + " |")


if __name__ == "__main__":
    main()
