"""The dial in words: one sentence for what was chosen, one for whether it was borne out."""

from collections.abc import Mapping, Sequence
from typing import Any

from metier.evidence.dial.frontier import Frontier
from metier.evidence.dial.rule import MOST_GIVEN_UP, Choice
from metier.evidence.dial.strengths import DRAWS
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.retention import ALL_TEXT, OWN_ANSWERS
from metier.evidence.verdict import readable

Part = Mapping[str, Any]
RETRAIN = "Train again with more replay, for fewer steps or at a lower learning rate, rather than turn the dial."


def sentence(dial: Part) -> str:
    """dial: as in results.json, with a curve."""
    strength = f"{dial['chosen']:.2g}"
    if dial["verdict"] == "no gain":
        return f"No gain at any strength: at full strength the field needs {_gained(dial)}. The dial stays at 1."
    if dial["verdict"] == "undecided" and dial["limit"] is None:
        return (
            f"No gain is sure at any strength: at full strength the field needs {_gained(dial)}. "
            "More held-out documents would decide it; the dial stays at 1."
        )
    if dial["verdict"] == "undecided":
        return (
            f"Undecided: by the measured figures strength {strength} is right ({_exchange(dial)}), but too few texts "
            f"show it: {against(dial)}"
        )
    if dial["verdict"] == "frontier too poor":
        within = "is all the budget allows" if dial["decided"] else "loses least, and none is shown to keep the budget"
        limit = f" The limit: {against(dial)}" if dial["limit"] else ""
        return f"The frontier is too poor: strength {strength} {within}; {_exchange(dial)}.{limit} {RETRAIN}"
    if dial["verdict"] == "keep all":
        return f"Apply it at strength {strength}: {_exchange(dial)}."
    return f"Turn it down to {strength}: {_exchange(dial)}. {_why_down(dial)}"


def _why_down(dial: Part) -> str:
    if dial["limit"] is not None:
        return f"The limit: {against(dial)}"
    if dial["at_full"]["gain"] < dial["at_chosen"]["gain"]:
        return "Full strength gains less."
    return "What full strength gains more is not told from chance."


def _exchange(dial: Part) -> str:
    """What the chosen strength gains and costs."""
    at = dial["at_chosen"]
    kept = f", {_percent(dial['kept_gain'])} of the gain at full strength" if dial["kept_gain"] is not None else ""
    forgotten = at["forgetting"] / dial["base"][ALL_TEXT]
    upper = at["forgetting_upper"] / dial["base"][ALL_TEXT]
    return (
        f"the field needs {_bits(-at['gain'] / dial['base'][FIELD_SLICE])}{kept}, and general text {_bits(forgotten)} "
        f"(bound {_percent(upper)}, budget {_percent(dial['budget'])})"
    )


def _gained(dial: Part) -> str:
    at, base = dial["at_full"], dial["base"][FIELD_SLICE]
    low, high = (_percent(at[figure] / base) for figure in ("gain_low", "gain_high"))
    return f"{_bits(-at['gain'] / base)} (90 % band of the saving {low} to {high})"


def against(dial: Part) -> str:
    """What the slice that limits the dial loses, and what would settle it where its texts are too few."""
    limit = dial["limit"]
    where = f"at strength {limit['alpha']:.2g}, {readable(limit['slice'])}"
    if limit["upper"] is None:
        return f"{where} is a single document, of which there is no bound."
    loss, upper, margin = (_amount(dial, limit["slice"], limit[figure]) for figure in ("loss", "upper", "margin"))
    said = f"{where} {'' if limit['loss'] < 0 else '+'}{loss}, bound {upper}, margin {margin}"
    if limit["upper"] > limit["margin"] > limit["loss"]:
        # the error shrinks with the root of the number of texts
        times = ((limit["upper"] - limit["loss"]) / (limit["margin"] - limit["loss"])) ** 2
        said += f"; about {times:.2g} times as many of its texts would settle it"
    return f"{said}."


def _amount(dial: Part, name: str, loss: float) -> str:
    return f"{_minus(f'{loss:.3f}')} bits per byte" if name == OWN_ANSWERS else _percent(loss / dial["base"][name])


