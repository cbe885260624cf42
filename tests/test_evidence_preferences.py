"""Preferences are learned only where the order of held-out pairs surely changed; it is said, and stands on the page."""

import pytest

from metier.evidence.preferences import preferences
from metier.report.panels.preferences import preferences_panel
from panels import rendered


def arm(n_right: int, n: int = 40, documents: int = 40) -> list[dict]:
    """The first n_right pairs have the chosen answer ahead by a nat, the others behind by one."""
    return [
        {
            "item": f"p{i}",
            "document": f"d{i % documents}",
            "chosen_nll": 2.0 if i < n_right else 4.0,
            "rejected_nll": 3.0,
        }
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("base", "adapted", "said"),
    [
        (
            20,
            32,
            "in 80 % of 40 held-out pairs instead of 50 % (95 % interval of the change +15 to +45 points): it learned",
        ),
        (32, 20, "it learned the opposite."),
        (20, 21, "may not have changed; more held-out pairs would decide."),
    ],
)
def test_the_sentence_follows_the_interval(base: int, adapted: int, said: str) -> None:
    found = preferences(arm(base), arm(adapted))
    assert said in found["sentence"]
    assert found["diff"] == pytest.approx((adapted - base) / 40)


@pytest.mark.parametrize(("n", "said"), [(1, "of 1 document."), (9, "of 9 documents.")])
def test_pairs_of_few_documents_show_nothing_though_all_of_them_turned(n: int, said: str) -> None:
    sentence = preferences(arm(0, documents=n), arm(40, documents=n))["sentence"]
    assert "cannot tell whether that was learned" in sentence
    assert sentence.endswith(said)


def test_the_page_shows_them_where_there_are_some() -> None:
    part = preferences(arm(20), arm(32))
    panel = preferences_panel(part)
    assert panel is not None
    structure = rendered("preferences", panel)
    for told in (part["sentence"], part["method"], panel["moved"], "40\N{NO-BREAK SPACE}held-out pairs"):
        assert told in structure.text
    assert rendered("preferences", preferences_panel(None)).text.strip() == ""
