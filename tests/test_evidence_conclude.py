"""What the verdict's sentence adds for the one who decides."""

from types import ModuleType, SimpleNamespace
from typing import Any

from metier.evidence.conclude import _dial, _preferences, _tasks, dial_of, said_further
from metier.evidence.dial.choose import choose_dial
from metier.evidence.dial.confirm import left_out
from metier.sources.leaks import Leak, Leaks


def test_a_dial_that_was_turned_down_says_what_full_strength_would_forget(sim: ModuleType) -> None:
    dial = choose_dial(sim.documents(sim.TRUTHS["text binds: budget at 0.71"], 48, seed=2), 0.01)
    assert dial["chosen"] < 1
    said = said_further("adapted", {"dial": dial})
    assert said.startswith(f" Recommended strength {dial['chosen']:.2g}: it keeps ")
    assert " More of it would seem to forget: at strength 1, " in said
    assert said_further("forgot", {"dial": dial}) == ""


def test_a_dial_that_is_kept_has_nothing_to_warn_of(sim: ModuleType) -> None:
    dial = choose_dial(sim.documents(sim.Truth(), 48, seed=2), 0.01)
    assert dial["decided"]
    assert "would seem" not in said_further("adapted", {"dial": dial})


def test_a_limit_that_full_strength_keeps_by_its_figures_is_no_warning(sim: ModuleType) -> None:
    """Its bound is beyond the margin, for want of texts; that says nothing of what would be forgotten."""
    dial = choose_dial(sim.documents(sim.TRUTHS["text binds: budget at 0.71"], 48, seed=2), 0.01)
    unsure = {**dial, "limit": {**dial["limit"], "loss": 0.5 * dial["limit"]["margin"]}}
    assert "would seem" not in said_further("adapted", {"dial": unsure})


def test_items_that_were_trained_on_count_in_no_figure_of_the_dial(sim: ModuleType) -> None:
    records = sim.documents(sim.Truth(), 40, seed=1)
    of_field = next(r["item"] for r in records if r["slice"] == "field")
    of_text = next(r["item"] for r in records if r["slice"].startswith("text"))
    leaks = Leaks(held_out=[leak(of_field)], general=[leak(of_text)])
    clean = [r for r in records if r["item"] not in (of_field, of_text)]
    assert len(clean) < len(records)
    spoilt = [{**r, "nll": r["nll"] * (1 if r in clean else 1 - 0.9 * r["alpha"])} for r in records]
    assert dial_of(spoilt, 0.01, leaks) == choose_dial(clean, 0.01) != choose_dial(spoilt, 0.01)
    stored: Any = SimpleNamespace(dial=spoilt, leaks=leaks, facts=SimpleNamespace(margin=0.01, dial=0.123))
    found = _dial(stored, {}, {})["dial"]
    assert found["left_out"] == left_out(clean) != left_out(spoilt)


def test_pairs_that_were_trained_on_are_not_counted_as_preferences() -> None:
    pairs = [{"item": f"p{i}", "document": f"d{i}", "chosen_nll": 4.0, "rejected_nll": 3.0} for i in range(12)]
    turned = [{**pair, "chosen_nll": 2.0} for pair in pairs]
    stored: Any = SimpleNamespace(preferences=(pairs, turned), leaks=Leaks(held_out=[leak("p0"), leak("p5")]))
    assert _preferences(stored)["preferences"]["n_items"] == 10
    stored.leaks = Leaks(held_out=[leak(pair["item"]) for pair in pairs])
    assert _preferences(stored) == {}


def test_field_text_that_was_trained_on_counts_in_no_cost_of_mined_tasks() -> None:
    def scores(arm: str, nll: float, name: str) -> list[dict[str, Any]]:
        return [
            {"arm": arm, "item": f"{name}{i}", "slice": name, "document": f"d{i}", "bytes": 10, "nll": nll + i}
            for i in range(12)
        ]

    adapted, without = scores("adapted", 9.0, "field"), scores("without tasks", 9.0, "field")
    adapted[3]["nll"] = 1.0  # known by heart
    stored: Any = SimpleNamespace(
        tasks=[*scores("base", 10.0, "tasks"), *scores("adapted", 8.0, "tasks")],
        without_tasks=[*scores("without tasks", 9.0, "tasks"), *without],
        adapted=SimpleNamespace(scores=adapted),
        facts=SimpleNamespace(unit="document"),
        leaks=Leaks(),
    )
    assert _tasks(stored, "")["tasks"]["field_cost"]["value"] < 0
    stored.leaks = Leaks(held_out=[leak("field3")])
    assert _tasks(stored, "")["tasks"]["field_cost"]["value"] == 0


def leak(item: str) -> Leak:
    return Leak(item, "field", 1.0, "train.jsonl:1")
