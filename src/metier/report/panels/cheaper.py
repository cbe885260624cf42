"""The panel of the cheaper arms: what examples, retrieval and counted n-grams do without any training."""

from collections.abc import Mapping, Sequence

from metier.evidence.full.cheaper import ADAPTED, BASE, NOTHING, said
from metier.report import charts, figures
from metier.report.outcome import Row
from metier.runs import Json


def cheaper_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    if not part:
        return None
    arms = part.get("arms") or []
    return {
        "sentence": part["sentence"],
        "what": part.get("what"),
        "figure": _figure(part),
        "chart": _chart(arms, part.get("recommended")),
        "arms": [_cells(arm, part.get("recommended")) for arm in arms],
        "answers": _answers(part.get("answers")),
        "break_even": _break_even(part),
        "method": part.get("method"),
        "answer_method": (part.get("answers") or {}).get("method"),
        "teach": _teach(arms),
    }


def _figure(part: Mapping[str, Json]) -> dict[str, str] | None:
    """The number that decides: how much the adapted model is ahead of the best cheaper arm."""
    margin = part.get("margin")
    if not margin:
        return None
    return {
        "ahead": figures.fixed(margin["diff"], signed=True),
        "interval": figures.interval(margin["ci_low"], margin["ci_high"]),
        "trained": said(part["trained"]),
        "rival": said(part["rival"]),
        "documents": figures.counted(part.get("n_documents"), "document"),
    }


def _chart(arms: Sequence[Mapping[str, Json]], recommended: str | None) -> dict[str, Json] | None:
    """Every arm's bits saved against the base as it is best prompted, the most on top."""
    shown = [arm for arm in arms if arm["name"] != BASE and arm.get("ci_low") is not None]
    if not shown:
        return None
    scale = charts.padded_scale([0.0, *(edge for arm in shown for edge in (arm["ci_low"], arm["ci_high"]))])
    rows = []
    for arm in sorted(shown, key=lambda arm: -arm["diff_to_base"]):
        kind = "kept" if arm["ci_low"] > 0 else "lost" if arm["ci_high"] < 0 else "unsure"
        picture = charts.interval_row(scale, arm["ci_low"], arm["diff_to_base"], arm["ci_high"], kind, [(0.0, "zero")])
        note = f"{figures.count(arm['tokens_per_query'])} tokens a query"
        value = figures.fixed(arm["diff_to_base"], signed=True)
        rows.append(Row(_name(arm["name"]), note, picture, value, arm["name"] == recommended))
    return {"rows": rows, "axis": charts.row_axis(scale, charts.nice_ticks(scale))}


def _cells(arm: Mapping[str, Json], recommended: str | None) -> list[str]:
    told = [
        figures.counted(arm[key], noun) for key, noun in (("examples", "example"), ("passages", "passage")) if arm[key]
    ]
    told += [f"“{arm['prompt']}”"] if arm.get("prompt") else []
    return [
        _name(arm["name"]) + (" (recommended)" if arm["name"] == recommended else ""),
        "; ".join(told) or figures.MISSING,
        figures.fixed(arm["bits"]),
        figures.fixed(arm["diff_to_base"], signed=True),
        figures.interval(arm["ci_low"], arm["ci_high"]),
        figures.count(arm["tokens_per_query"]),
    ]


def _name(name: str) -> str:
    shown = "base model, told nothing" if name == NOTHING else said(name)
    return shown[:1].upper() + shown[1:]


def _answers(answers: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """Answers in words, against the reference: a row an arm."""
    if not answers:
        return None
    return {
        "n": figures.counted(answers["n_items"], "question"),
        "rows": [
            [
                _name(arm["name"]),
                figures.percent(arm["exact"], 0),
                figures.fixed(arm["f1"], 2),
                figures.fixed(arm["f1_diff"], 2, signed=True),
                figures.interval(arm["f1_ci_low"], arm["f1_ci_high"], 2),
                figures.fixed(arm["chrf"], 2),
                figures.interval(arm["chrf_ci_low"], arm["chrf_ci_high"], 2),
            ]
            for arm in answers["arms"]
        ],
    }


def _break_even(part: Mapping[str, Json]) -> str | None:
    n = part.get("break_even_queries")
    if n is None:
        return None
    return (
        f"The {said(part['rival'])} reads more for every query than the {said(part['trained'])}: on this machine, "
        f"training has been paid back in time after about {figures.count(float(f'{n:.2g}'))} queries."
    )


def _teach(arms: Sequence[Mapping[str, Json]]) -> str:
    """A side note with this run's own figures."""
    bits = {arm["name"]: arm["bits"] for arm in arms}
    told = [name for name in bits if name not in (BASE, NOTHING) and not name.startswith(ADAPTED)]
    note = (
        "Fine-tuning puts the field into the weights; examples and retrieved passages put it into the prompt, anew for "
        "every query. A tuned model that is only compared with a bare one looks better than it is."
    )
    if NOTHING in bits and told and BASE in bits:
        best = min(told, key=lambda name: bits[name])
        note += (
            f" Here the base model goes from {figures.fixed(bits[NOTHING], 2)} bits per byte, told nothing, to "
            f"{figures.fixed(bits[BASE], 2)} as it is normally asked and {figures.fixed(bits[best], 2)} as the "
            f"{said(best)}, all without training."
        )
    return note
