"""The panel on what changed inside: held-out passages word by word, and each layer."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from metier.report import figures
from metier.report.chart_inside import bars
from metier.report.outcome import Row
from metier.runs import Json

STEPS = (0.5, 1.0, 2.0, 4.0)  # bits by which a word's surprise changed, for the four strengths of a tint
MOST_NAMED = 3
FIELD, GENERAL, WEIGHTS = "tone-0", "tone-2", "tone-3"


def inside_panel(part: Mapping[str, Json] | None) -> dict[str, Json] | None:
    """part: {"passages": as `passage_view.passage_view`, "layers": [{"layer", "weights", "field", "general"}]}, either
    absent where it was not measured.

    A layer's `weights` is the size of the change over the size of its weights; `field` and `general` are the same for
    its activations, on text of the field and on general text.
    """
    passages: Sequence[Mapping[str, Json]] = (part or {}).get("passages") or []
    layers: Sequence[Mapping[str, Json]] = (part or {}).get("layers") or []
    if not passages and not layers:
        return None
    return {
        "sentence": " ".join(said for said in (_words_sentence(passages), _layers_sentence(layers)) if said),
        "passages": [_passage(passage) for passage in passages],
        "legend": [
            (f"{kind}-{i + 1}", f"{word} by {figures.fixed(step, 1)} bits or more")
            for kind, word in (("easier", "easier"), ("harder", "harder"))
            for i, step in enumerate(STEPS)
        ],
        "activations": _bar_list(layers, (("field", FIELD), ("general", GENERAL))),
        "weights": _bar_list(layers, (("weights", WEIGHTS),)),
        "teach": _teach(passages),
    }


def _words_sentence(passages: Sequence[Mapping[str, Json]]) -> str:
    words = [word for passage in passages for word in passage["words"]]
    if not words:
        return ""
    easier = sum(_tint(word) is not None and word["before"] > word["after"] for word in words)
    harder = sum(_tint(word) is not None and word["before"] < word["after"] for word in words)
    n = figures.counted(len(words), "word")
    passage = figures.counted(len(passages), "held-out passage")
    most = sorted(words, key=lambda word: word["after"] - word["before"])[:MOST_NAMED]
    named = [f"“{word['text'].strip()}”" for word in most if word["before"] - word["after"] >= STEPS[0]]
    example = f"; the largest savings are on {figures.listed(named)}" if named else ""
    return (
        f"Of {n} in {passage}, {easier} became easier for the model by half a bit or more and {harder} harder{example}."
    )


def _passage(passage: Mapping[str, Json]) -> dict[str, Json]:
    change = passage["base"] - passage["adapted"]
    return {
        "which": str(passage["which"]).capitalize(),
        "item": str(passage["item"]),
        "figure": f"{figures.fixed(passage['base'])} → {figures.fixed(passage['adapted'])} bits per byte "
        f"({figures.fixed(change, signed=True)} saved)",
        "words": Markup("").join(_word(word) for word in passage["words"]),
        "rest": passage["n_words"] - len(passage["words"]) if passage["cut"] else 0,
    }


def _word(word: Mapping[str, Json]) -> Markup:
    """Tinted where its surprise changed by half a bit or more; the numbers are in its title."""
    text = str(word["text"])
    bare = text.rstrip()
    tint = _tint(word)
    if tint is None:
        return Markup("{}").format(text)
    title = f"{figures.fixed(word['before'], 1)} → {figures.fixed(word['after'], 1)} bits"
    return Markup('<span class="{}" title="{}">{}</span>{}').format(tint, title, bare, text[len(bare) :])


def _tint(word: Mapping[str, Json]) -> str | None:
    saved = word["before"] - word["after"]
    strength = sum(abs(saved) >= step for step in STEPS)
    return f"{'easier' if saved > 0 else 'harder'}-{strength}" if strength else None


def _layers_sentence(layers: Sequence[Mapping[str, Json]]) -> str:
    said = []
    if active := [layer for layer in layers if layer.get("field") is not None]:
        most = max(active, key=lambda layer: layer["field"])
        general = f" ({figures.percent(most['general'])} on general text)" if most.get("general") is not None else ""
        where = f"in layer {most['layer']}, by {figures.percent(most['field'])}{general}"
        said.append(f"what it makes of the field's text changed most {where}")
    if weighed := [layer for layer in layers if layer.get("weights") is not None]:
        most = max(weighed, key=lambda layer: layer["weights"])
        said.append(f"the weights changed most in layer {most['layer']}, by {figures.percent(most['weights'])}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _bar_list(layers: Sequence[Mapping[str, Json]], kinds: Sequence[tuple[str, str]]) -> dict[str, Json] | None:
    """One row a layer that has all of these; the longest bar fills the width."""
    able = [layer for layer in layers if all(layer.get(kind) is not None for kind, _ in kinds)]
    largest = max((layer[kind] for layer in able for kind, _ in kinds), default=0.0)
    if largest <= 0:
        return None
    rows = [
        Row(
            f"Layer {layer['layer']}",
            "",
            bars([(layer[kind], css_class) for kind, css_class in kinds], largest),
            ", ".join(figures.percent(layer[kind]) for kind, _ in kinds),
        )
        for layer in able
    ]
    return {"rows": rows, "largest": figures.percent(largest)}


def _teach(passages: Sequence[Mapping[str, Json]]) -> str:
    general = (
        "Fine-tuning does not write the field's text into the model: it moves the probabilities of words, many a "
        "little and a few a lot."
    )
    if not passages:
        return f"{general} The bars show where in the model the change lies; a large bar is not a good one."
    worst = passages[-1]
    change = figures.fixed(worst["base"] - worst["adapted"], signed=True)
    return (
        f"{general} One well-chosen passage proves nothing, so the best, the median and the worst are all shown; the "
        f"worst saved {change} bits per byte."
    )
