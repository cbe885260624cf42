"""Near-duplicates: found at Jaccard 0.8 and above, with recall and precision of 0.95 or more, and none below."""

import random

import pytest

from metier.sources import duplicates
from metier.sources.duplicates import NearDuplicates

VOCABULARY = [f"word{n}" for n in range(3000)]


def grams(text):
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(one, other):
    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


def changed(text, n_words, random):
    words = text.split()
    for place in random.sample(range(len(words)), n_words):
        words[place] = random.choice(VOCABULARY)
    return " ".join(words)


def found_in(texts, **how):
    seeker = NearDuplicates()
    seeker.add(texts)
    return seeker.find(texts.__getitem__, **how)


@pytest.fixture(scope="module")
def planted():
    """300 texts, and 600 versions of them with 1 to 12 of 100 to 200 words changed."""
    draw = random.Random(0)
    originals = [" ".join(draw.choices(VOCABULARY, k=draw.randint(100, 200))) for _ in range(300)]
    versions = [(i, changed(originals[i], draw.randint(1, 12), draw)) for i in range(300) for _ in "ab"]
    draw.shuffle(versions)
    return originals, versions


def test_planted_near_duplicates_are_found_with_recall_and_precision_of_095(planted):
    originals, versions = planted
    texts = [*originals, *(text for _, text in versions)]
    found = found_in(texts)
    near = {len(originals) + j for j, (i, text) in enumerate(versions) if similarity(originals[i], text) >= 0.8}
    assert 150 < len(near) < 550
    hits = near & set(found)
    assert len(hits) >= 0.95 * len(near)
    right = [i for i, one in found.items() if similarity(texts[one.first], texts[i]) >= 0.8]
    assert len(right) >= 0.95 * len(found)


def test_what_is_called_near_is_near_to_the_digit_and_named_with_its_first(planted):
    originals, versions = planted
    texts = [*originals, *(text for _, text in versions)]
    for later, near in found_in(texts).items():
        assert near.jaccard == pytest.approx(similarity(texts[near.first], texts[later]))
        assert near.first < later


def test_of_a_chain_the_one_that_is_near_to_no_kept_text_stays():
    draw = random.Random(1)
    first = " ".join(draw.choices(VOCABULARY, k=200))
    second = changed(first, 3, draw)
    third = changed(second, 3, draw)
    assert similarity(first, second) > 0.8 < similarity(second, third)
    assert similarity(first, third) < 0.8
    assert set(found_in([first, second, third])) == {1}
    assert set(found_in([first, second, third], kept=lambda _: True)) == {1, 2}


def test_many_copies_all_lead_to_the_first():
    text = " ".join(VOCABULARY[:50])
    found = found_in([text] * 300)
    assert {near.first for near in found.values()} == {0}
    assert len(found) == 299


def test_texts_without_words_repeat_nothing_and_short_ones_only_themselves():
    assert found_in(["", "…", "", "--"]) == {}
    assert set(found_in(["one two", "two one", "One, two!"])) == {2}


def test_how_the_texts_are_portioned_changes_nothing(planted, monkeypatch):
    originals, versions = planted
    texts = [*originals, *(text for _, text in versions)]
    whole = found_in(texts)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    seeker = NearDuplicates()
    for text in texts:
        seeker.add([text])
    assert seeker.find(texts.__getitem__) == whole
