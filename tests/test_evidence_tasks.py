"""Mined tasks helped only where as many steps without them surely do worse; it is said in words and on the page."""

import pytest

from metier.errors import DataError
from metier.evidence.tasks import METHOD, TASKS, WITHOUT, tasks_part
from metier.report import figures
from metier.report.panels.tasks import tasks_panel
from panels import rendered
from test_evidence_controls import scores


def of_arm(arm: str, bits: float, seed: int, n: int = 30, name: str = TASKS) -> list[dict]:
    return [{**record, "arm": arm, "slice": name} for record in scores(bits, seed, n)]


def judged(adapted: float, without: float | None, field: float = 0.8, n: int = 30, **said: str) -> dict:
    """The base needs 1 bit for a byte of the tasks, the adapted model 0.8 for one of the field."""
    other = []
    if without is not None:
        other = [*of_arm(WITHOUT, without, 2, n), *of_arm(WITHOUT, field, 3, n, "field")]
    asked = [*of_arm("base", 1.0, 0, n), *of_arm("adapted", adapted, 1, n)]
    return tasks_part(asked, other, scores(0.8, 3, n), **said)


def test_tasks_that_surely_help_are_said_to_with_their_cost_in_the_field() -> None:
    found = judged(0.7, 0.8, field=0.79)
    assert found["helped"] is True
    assert found["gain"]["value"] == pytest.approx(0.3, abs=0.02)
    assert found["helped_by"]["value"] == pytest.approx(0.1 / 0.8, abs=0.02)
    assert found["field_cost"]["value"] == pytest.approx(0.01 / 0.79, abs=1e-3)
    assert found["field_cost"]["ci_low"] < found["field_cost"]["value"] < found["field_cost"]["ci_high"]
    assert found["sentence"].startswith(
        "The mined tasks helped where the model is asked: on 30 tasks mined from 30 documents "
    )
    assert "fewer bits (1" in found["sentence"]
    assert found["sentence"].endswith("the field's text costs it 1.3 % more (1.3 to 1.3 %).")
    assert "takes the place of the tasks" in found["method"]


def test_tasks_that_surely_do_harm_are_advised_against() -> None:
    found = judged(0.9, 0.8, field=0.82)
    assert found["helped"] is False
    assert "more bits (1" in found["sentence"]
    assert found["sentence"].endswith("costs it 2.4 % less (2.4 to 2.5 %). Leave out --mined.")


def test_a_difference_that_may_be_zero_is_not_called_either_way() -> None:
    found = judged(0.8, 0.8)
    assert found["helped"] is None
    assert found["sentence"].startswith("Cannot tell whether the mined tasks helped: ")
    assert found["sentence"].endswith("the field's text costs it nothing that is sure (0.0 to 0.0 %).")


def test_few_documents_tell_nothing() -> None:
    found = judged(0.7, 0.9, n=9)
    assert found["helped"] is None
    assert found["sentence"].startswith("Cannot tell whether the mined tasks helped: on 9 tasks mined from 9 documents")
    alone = judged(0.7, 0.9, n=1, unit="section")
    assert alone["gain"]["ci_low"] is None
    assert "on 1 task mined from 1 section held out nothing can be shown" in alone["sentence"]


def test_without_a_run_without_them_their_own_part_is_not_claimed() -> None:
    found = judged(0.7, None)
    assert found["helped_by"] is found["helped"] is None
    assert "the adapted model needs 29.6 % fewer bits (28." in found["sentence"]
    assert "was not measured: --evidence full" in found["sentence"]
    assert found["method"] == METHOD
    full = judged(0.7, None, why="the minutes did not allow it (give more)")
    assert full["sentence"].endswith("was not measured: the minutes did not allow it (give more).")


def test_nothing_is_said_where_no_task_was_read() -> None:
    assert tasks_part([], [], scores(0.8, 3)) == {}
    assert tasks_panel(None) is None
    assert rendered("tasks", None).text.strip() == ""


def test_models_that_were_not_asked_the_same_are_not_compared() -> None:
    with pytest.raises(DataError, match="no score from the"):
        tasks_part([*of_arm("base", 1.0, 0), *of_arm("adapted", 0.9, 1)[:-1]], [], [])


def test_the_page_sets_what_was_asked_beside_what_it_cost() -> None:
    panel = tasks_panel(judged(0.7, 0.8, field=0.79))
    assert panel is not None
    asked, field = panel["rows"]
    assert asked[0] == "Asked"
    assert field[1].startswith(figures.MINUS + "1.3")
    assert float(field[2].split(" to ")[0].replace(figures.MINUS, "-")) < -1.2
    structure = rendered("tasks", panel)
    for part in (panel["sentence"], panel["method"], panel["from_to"]):
        assert part in structure.text
    assert tasks_panel(judged(0.7, None))["rows"] == []
