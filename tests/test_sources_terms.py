"""Terms of one word and of several are found; grammar, verbs and fragments are not."""

import random

import numpy as np
import pytest

from metier.sources.examples import Example
from metier.sources.terms import document_keyness, terms
from metier.sources.words import forms_of
from shared import SHARED, texts_of

FRAMES = (
    "Many people with {a} may develop {b} when they are older, and nobody really knows the reason for it.",
    "The doctor said that {b} was found early, so the family could talk about {a} with each other at home.",
    "There is a small group that has {a} and no {b}, which makes the work of the whole house more difficult.",
    "To detect {a} they looked at the old pictures again, and it was not easy to see {b} in any of these.",
)


def rows(*pairs: tuple[str, str], n: int = 24) -> list[Example]:
    draw = random.Random(0)
    found = []
    for i in range(n):
        a, b = pairs[i % len(pairs)]
        text = " ".join(frame.format(a=a, b=b) for frame in draw.sample(FRAMES, 3))
        found.append(Example(f"t{i}", "a", i, f"t{i}", text=text))
    return found


def by_forms(examples: list[Example]) -> dict[tuple[str, ...], dict[str, object]]:
    return {forms_of(str(term["term"])): term for term in terms(examples, "en")}


def test_phrases_codes_and_words_are_terms_and_what_stands_around_them_is_not() -> None:
    found = by_forms(rows(("stem cell transplants", "haploinsufficiency"), ("IL-6 deficiency", "von_willebrand2")))
    assert found["stem", "cell", "transplant"]["kind"] == "phrase"
    assert found["von_willebrand2",]["kind"] == "code"
    assert found["haploinsufficiency",]["kind"] == "word"
    assert found["haploinsufficiency",]["documents"] == 12
    assert ("with", "stem", "cell") not in found
    assert ("may", "develop") not in found
    assert ("detect",) not in found  # mostly after "to"
    assert ("really",) not in found


def test_a_participle_ends_no_term_and_begins_one() -> None:
    found = by_forms(rows(("materialized views", "materialized"), ("materialize", "ataxia")))
    assert ("materialized", "view") in found
    assert ("materialized",) not in found
    assert ("ataxia",) in found


def test_a_fragment_that_stands_only_in_a_longer_term_is_not_one() -> None:
    found = by_forms(rows(("motor neuron disease", "ataxia")))
    assert ("motor", "neuron", "disease") in found
    assert not {("motor", "neuron"), ("neuron", "disease"), ("neuron",)} & found.keys()


def test_a_fragment_that_now_and_then_stands_alone_is_not_one_either() -> None:
    seldom = [("motor neuron disease", "ataxia")] * 7 + [("motor neuron", "ataxia")]
    often = [("motor neuron disease", "ataxia"), ("motor neuron", "ataxia")]
    assert ("motor", "neuron") not in by_forms(rows(*seldom, n=40))
    assert ("motor", "neuron") in by_forms(rows(*often, n=40))


def test_an_acronym_has_what_the_texts_say_it_stands_for() -> None:
    found = by_forms(rows(("programmable logic controllers (PLC)", "PLC")))
    assert found["plc",]["kind"] == "acronym"
    assert found["plc",]["expansion"] == "programmable logic controllers"


def test_a_word_that_fills_one_document_is_not_taken_for_a_word_of_the_field() -> None:
    """Its count tells of one text; the number of documents is what chance would give."""
    examples = rows(("ataxia", "haploinsufficiency"), n=30)
    for i in range(3):
        text = f"{examples[i].text} {'harvest ' * (60 if i == 0 else 1)}"
        examples[i] = Example(f"h{i}", "a", i, f"h{i}", text=text)
    long = [Example(f"l{i}", "a", i, f"l{i}", text=f"{e.text} " * 40) for i, e in enumerate(examples)]
    assert ("harvest",) not in by_forms(long)
    assert ("ataxia",) in by_forms(long)


def test_the_keyness_of_documents_is_nothing_at_what_chance_gives_and_grows_with_the_documents() -> None:
    lengths = np.array([100]), np.array([50])
    expected = 50 * (1 - np.exp(-1e-3 * 100))
    assert document_keyness(int(expected), 1e-3, lengths) == 0
    few, many, all_of_them = (document_keyness(n, 1e-3, lengths) for n in (10, 20, 50))
    assert 0 < few < many < all_of_them
    assert all_of_them == pytest.approx(2 * 50 * np.log(50 / expected))


def test_the_order_and_the_terms_do_not_depend_on_the_order_of_rows() -> None:
    examples = rows(("stem cell transplants", "haploinsufficiency"), ("IL-6 deficiency", "ataxia"))
    assert terms(examples, "en") == terms(examples[::-1], "en")


@pytest.mark.parametrize("language", ["xx", "ja"])
def test_a_language_whose_words_are_not_known_has_no_terms(language: str) -> None:
    assert terms(rows(("ataxia", "dystonia")), language) == []


def test_a_language_without_our_lists_of_grammar_has_terms_too() -> None:
    frames = ("Man fand die {a} und die {b}, aber das war es nicht.", "Ohne {b} gibt es eine {a}, und das ist so.")
    pairs = [("Rückstellung", "Bilanzsumme"), ("Bilanzsumme", "Abschreibung")] * 6
    examples = [
        Example(f"t{i}", "a", i, f"t{i}", text=frames[i // 2 % 2].format(a=a, b=b)) for i, (a, b) in enumerate(pairs)
    ]
    found = {str(term["term"]) for term in terms(examples, "de")}
    assert {"Rückstellung", "Bilanzsumme", "Abschreibung"} <= found
    assert not {"und", "das", "war"} & found


def test_the_terms_of_a_database_are_those_of_its_glossary() -> None:
    """Of the glossary's terms that stand in three documents of the manual, a third or more are among our 300."""
    import json

    examples = [Example(f"t{i}", "a", i, f"t{i}", text=t) for i, t in enumerate(texts_of("tech-corpus-postgresql"))]
    found = terms(examples, "en")
    lines = (SHARED / "tech-jargon-postgresql" / "terms.jsonl").read_text(encoding="utf-8").splitlines()
    glossary = {forms_of(json.loads(line)["term"].partition(" (")[0]) for line in lines}
    ours = {forms_of(str(term["term"])) for term in found}
    assert len(found) == 300
    assert len(ours & glossary) >= 30
    assert ("materialized", "view") in ours
