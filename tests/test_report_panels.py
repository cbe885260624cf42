"""The sentences, figures and rows of the panels, and how numbers are written."""

from typing import Any

import pytest

from metier.report import figures, outcome, process

GAIN = {
    "unit": "bits per byte",
    "base": 1.0,
    "adapted": 0.75,
    "diff": 0.25,
    "ci_low": 0.23,
    "ci_high": 0.27,
    "n_items": 61,
    "n_documents": 61,
    "detectable": 0.02,
}
SLICE = {
    "name": "text/news",
    "unit": "bits per byte",
    "base": 1.0,
    "adapted": 1.002,
    "diff": 0.002,
    "margin": 0.01,
    "lower_95": -0.001,
    "upper_95": 0.005,
    "n_items": 50,
    "passed": True,
}


def plain(text: str) -> str:
    return text.replace(figures.SPACE, " ")


def gain_sentence(unit: str = "document", **changes: float | None) -> str:
    panel = outcome.gain_panel({**GAIN, **changes}, unit)
    assert panel is not None
    return plain(panel["sentence"])


def retention(*changes: dict[str, Any]) -> dict[str, Any]:
    panel = outcome.retention_panel({"slices": [{**SLICE, **change} for change in changes]})
    assert panel is not None
    return panel


def test_a_gain_is_said_with_its_number_interval_and_what_could_have_been_shown() -> None:
    assert gain_sentence() == (
        "On 61 held-out documents the adapted model needs 25 % fewer bits for the field's text "
        "(95 % interval 23 to 27 %; this set could have shown 2 %)."
    )


def test_a_loss_on_the_field_is_said_as_more_bits() -> None:
    said = gain_sentence(diff=-0.05, ci_low=-0.07, ci_high=-0.03)
    assert "needs 5.0 % more bits" in said
    assert "interval 3.0 to 7.0 %" in said


def test_an_interval_that_holds_zero_is_no_gain_in_either_direction() -> None:
    assert "no gain can be told from chance: +0.2 % (95 % interval −1.1 to 1.5 %" in gain_sentence(
        diff=0.002, ci_low=-0.011, ci_high=0.015
    )
    assert "no gain can be told from chance: −0.2 %" not in gain_sentence(
        diff=-0.002, ci_low=-0.015, ci_high=0.011
    ).replace("−0.2", "-0.2")


def test_the_relative_interval_of_the_run_is_preferred_to_the_ratio() -> None:
    assert "interval 20 to 30 %" in gain_sentence(relative=0.25, relative_ci_low=0.2, relative_ci_high=0.3)


def test_what_was_held_out_is_named_by_its_unit() -> None:
    assert gain_sentence("section").startswith("On 61 held-out sections ")


def test_groups_are_sorted_by_gain_and_small_ones_are_only_in_the_table() -> None:
    groups = [
        {
            "name": name,
            "base": 1.0,
            "adapted": 1.0 - diff,
            "diff": diff,
            "ci_low": diff - 0.1,
            "ci_high": diff + 0.1,
            "n_items": n,
            "n_documents": n,
        }
        for name, diff, n in (("a", 0.1, 9), ("b", 0.3, 8), ("tiny", 0.9, 2))
    ]
    panel = outcome.gain_panel({**GAIN, "groups": groups})
    assert panel is not None
    assert [row.name for row in panel["chart"]["rows"]] == ["All together", "b", "a"]
    assert panel["chart"]["small"] == 1
    assert [cells[0] for cells in panel["groups"]] == ["tiny", "b", "a"]
    assert panel["groups"][0][-1] == "too few"


def test_many_groups_are_drawn_up_to_a_number_and_the_rest_is_counted() -> None:
    groups = [{**GAIN, "name": f"g{i}", "n_documents": 3 + i} for i in range(outcome.MOST_GROUPS + 5)]
    panel = outcome.gain_panel({**GAIN, "groups": groups})
    assert panel is not None
    assert len(panel["chart"]["rows"]) == 1 + outcome.MOST_GROUPS
    assert panel["chart"]["beyond"] == 5
    assert "g0" not in {row.name for row in panel["chart"]["rows"]}


def test_retention_names_what_was_lost_before_what_is_unsure() -> None:
    lost = {"name": "chat/own answers", "diff": 0.168, "lower_95": 0.15, "upper_95": 0.19, "passed": False}
    panel = retention({}, lost, {"name": "text/code", "passed": None})
    assert plain(panel["sentence"]) == (
        "The adapted model lost more than the margin on 1 of 3 general tests: its own answers to general requests "
        "(lost 0.168 bits per byte, upper bound 0.190, margin 0.010)."
    )
    assert panel["figure"] == "1 of 3"
    assert [row.value for row in panel["chart"]["rows"]] == ["kept", "lost, 17 margins", "cannot tell"]


def test_an_undecided_test_is_not_called_kept() -> None:
    said = retention({}, {"name": "text/code", "passed": None})["sentence"]
    assert "source code is measured on too few items" in said


