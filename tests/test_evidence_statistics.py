import math

import numpy as np
import pytest
from scipy import stats

from metier.errors import DataError
from metier.evidence.statistics import (
    BoundedMean,
    bits_difference,
    bits_per_byte,
    detectable,
    expected_detectable,
    mcnemar,
    mean_estimate,
    paired,
    paired_scores,
    ratio_estimate,
)


def record(item, nll, n_bytes=100, document=None, **more):
    return {"item": item, "slice": "field", "document": document or item, "bytes": n_bytes, "nll": nll, **more}


def test_bits_per_byte_is_a_ratio_of_sums_not_a_mean_of_ratios():
    records = [record("short", 10 * math.log(2), 10), record("long", 90 * math.log(2), 190)]
    assert bits_per_byte(records) == pytest.approx(0.5)


def test_rows_of_one_document_count_as_one_observation():
    rng = np.random.default_rng(0)
    per_document = rng.normal(0.1, 1, 30)
    once = mean_estimate(per_document.tolist(), [str(i) for i in range(30)])
    ten_rows_each = mean_estimate(np.repeat(per_document, 10).tolist(), [str(i) for i in range(30) for _ in range(10)])
    assert ten_rows_each.se == pytest.approx(once.se)
    assert (ten_rows_each.n_items, ten_rows_each.n_documents) == (300, 30)


def test_the_error_of_a_plain_mean_is_the_textbook_one():
    values = np.random.default_rng(1).normal(size=25)
    estimate = mean_estimate(values.tolist(), [str(i) for i in range(25)])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.interval == pytest.approx(tuple(expected))
    assert estimate.df == pytest.approx(24)


def test_the_interval_agrees_with_a_cluster_bootstrap_of_many_documents():
    rng = np.random.default_rng(2)
    n = 300
    n_bytes = rng.lognormal(6, 0.5, n)
    bits = n_bytes * rng.normal(0.2, 0.1, n)
    weights = rng.multinomial(n, [1 / n] * n, size=10_000)
    bootstrap = np.quantile((weights @ bits) / (weights @ n_bytes), [0.025, 0.975])
    estimate = ratio_estimate(bits.tolist(), n_bytes.tolist(), [str(i) for i in range(n)])
    assert estimate.interval == pytest.approx(tuple(bootstrap), abs=0.1 * (bootstrap[1] - bootstrap[0]))


def test_a_document_that_holds_most_bytes_leaves_few_degrees_of_freedom():
    estimate = ratio_estimate([1.0, 2.0, 3.0, 400.0], [10, 10, 10, 970], list("abcd"))
    assert estimate.df == 1.0
    assert "few documents" in estimate.method


@pytest.mark.parametrize("n", [10, 60])
def test_intervals_of_skewed_documents_cover_the_truth_about_95_times_in_100(n):
    rng = np.random.default_rng(3)

    def draw(size):
        n_bytes = rng.lognormal(6, 1, size)
        return n_bytes * rng.lognormal(0, 0.3, size) * rng.gamma(2, 0.1, size) * (n_bytes / 400) ** -0.2, n_bytes

    bits, n_bytes = draw(2_000_000)
    truth = bits.sum() / n_bytes.sum()
    names = [str(i) for i in range(n)]
    covered = 0
    for _ in range(600):
        low, high = ratio_estimate(*(part.tolist() for part in draw(n)), names).interval
        covered += low <= truth <= high
    assert 0.92 < covered / 600 < 0.98


KINDS = {"code": 0.06, "dialogue": 0.03, "news": 0.01, "letters": 0.0}  # what each loses


def of_kinds(rng, n):
    """(bits, bytes, documents, kinds) of n documents of each kind."""
    kinds = [kind for kind in KINDS for _ in range(n)]
    n_bytes = rng.lognormal(6, 0.3, len(kinds))
    bits = n_bytes * (np.array([KINDS[kind] for kind in kinds]) + rng.normal(0, 0.01, len(kinds)))
    return bits.tolist(), n_bytes.tolist(), [str(i) for i in range(len(kinds))], kinds


def test_documents_drawn_kind_by_kind_vary_within_their_kinds_only():
    rng = np.random.default_rng(7)
    truth = sum(KINDS.values()) / len(KINDS)
    covered = {"simple": 0, "by kind": 0}
    for _ in range(600):
        bits, n_bytes, documents, kinds = of_kinds(rng, 5)
        simple, by_kind = (ratio_estimate(bits, n_bytes, documents, k) for k in ((), kinds))
        assert by_kind.value == simple.value
        assert by_kind.se < 0.8 * simple.se
        assert by_kind.df == pytest.approx(simple.df - 3)
        for name, (low, high) in (("simple", simple.interval), ("by kind", by_kind.interval)):
            covered[name] += low <= truth <= high
    assert covered["simple"] > 0.985 * 600  # too wide
    assert 0.93 * 600 < covered["by kind"] < 0.98 * 600


def test_the_error_by_kind_of_equal_lengths_is_the_textbook_one():
    rng = np.random.default_rng(8)
    values, kinds = rng.normal(size=12), list("aaaabbbbcccc")
    found = ratio_estimate(values.tolist(), [1.0] * 12, [str(i) for i in range(12)], kinds)
    variance = sum(values[i : i + 4].var(ddof=1) / 4 for i in (0, 4, 8)) / 9
    assert (found.se, found.df) == (pytest.approx(math.sqrt(variance)), pytest.approx(9))


