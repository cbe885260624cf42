"""What is only reported: odd texts, other languages, cut answers, the words of a field, the texts unlike the rest."""

import random

import pytest

from metier.sources.closeness import closeness
from metier.sources.examples import Example, Message
from metier.sources.general import texts
from metier.sources.language import languages
from metier.sources.quality import cut_off, faults, quality, same_length
from metier.sources.terms import keyness, terms
from shared import texts_of

PROSE = (
    "The committee met on a cold morning to hear what the engineers had found under the bridge. Nobody had expected "
    "much, but the drawings on the table told another story: water had worked its way behind the stones for "
    "years, and the arch that carried the road was held by little more than habit and good mortar."
)


def chat(number, answer):
    return Example(
        f"a:{number}", "a", number, f"a:{number}", messages=(Message("user", "?"), Message("assistant", answer))
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PROSE, []),
        ("Too short to judge: ###", []),
        (" ".join(["|---|", "***", "==>", "word"] * 15), ["signs", "few_words"]),
        ("12.5 13.1 0.7 1987 44 total " * 12, ["few_words", "repeats"]),
        (" ".join(f"{a}{b}" for a in "abcdefg" for b in "hijklmn"), ["word_length"]),
        (f"{PROSE[:200]} and so on we go. " * 4, ["repeats"]),
        ("The cafÃ© was closed, the fiancÃ©e said.", ["damaged"]),
        ("数据处理的方法" * 40, []),
    ],
)
def test_odd_texts_are_flagged_with_what_is_odd(text, found):
    assert [fault for fault in faults(text) if fault in found or fault != "repeats"] == found or faults(text) == found


@pytest.mark.parametrize("corpus", ["law-corpus-dccode", "med-corpus-plos", "tech-corpus-postgresql"])
def test_real_texts_are_seldom_flagged(corpus):
    found = texts_of(corpus)
    assert sum(bool(faults(text)) for text in found) <= 0.05 * len(found)


def test_faults_are_counted_and_listed_and_nothing_is_left_out():
    examples = [Example(f"t{n}", "a", n, f"t{n}", text=PROSE if n else "â€œWhatâ€\x9d he said") for n in range(5)]
    assert quality(examples) == {
        "looked_at": 5,
        "flagged": 1,
        "faults": {"damaged": {"texts": 1, "listed": ["t0"]}},
    }


def test_answers_that_stop_within_a_sentence_are_found_where_most_do_not():
    answers = [chat(n, PROSE) for n in range(20)] + [chat(20, PROSE[:150])]
    assert cut_off(answers) == ["a:20"]
    assert cut_off([chat(n, PROSE[:150]) for n in range(5)] + answers[:5]) == []
    assert same_length([chat(n, "x" * min(200, 150 + 10 * n)) for n in range(20)]) == (200, 15)


def test_texts_in_another_language_than_most_are_listed():
    german = (
        "Die Kommission trat an einem kalten Morgen zusammen, um zu hören, was die Ingenieure unter der Brücke "
        "gefunden hatten. Niemand hatte viel erwartet, aber die Zeichnungen auf dem Tisch erzählten "
        "eine andere Geschichte."
    )
    found = languages([*((f"t{n}", PROSE) for n in range(9)), ("g", german), ("short", "Ja.")])
    assert (found["main"], found["looked_at"], found["texts"]) == ("en", 10, {"en": 9, "de": 1})
    assert found["listed"] == [{"id": "g", "language": "de"}]


def test_keyness_is_dunnings_and_nothing_for_what_is_rarer_here():
    assert keyness(10, 1000, 10, 100_000) == pytest.approx(2 * (10 * 4.60517 - 20 * 0.693147 + 0), rel=0.2)
    assert keyness(10, 1000, 1000, 100_000) == 0
    assert keyness(1, 1000, 1000, 100_000) == 0


def test_the_words_of_a_field_are_found_and_those_of_one_document_or_of_everyday_are_not():
    draw = random.Random(0)
    rows = []
    for n in range(12):
        words = PROSE.split() + ["phenotype", "haploinsufficiency"] * 2 + (["zymurgist"] * 9 if n == 0 else [])
        draw.shuffle(words)
        rows.append(Example(f"t{n}", "a", n, f"t{n}", text=" ".join(words)))
    found = {term["term"]: term for term in terms(rows, "en")}
    assert {"phenotype", "haploinsufficiency"} <= found.keys()
    assert not {"the", "and", "zymurgist"} & found.keys()
    assert (found["phenotype"]["count"], found["phenotype"]["documents"]) == (24, 12)
    assert found["phenotype"]["log_ratio"] > 5
    assert terms(rows, "xx") == []


def test_the_texts_of_medicine_have_the_words_of_medicine():
    rows = [Example(f"t{n}", "a", n, f"t{n}", text=text) for n, text in enumerate(texts_of("med-corpus-plos"))]
    found = [term["term"] for term in terms(rows, "en")][:60]
    assert {"protein", "genes", "expression"} & set(found)


def test_a_general_text_among_those_of_a_field_is_the_least_close():
    draw = random.Random(0)
    names = [f"{a}{b}in" for a in ("prote", "kerat", "alb", "myos") for b in "abcdefg"]
    field = [" ".join(f"the {w} binds" for w in draw.choices(names, k=60)) for _ in range(30)]
    weights = closeness([*field, next(t.text for t in texts() if t.group == "narrative"), ""])
    assert weights[-2] < min(weights[:30])
    assert weights[-1] == 0


def test_what_all_text_is_made_of_brings_no_text_closer():
    """The words of the field alone would prefer a text of nothing but its commonest, which are everybody's."""
    field = [f"{word} {word}" for word in ("kinase", "ligand", "plasmid")] * 20
    weights = closeness([*(f"the {words} of the {words} of the" for words in field), "the of the of the of the of"])
    assert weights[-1] < min(weights[:-1])