def test_the_closest_to_its_margin_is_judged_by_its_upper_bound() -> None:
    said = retention({}, {"name": "text/code", "diff": -0.001, "upper_95": 0.008})["sentence"]
    assert "the closest is source code (better by 0.001 bits per byte, upper bound 0.008, margin 0.010)" in said


def test_slices_share_an_axis_of_margins() -> None:
    big = {"name": "answers/length", "diff": 0.2, "margin": 1.0, "lower_95": -0.1, "upper_95": 0.5, "unit": "doublings"}
    first, second = retention({}, big)["chart"]["rows"]
    assert first.picture == second.picture  # 0.2 (-0.1 to 0.5) of the margin, both


def test_the_ledger_keeps_every_bucket_even_one_it_does_not_know() -> None:
    panel = process.ledger_panel(
        {"bytes": {"total": 100, "mystery_part": 10, "trained": 60, "duplicate": 0, "held_out": 30}}
    )
    assert panel is not None
    assert [(key, word, plain(share)) for key, _, word, _, _, _, share in panel["rows"]] == [
        ("A", "learned", "60 %"),
        ("B", "held out", "30 %"),
        ("C", "mystery part", "10 %"),
    ]


def test_the_buckets_of_the_report_are_those_of_the_ledger() -> None:
    from metier.sources.ledger import BYTE_BUCKETS

    assert set(process.BUCKETS) == set(BYTE_BUCKETS)


def test_a_running_mean_leaves_a_straight_line_straight() -> None:
    assert process.running_mean([1.0, 2.0, 3.0, 4.0, 5.0], 3) == [1.5, 2.0, 3.0, 4.0, 4.5]
    assert process.running_mean([2.0, 8.0], 1) == [2.0, 8.0]


def test_weights_that_did_not_move_are_reported() -> None:
    panel = process.training_panel({"steps": 3}, {"weights_moved": 0.0})
    assert panel is not None
    assert panel["still"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.fixed(-0.0001), "0.000"),
        (figures.fixed(-0.25, 2), "−0.25"),
        (figures.fixed(0.25, 2, signed=True), "+0.25"),
        (figures.fixed(None), "–"),
        (figures.percent(0.251), "25 %"),
        (figures.percent(0.02), "2 %"),
        (figures.percent(0.0213), "2.1 %"),
        (figures.percent(0.0004), "0.04 %"),
        (figures.size(1), "1 byte"),
        (figures.size(999), "999 bytes"),
        (figures.size(1_812_400), "1.81 MB"),
        (figures.size(999_900), "1 MB"),
        (figures.size(2_310_000_000), "2.31 GB"),
        (figures.duration(5.04), "5.0 s"),
        (figures.duration(548), "9 min 8 s"),
        (figures.duration(3599.7), "1 h 0 min"),
        (figures.counted(1, "document"), "1 document"),
        (figures.counted(16449, "reply"), "16,449 replies"),
        (figures.parameters(134515008), "134.5 million"),
        (figures.listed(["a", "b", "c"]), "a, b and c"),
        (figures.listed(["a", "b", "c"], most=2), "a, b and 1 more"),
    ],
)
def test_numbers_are_written_for_reading(written: str, expected: str) -> None:
    assert plain(written) == expected


def test_what_was_trained_beside_the_field_is_listed_with_its_share() -> None:
    mix = [
        {"part": "field", "wanted": 0.85, "share": 0.849, "tokens": 849},
        {"part": "replay", "wanted": 0.15, "share": 0.151, "tokens": 151},
    ]
    panel = process.training_panel({"steps": 2, "tokens": 1000, "mix": mix}, {})
    assert panel is not None
    rows = {name: plain(value) for name, value in panel["rows"]}
    assert (rows["… of field"], rows["… of replay"]) == ("849 (85 %)", "151 (15 %)")
    alone = process.training_panel({"steps": 2, "tokens": 1000, "mix": mix[:1]}, {})
    assert alone is not None
    assert not [name for name, _ in alone["rows"] if name.startswith("… of")]


@pytest.mark.parametrize(
    ("fragmentation", "said"),
    [(1.02, "takes about as many tokens as general text"), (1.31, "takes 1.31 times the tokens of general text")],
)
def test_the_vocabulary_is_said_in_one_sentence(fragmentation: float, said: str) -> None:
    found = {"bytes_per_token": {"field": 3.5, "general": 4.6}, "fragmentation": fragmentation}
    bare = process.vocabulary_panel(found)
    assert bare is not None
    assert said in bare["sentence"]
    assert bare["most_split"] == ""
    terms = {
        "terms": 40,
        "tokens_per_term": 5.25,
        "tokens_per_word": {"terms": 2.9, "general": 1.3},
        "most_split": [["hepatosplenomegaly", 7]],
    }
    panel = process.vocabulary_panel(found | terms)
    assert panel is not None
    assert "40 terms take 5.2 tokens each, and their words 2.9, where general words take 1.3" in plain(
        panel["sentence"]
    )
    assert panel["most_split"] == "hepatosplenomegaly (7)"
    assert process.vocabulary_panel(None) is None