def test_kinds_of_one_document_are_taken_together():
    rows = [0.1, 0.4, 0.2, 0.7, 0.3], [1.0, 2.0, 1.0, 3.0, 2.0], list("vwxyz")
    one_kind = ratio_estimate(*rows)
    assert [ratio_estimate(*rows, list(kinds)) for kinds in ("aaaaa", "abcde", "aaaab")] == [one_kind] * 3
    assert ratio_estimate(*rows, list("aaabc")) == ratio_estimate(*rows, list("aaabb")) != one_kind


def test_rows_of_one_document_are_of_its_kind():
    bits, n_bytes, documents, kinds = of_kinds(np.random.default_rng(9), 3)
    once = ratio_estimate(bits, n_bytes, documents, kinds)
    halves = [[value / 2 for value in values for _ in range(2)] for values in (bits, n_bytes)]
    twice = ratio_estimate(*halves, *([name for name in names for _ in range(2)] for names in (documents, kinds)))
    assert (twice.se, twice.n_items) == (pytest.approx(once.se), 2 * once.n_items)


def test_identical_arms_differ_by_exactly_zero():
    records = [record(f"i{i}", 30.1 + i / 7, 33 + i) for i in range(12)]
    estimate = bits_difference([(one, one) for one in records])
    assert (estimate.value, estimate.interval, estimate.upper()) == (0.0, (0.0, 0.0), 0.0)


def test_one_document_has_no_interval():
    estimate = ratio_estimate([1.0, 2.0], [10.0, 10.0], ["a", "a"])
    assert estimate.value == pytest.approx(0.15)
    assert (estimate.interval, estimate.upper(), estimate.detectable) == (None, None, None)


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    assert detectable(1.0) == pytest.approx(2.8016, abs=1e-4)
    rng = np.random.default_rng(4)
    found = shown = 0
    for _ in range(400):
        noise = rng.normal(size=15)
        size = detectable(1 / math.sqrt(15), 14)
        estimate = mean_estimate((noise + size).tolist(), [str(i) for i in range(15)])
        found += estimate.interval[0] > 0
        shown += estimate.detectable
    assert 0.75 < found / 400 < 0.88
    assert shown / 400 == pytest.approx(size, rel=0.1)


def test_what_a_set_could_show_is_foretold_from_the_base_scores_alone():
    rng = np.random.default_rng(5)
    n, rho, spread = 400, 0.9, 0.2
    both = rng.multivariate_normal([1, 1], spread**2 * np.array([[1, rho], [rho, 1]]), n)
    base, adapted = ([record(f"i{i}", 70 * x) for i, x in enumerate(both[:, arm])] for arm in (0, 1))
    found = bits_difference(list(zip(base, adapted, strict=True))).detectable
    assert expected_detectable(base, rho) == pytest.approx(found, rel=0.15)
    assert expected_detectable(base[:1]) is None


def test_mcnemar_counts_only_the_answers_that_turned():
    base, adapted = [True] * 50 + [True] * 8 + [False], [True] * 50 + [False] * 8 + [True]
    assert mcnemar(base, adapted) == pytest.approx(stats.binomtest(1, 9).pvalue)
    assert mcnemar([True, False], [True, False]) == 1.0


def test_twenty_answers_without_a_loop_do_not_exclude_that_one_in_ten_loops():
    bound = BoundedMean(np.zeros(20)).upper()
    assert bound == pytest.approx(1 - 0.05 ** (1 / 20), abs=0.01)  # the exact binomial bound
    assert BoundedMean(np.zeros(60)).upper() < 0.06


def test_bounds_of_yes_no_values_are_the_exact_binomial_ones():
    values = np.array([1.0] * 3 + [0.0] * 37)
    exact = stats.binomtest(3, 40).proportion_ci(0.90, method="exact")
    assert BoundedMean(values).upper() == pytest.approx(exact.high, abs=0.01)
    assert BoundedMean(values).lower() <= exact.low + 0.01


def test_pairs_are_joined_by_item_whatever_their_order():
    base, adapted = [record("a", 5.0), record("b", 6.0)], [record("b", 4.0), record("a", 3.0)]
    assert [(b["nll"], a["nll"]) for b, a in paired_scores(base, adapted)] == [(5.0, 3.0), (6.0, 4.0)]


@pytest.mark.parametrize(
    ("base", "adapted", "words"),
    [
        (
            [record("a", 5.0), record("b", 5.0)],
            [record("a", 5.0)],
            "'b' of 'field' has no score from the adapted model",
        ),
        ([record("a", 5.0)], [record("a", 5.0), record("c", 5.0)], "'c' of 'field' has no score from the base model"),
        ([record("a", 5.0)], [record("a", 5.0, 99)], "differs between the models in 'bytes'"),
        ([record("a", 5.0), record("a", 5.0)], [record("a", 5.0)], "scored twice by the base model"),
        ([record("a", 5.0)], [record("a", math.nan)], "must be finite and positive"),
        ([record("a", 5.0, 0)], [record("a", 5.0, 0)], "no bytes"),
    ],
)
def test_arms_that_do_not_match_are_refused_with_the_item_named(base, adapted, words):
    with pytest.raises(DataError, match=words):
        paired_scores(base, adapted)


def test_the_same_item_name_in_two_slices_is_two_items():
    base = [record("1", 5.0), {**record("1", 6.0), "slice": "text/news"}]
    assert len(paired(base, base, equal_fields=())) == 2
