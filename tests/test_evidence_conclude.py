"""What the verdict's sentence adds for the one who decides."""

from types import ModuleType

from metier.evidence.conclude import said_further
from metier.evidence.dial.choose import choose_dial


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
