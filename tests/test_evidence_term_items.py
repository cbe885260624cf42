"""Items about terms: fair distractors, one right answer, scored as any other choice."""

import math
from collections import Counter

import pytest

from metier.errors import DataError
from metier.evidence.jargon.items import DISTRACTORS, MOST_OF_ONE_TERM, choice_accuracy, cloze_items, definition_items
from metier.sources.mine import Term

TERMS = ["ataxia", "dystonia", "apraxia", "aphasia", "alexia", "chorea", "MRI", "EEG", "stem cell"]
SENTENCE = "The old doctor in the village said that {} was found early in the winter. Then all went home."


def passages(*terms: str) -> list[dict[str, str]]:
    return [
        {"item": f"p{i}", "document": f"d{i}", "text": f"First words. {SENTENCE.format(term)}"}
        for i, term in enumerate(terms)
    ]


def test_a_hidden_term_stands_among_others_like_it_with_the_same_words_after_it() -> None:
    items = cloze_items(passages(*TERMS), TERMS, seed=0)
    assert {item.term for item in items} == {"ataxia", "dystonia", "apraxia", "aphasia", "alexia", "chorea"}
    for item in items:
        assert item.stem.endswith("village said that")
        assert item.stem.startswith("First words.")
        assert len(set(item.choices)) == 1 + DISTRACTORS
        assert item.choices[item.label] == f"{item.term} was found early in the winter."
        rest = {choice.removesuffix(" was found early in the winter.") for choice in item.choices}
        assert rest <= {"ataxia", "dystonia", "apraxia", "aphasia", "alexia", "chorea"}
    assert Counter(item.label for item in items).most_common(1)[0][1] < len(items)


def test_stem_and_right_choice_are_the_text() -> None:
    texts = {passage["item"]: passage["text"] for passage in passages(*TERMS)}
    for item in cloze_items(passages(*TERMS), TERMS, seed=1):
        assert f"{item.stem} {item.choices[item.label]}" in texts[item.id.partition("@")[0]]


def test_after_an_article_a_distractor_has_the_same_kind_of_letter() -> None:
    found = passages("ataxia", "aphasia", "alexia", "apraxia", "dystonia", "chorea")
    for passage in found:
        passage["text"] = passage["text"].replace("said that ", "said that an ")
    items = cloze_items(found, TERMS, seed=0)
    assert items
    for item in items:
        if item.term.startswith("a"):
            assert all(choice.startswith("a") for choice in item.choices)


def test_a_term_that_stands_in_the_sentence_is_no_distractor() -> None:
    found = passages("ataxia", "aphasia", "alexia", "apraxia", "chorea")
    found[0]["text"] = found[0]["text"].replace("in the winter", "with chorea in the winter")
    items = [item for seed in range(8) for item in cloze_items(found, TERMS, seed) if item.term == "ataxia"]
    assert len(items) == 8
    assert all(not choice.startswith("chorea") for item in items for choice in item.choices)


def test_rare_terms_are_not_set_against_common_ones() -> None:
    common = ["ataxia"] * 9 + ["aphasia", "alexia", "apraxia", "chorea"]
    items = cloze_items(passages(*common), TERMS, seed=0)
    assert {item.term for item in items} == {"aphasia", "alexia", "apraxia", "chorea"}
    assert all(not choice.startswith("ataxia") for item in items for choice in item.choices)


def test_no_term_is_asked_for_more_than_a_few_times_and_the_start_of_a_sentence_never() -> None:
    items = cloze_items(passages(*TERMS[:6] * 6), TERMS, seed=0)
    assert set(Counter(item.term for item in items).values()) == {MOST_OF_ONE_TERM}
    start = [{"item": f"p{i}", "document": "d", "text": f"It is. {t} is here."} for i, t in enumerate(TERMS[:6])]
    assert cloze_items(start, TERMS, seed=0) == []


