"""Terms that were learned are told from a register that was, and noise is told from both."""

import json
import math

import numpy as np
import pytest
from wordfreq import get_frequency_dict

from metier.evidence.jargon.learned import MIN_TERMS, MOST_OF_ONE_TERM, jargon
from metier.evidence.jargon.occurrences import GRAMMAR, ORDINARY

ORDINARY_WORDS = sorted(
    word
    for word, frequency in get_frequency_dict("en").items()
    if 2 * ORDINARY < frequency < GRAMMAR / 2 and word.isascii() and word.isalpha() and 5 <= len(word) <= 11
)[::3]
TERMS = [
    f"{a}{b}{c}" for a in ("ke", "os", "my", "du") for b in ("to", "gli", "fi") for c in ("sin", "lith", "pla", "dom")
]


def world(seed, n_documents=16, term=0.0, every=0.1, noise=0.3, harder=0.5, kept=TERMS):
    """Passages with a fifth of terms. term, every: bits per byte that the adapted model saves on terms, on all words.

    Both models see one true difficulty with noise of their own; harder: how much more difficult terms are.
    """
    rng = np.random.default_rng(seed)
    of_term = dict(zip(TERMS, rng.normal(0, 0.1, len(TERMS)), strict=True))
    passages, base, adapted = [], [], []
    for i in range(n_documents):
        names = [kept[int(len(kept) * rng.random() ** 2)] if rng.random() < 0.2 else None for _ in range(60)]
        words = [name or ORDINARY_WORDS[rng.integers(len(ORDINARY_WORDS))] for name in names]
        is_term = np.array([name is not None for name in names])
        true = np.maximum(0.02, rng.normal(1.2, 0.4, 60) + harder * is_term)
        saved = every + is_term * term + np.array([of_term[name] if name else 0.0 for name in names])
        n_bytes = np.array([len(word) for word in words])
        arms = [true + rng.normal(0, noise, 60), true - saved + rng.normal(0, noise, 60)]
        ends = np.cumsum(n_bytes + 1).tolist()
        name = f"p{i}"
        passages.append({"item": name, "document": f"d{i}", "text": " " + " ".join(words)})
        for arm, bits in zip((base, adapted), arms, strict=True):
            # the space before a word is part of its token
            arm.append({"item": name, "ends": ends, "nll": (bits * (n_bytes + 1) * math.log(2)).tolist()})
    return passages, base, adapted, TERMS


