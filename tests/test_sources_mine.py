"""Tasks and terms are found in plain English text by patterns, and in nothing else."""

import pytest

from metier.sources.examples import Example, Message
from metier.sources.mine import CHARACTERS_PER_TASK, is_english, mined_tasks, mined_terms, tasks_of

TEXT = """3.2. Safety Valves

A safety valve is a device that opens by itself when the pressure in a boiler becomes too high. It is set by a spring
that holds the disc on its seat. The spring was made for one pressure only, and nobody may change it later.

Many plants use a programmable logic controller (PLC) to watch the pressure and the level of the water. The controller
stops the burner because the feed pump cannot deliver enough water at that moment.

The disc wears out over the years in the steam that passes it. Therefore, it must be ground again at every revision of
the plant. The seat is harder than the disc and lasts for a long time. However, a crack in the seat makes the whole
valve useless at once.

```
The fence is a piece of code that is not prose and must never be asked about by anybody.
```
"""


def example(text: str, name: str = "valves.txt") -> Example:
    return Example(name, name, 1, name, text=text)


def by_kind(text: str = TEXT) -> dict[str, tuple[str, str]]:
    return {t.group: (t.messages[0].content, t.messages[1].content) for t in tasks_of(example(text))}


def test_each_kind_of_task_is_found_in_a_text_that_holds_it() -> None:
    found = by_kind()
    assert found["mined title"][1] == "Safety Valves"
    assert found["mined cause"] == (
        "The controller stops the burner. What is the reason?",
        "Because the feed pump cannot deliver enough water at that moment.",
    )
    assert found["mined definition"][1] in {
        "A safety valve is a device that opens by itself when the pressure in a boiler becomes too high.",
        "PLC stands for programmable logic controller.",
    }
    asked, answered = found["mined connection"]
    assert answered == ("It follows from it." if "must be ground" in asked else "It stands against it.")
    assert "Therefore" not in asked
    assert "However" not in asked
    asked, answered = found["mined keywords"]
    assert all(word in answered for word in asked.partition(": ")[2].rstrip(".").split(", "))
    asked, answered = found["mined completion"]
    shown = asked.partition("\n\n")[2]
    assert f"{shown} {answered}" in " ".join(TEXT.split())


def test_terms_are_mined_with_what_the_text_says_they_mean() -> None:
    found = {t.term: t for t in mined_terms([example(TEXT)])}
    assert set(found) == {"safety valve", "PLC"}
    assert found["PLC"].definition == "programmable logic controller"
    assert found["safety valve"].document == "valves.txt"
    assert "opens by itself" in found["safety valve"].definition


@pytest.mark.parametrize(
    "sentence",
    [
        "This is a sentence that only looks as if it were a definition.",
        "The value is a list of names that are kept in a file of the server.",
        "There is a man at the door who wants to speak to you about it.",
        "It is an old rule that nobody in this house has ever understood.",
        "They came home (PLC) from the long walk in the hills of the north.",
    ],
)
def test_what_defines_nothing_is_no_term(sentence: str) -> None:
    assert mined_terms([example(sentence)]) == []


@pytest.mark.parametrize(
    ("asked", "term"),
    [
        ("What is a safety valve?", "safety valve"),
        ("What is (are) Lymphoma ?", "Lymphoma"),
        ("What is the difference between a valve that is open and one that is shut?", None),
        ("Who sets a valve?", None),
    ],
)
def test_what_is_asked_for_by_name_is_a_term_and_its_answer_the_definition(asked: str, term: str | None) -> None:
    row = Example("t", "t", 1, "t", messages=(Message("user", asked), Message("assistant", "It opens by itself.")))
    found = [(t.term, t.definition) for t in mined_terms([row])]
    assert found == ([(term, "It opens by itself.")] if term else [])


def test_a_longer_text_gives_more_tasks_and_no_kind_more_than_its_share() -> None:
    text = "\n\n".join(
        f"{TEXT}\nThe valve number {i} was tested by the men of the plant in the morning." for i in range(9)
    )
    tasks = tasks_of(example(text))
    most = len(text) // CHARACTERS_PER_TASK
    kinds = [t.group for t in tasks]
    assert 2 <= max(kinds.count(kind) for kind in kinds) <= most
    assert len({t.id for t in tasks}) == len(tasks)


def test_the_tasks_of_a_text_are_the_same_every_time_and_do_not_depend_on_other_texts() -> None:
    alone = mined_tasks([example(TEXT)])
    assert mined_tasks([example("Nothing here.", "a"), example(TEXT), example(TEXT, "b")])[: len(alone)] == alone


def test_conversations_and_other_languages_give_no_tasks() -> None:
    german = "Ein Ventil ist eine Vorrichtung, die sich öffnet, weil der Druck im Kessel zu hoch geworden ist. " * 20
    assert not is_english(german)
    talk = Example("t", "t", 1, "t", messages=(Message("user", "Why?"), Message("assistant", TEXT)))
    assert mined_tasks([example(german), talk]) == []
    assert mined_terms([talk]) == []


def test_tasks_belong_to_the_document_that_they_were_mined_from() -> None:
    assert {t.document for t in tasks_of(example(TEXT))} == {"valves.txt"}