def test_the_same_seed_gives_the_same_items() -> None:
    assert cloze_items(passages(*TERMS), TERMS, seed=5) == cloze_items(passages(*TERMS), TERMS, seed=5)
    assert cloze_items([], TERMS, 0) == cloze_items(passages(*TERMS), [], 0) == []


DEFINITIONS = [
    Term("ataxia", "Ataxia is a lack of order in the movements of the body. More follows.", "a"),
    Term("aphasia", "An aphasia (APH) means a loss of the use of spoken words.", "b"),
    Term("alexia", "The inability to read what is written on a page.", "c"),
    Term("chorea", "chorea refers to quick movements that nobody has intended.", "d"),
    Term("stem cell", "A stem cell is any unit from which many others can grow.", "e"),
]


def test_a_definition_is_asked_for_without_the_words_that_give_it_away() -> None:
    items = {item.term: item for item in definition_items(DEFINITIONS, seed=0)}
    assert items["ataxia"].choices[items["ataxia"].label] == "a lack of order in the movements of the body."
    assert items["aphasia"].choices[items["aphasia"].label] == "a loss of the use of spoken words."
    assert items["chorea"].choices[items["chorea"].label] == "quick movements that nobody has intended."
    assert items["stem cell"].stem == "Question: What is meant by stem cell?\nAnswer:"
    assert (items["alexia"].document, items["alexia"].kind) == ("c", "definition")
    assert len(items) == 5


@pytest.mark.parametrize(
    "definition",
    ["programmable logic controller of", "Some say that the plc is what opens by itself.", "Short.", "word " * 100],
)
def test_what_gives_itself_away_or_is_no_sentence_is_not_asked(definition: str) -> None:
    term = "plco" if definition.startswith("prog") else "plc"
    items = definition_items([*DEFINITIONS, Term(term, definition, "x")], seed=0)
    assert term not in {item.term for item in items}


def records(*right: bool) -> list[dict[str, object]]:
    """Four choices of equal length, the right one the likeliest or not."""
    return [
        {
            "item": f"i{i}",
            "slice": "choices/cloze",
            "document": f"d{i}",
            "nll": [1.0 if one else 3.0, 2.0, 4.0, 4.0],
            "bytes": [9] * 4,
            "label": 0,
        }
        for i, one in enumerate(right)
    ]


def test_accuracy_is_compared_item_by_item() -> None:
    found = choice_accuracy(records(*[False] * 12, *[True] * 8), records(*[True] * 20))
    assert found is not None
    assert (found["accuracy_base"], found["accuracy_adapted"], found["chance"]) == (0.4, 1.0, 0.25)
    assert found["diff"] == pytest.approx(0.6)
    assert found["ci_low"] < 0.6 < found["ci_high"]
    assert found["mcnemar_p"] == pytest.approx(2 * 0.5**12)
    weights = [math.exp(-nll) for nll in (1.0, 2.0, 4.0, 4.0)]
    assert found["probability_adapted"] == pytest.approx(weights[0] / sum(weights))
    assert found["sentence"].startswith(
        "Of 20 questions the adapted model chose right more often (100 %, base 40 %, guessing 25 %"
    )


def test_a_change_that_chance_could_make_is_said_to_be_one() -> None:
    found = choice_accuracy(records(True, True, False), records(True, True, True))
    assert found is not None
    assert found["sentence"].endswith("which chance alone could do.")


def test_no_items_have_no_accuracy_and_other_items_are_refused() -> None:
    assert choice_accuracy([], []) is None
    with pytest.raises(DataError, match="no score from the adapted model"):
        choice_accuracy(records(True, True), records(True))


def test_an_item_that_cannot_be_judged_is_refused() -> None:
    broken = records(True, True)
    broken[1]["nll"] = [1.0, math.nan, 2.0, 3.0]
    with pytest.raises(DataError, match="finite nll"):
        choice_accuracy(records(True, True), broken)