def test_terms_that_fell_more_than_words_like_them_were_learned():
    found = jargon(*world(1, n_documents=40, term=0.3))
    assert found["decision"] == "learned"
    assert found["beyond"]["ci_low"] < 0.3 < found["beyond"]["ci_high"]
    assert found["control_drop"]["ci_low"] < 0.1 < found["control_drop"]["ci_high"]
    assert found["beyond"]["relative"] == pytest.approx(found["beyond"]["value"] / found["base"])
    assert "beyond its register" in found["sentence"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_terms_that_fell_as_all_words_did_are_register_only():
    found = jargon(*world(2, n_documents=150, every=0.6, noise=0.1))
    assert found["decision"] == "register_only"
    assert "terms no more than other words" in found["sentence"]


def test_a_register_is_hardly_ever_taken_for_vocabulary():
    """Six of a hundred would be a wrong interval: it is one-sided at 2.5 %. Words picked for their surprise to the base
    fall back towards their kind, and where terms are the easier kind that alone looks like learning."""
    runs = {harder: [jargon(*world(seed, harder=harder)) for seed in range(100)] for harder in (0.5, -0.5)}
    both = runs[0.5] + runs[-0.5]
    assert sum(found["beyond"]["ci_low"] > 0 for found in both) <= 12
    assert sum(found["decision"] == "learned" for found in both) <= 12
    assert np.mean([found["beyond"]["value"] for found in both]) == pytest.approx(0, abs=0.02)
    fooled = {harder: sum(one["beyond_by_base"]["ci_low"] > 0 for one in found) for harder, found in runs.items()}
    assert fooled[0.5] == 0
    assert fooled[-0.5] > 50


def test_nothing_that_changes_is_nothing_learned():
    passages, base, _, terms = world(3, noise=0.0)
    found = jargon(passages, base, base, terms)
    assert found["decision"] == "no"
    assert found["beyond"]["value"] == 0
    assert found["pieces"] is None


def test_terms_that_became_harder_were_not_learned():
    found = jargon(*world(4, n_documents=40, term=-0.5))
    assert found["decision"] == "no"
    assert found["term_drop"]["ci_high"] < 0


def test_a_difference_that_may_be_nothing_or_all_is_not_called_register():
    found = jargon(*world(5, n_documents=16, every=0.3, noise=0.6))
    assert found["decision"] == "cannot_tell"
    assert found["n_terms"] >= MIN_TERMS
    assert "terms in held-out text would settle it" in found["sentence"]


def test_few_terms_decide_nothing_however_much_they_fell():
    found = jargon(*world(6, n_documents=60, term=0.5, kept=TERMS[: MIN_TERMS - 1]))
    assert (found["decision"], found["n_terms"]) == ("cannot_tell", MIN_TERMS - 1)
    assert "Hold out more documents" in found["sentence"]


def test_without_ordinary_words_nothing_is_compared():
    found = jargon(*world(7), language="xx")
    assert (found["decision"], found["n_occurrences"], found["n_controls"]) == ("cannot_tell", 0, 0)
    assert found["base"] is None
    assert "beyond" not in found
    assert "ordinary words of the language 'xx'" in found["sentence"]


@pytest.mark.parametrize(("passages", "terms"), [([], TERMS), ([{"item": "i", "document": "d", "text": ""}], [])])
def test_no_text_and_no_terms_are_no_error(passages, terms):
    scores = [{"item": passage["item"], "ends": [], "nll": []} for passage in passages]
    found = jargon(passages, scores, scores, terms)
    assert (found["decision"], found["n_terms"]) == ("cannot_tell", 0)
    assert found["best"] == found["worst"] == []


def test_after_matching_terms_and_controls_are_alike():
    found = jargon(*world(8, n_documents=40))
    gaps = {row["name"]: abs(row["gap"]) for row in found["balance"]}
    assert gaps["bits per byte, mean of both models"] < 0.1
    assert gaps["characters before it"] < 0.3
    assert found["n_unmatched"] > 0


def test_terms_seen_in_training_are_compared_with_terms_never_seen():
    passages, base, adapted, terms = world(9, n_documents=120)
    half = set(terms[::2])
    for passage, record in zip(passages, adapted, strict=True):
        words = passage["text"].split()
        record["nll"] = [nll - 4.0 * (word in half) for word, nll in zip(words, record["nll"], strict=True)]
    found = jargon(passages, base, adapted, [*terms], half)
    apart = found["seen_minus_unseen"]
    assert found["seen"]["n_terms"] + found["unseen"]["n_terms"] == found["n_terms"]
    assert apart["ci_low"] > 0.3
    assert apart["value"] == pytest.approx(found["seen"]["beyond"]["value"] - found["unseen"]["beyond"]["value"])
    assert found["unseen"]["beyond"]["ci_low"] < 0
    assert {row["seen"] for row in found["best"]} == {True}
    assert jargon(passages, base, adapted, terms).get("seen") is None
    few = jargon(passages, base, adapted, terms, set(terms[:5]))
    assert (few["seen"]["beyond"], few["seen_minus_unseen"]) == (None, None)


def test_no_term_speaks_for_the_others_by_its_number():
    found = jargon(*world(10, n_documents=60))
    rows = [*found["best"], *found["worst"]]
    assert max(row["n"] for row in rows) == MOST_OF_ONE_TERM


def test_bits_go_to_the_term_and_not_to_the_words_beside_it():
    """Two tokens for the term, a share of one for the space before it."""
    text = "we met ketosin again"
    passages = [{"item": "i", "document": "d", "text": text}]
    ends = [2, 6, 10, 14, 20]
    base = [{"item": "i", "ends": ends, "nll": [9.0, 9.0, 5 * math.log(2), 6 * math.log(2), 9.0]}]
    adapted = [{"item": "i", "ends": ends, "nll": [1.0, 1.0, 5 * math.log(2), 3 * math.log(2), 1.0]}]
    found = jargon(passages, base, adapted, ["ketosin", "met"])
    (best,) = found["best"]
    (worst,) = found["worst"]
    assert best["term"] == "met"
    assert worst["term"] == "ketosin"
    assert worst["base"] == pytest.approx((5 * 3 / 4 + 6) / 7)
    assert worst["drop"] == pytest.approx(3 / 7)
    assert worst["tokens"] == 2


def test_terms_of_many_pieces_that_gain_more_show_in_the_correlation():
    passages, base, adapted, terms = world(11, n_documents=60, noise=0.05)
    split = set(terms[:18])
    for passage, *arms in zip(passages, base, adapted, strict=True):
        words = passage["text"].split()
        for number, record in enumerate(arms):
            ends, nll = [], []
            for word, end, value in zip(words, record["ends"], record["nll"], strict=True):
                parts = 3 if word in split else 1
                saved = 1.5 if word in split and number == 1 else 0.0
                ends += [end - (parts - 1 - i) for i in range(parts)]
                nll += [(value - saved) / parts] * parts
            record["ends"], record["nll"] = ends, nll
    pieces = jargon(passages, base, adapted, terms)["pieces"]
    assert pieces["rho"] > 0.3
    assert pieces["p"] < 0.05