def reason(choice: Choice) -> str:
    """Why a choice is not decided."""
    if choice.verdict == "frontier too poor":
        return "no strength is shown to keep the budget"
    if choice.limit is None:
        return "no gain is sure"
    return f"too few texts to bound the loss of {readable(choice.limit.name)}"


def too_little(why: str) -> str:
    return f"The dial was not turned: {why}. The adapter stays at full strength, as it was trained."


def earlier(found: Part) -> str:
    return (
        f"The weights of step {found['step']} at strength {found['alpha']:g} beat the last ones: they gain "
        f"{found['excess']:.3f} bits per byte more (standard error {found['excess_se']:.3f}) for no more forgetting."
    )


def method(frontier: Frontier) -> str:
    gain, forgetting = frontier.gain.shape, frontier.forgetting.shape
    alphas = ", ".join(f"{point.alpha:g}" for point in frontier.last)
    return (
        f"Strengths {alphas} on the select half, each against 0 on the same items. The gain's curve is {gain}, general "
        f"text's {forgetting}, both through 0 and fitted again to {DRAWS:,} draws of documents, with bounds of t. "
        f"Allowed is every strength at which all {len(frontier.slices)} slices of ten documents or more are shown to "
        "be within their margins (5 %, Holm); of these the smallest is chosen whose gain falls short of the best by no "
        "more than one standard "
        f"error of the shortfall, and by {_percent(MOST_GIVEN_UP)} at most."
    )


def confirmation(part: Part) -> str:
    measured, predicted = part["measured"], part["predicted"]
    if predicted["gain"] is None:
        return f"Nothing was foretold for strength {part['alpha']:.2g}, so there is nothing to confirm."
    outcome = {True: "Confirmed", False: "Not confirmed", None: "Open"}[part["passed"]]
    band = f"foretold {predicted['gain']:.3f}, band {predicted['low']:.3f} to {predicted['high']:.3f}"
    interval = f"95 % interval {measured['low']:.3f} to {measured['high']:.3f}"
    where = "within" if part["within"] else "above" if measured["gain"] > predicted["high"] else "below"
    kept = {True: "every general test was kept", False: "a general test was lost", None: "a general test is open"}
    return _minus(
        f"{outcome}: on {part['n_documents']} documents that chose nothing, strength {part['alpha']:.2g} gains "
        f"{measured['gain']:.3f} bits per byte ({interval}), {where} the "
        f"band ({band}), and {kept[part['retention']]}."
    )


def left_out(rows: Sequence[Part]) -> str:
    """rows: of `confirm.leave_one_out`."""
    within = sum(row["within"] for row in rows)
    miss = max(abs(row["predicted"] - row["measured"]) for row in rows)
    return (
        "Gain and forgetting at each strength in between, foretold from the other strengths, missed what was measured "
        f"by {miss:.3f} bits per byte at most; {within} of {len(rows)} figures lay within their 90 % bands."
    )


def tilt(part: Part) -> str:
    advice = "Deep layers bear more of it" if part["adopt"] else "No sign that a tilt does better"
    field, text = (
        f"{change:+.4f} (standard error {'unknown' if error is None else f'{error:.4f}'})"
        for change, error in ((part["gain"], part["gain_se"]), (-part["forgotten_less"], part["forgotten_less_se"]))
    )
    return _minus(
        f"{advice}: at strength {part['alpha']:g} a tilt of {part['tilt']:g} changes the gain by {field} and "
        f"general text by {text} bits per byte. All layers are applied alike."
    )


def _bits(more: float) -> str:
    """ "21 % fewer bits" of a share of the base's bits."""
    return f"{_percent(abs(more))} {'more' if more > 0 else 'fewer'} bits"


def _percent(share: float) -> str:
    """Two figures: 21 %, 2.1 %, 0.35 %."""
    places = 0 if abs(share) >= 0.0995 else 1 if abs(share) >= 0.00095 else 2
    said = f"{100 * share:.{places}f}"
    return _minus(said.removesuffix(".0") if float(said) else "0") + " %"


def _minus(said: str) -> str:
    return said.replace("-", "−")
