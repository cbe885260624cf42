"""The plan is arithmetic: minutes in, tokens and items out, and nothing of it depends on anything else."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from metier.evidence.planning import after_base_lines
from metier.settings import BY_DATA, Settings
from metier.training.evidence_plan import (
    FULL_STRENGTHS,
    LARGEST_QUICK,
    SMALLEST,
    SURER,
    SUSTAINED,
    Choosing,
    EvidencePlan,
    Sizes,
    evidence_plan,
    evidence_seconds,
)
from metier.training.plan import (
    FEWEST_STEPS,
    KNOWN_MARGIN,
    MARGIN,
    QUICKEST,
    SLOWEST,
    SMALLEST_STEP,
    Plan,
    plan,
    replan,
)
from metier.training.replay import LIKELIEST, SHARES
from metier.training.speed import Speed
from metier.training.trajectory import EXTRA_STEPS

SPEED = Speed(train_tokens_per_s=700, score_tokens_per_s=2000, generate_tokens_per_s=250)
SIZES = Sizes(
    field_items=300,
    field_tokens=90,
    train_tokens=200_000,
    texts=156,
    text_tokens=220,
    own_text_tokens=500,
    requests=60,
    request_tokens=150,
    choices=240,
    choice_tokens=60,
    answer_tokens=96,
    replay_requests=120,
    probe_tokens=1500,
)


def planned(minutes: float = 10, sizes: Sizes = SIZES, speed: Speed = SPEED, **options: Any) -> Plan:
    settings = Settings(data=("x",), minutes=minutes, **{"replay": 0.15, **options})
    return plan(settings, sizes, speed, settings.minutes * 60, lr=1e-3)


def items(evidence: EvidencePlan) -> list[int]:
    return [n for part in (evidence, evidence.choosing) for n in vars(part).values() if isinstance(n, int)]


@pytest.mark.parametrize("mode", ["none", "quick", "full"])
def test_more_minutes_never_plan_less(mode: str) -> None:
    plans = [planned(minutes, evidence=mode) for minutes in (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60, 120)]
    for shorter, longer in pairwise(plans):
        assert longer.train_tokens >= shorter.train_tokens
        assert all(b >= a for a, b in zip(items(shorter.evidence), items(longer.evidence), strict=True))
    assert plans[-1].train_tokens > plans[0].train_tokens


@pytest.mark.parametrize("minutes", [8, 10, 15, 20])
def test_a_plan_that_is_not_noted_as_too_long_fits_its_minutes(minutes: float) -> None:
    found = planned(minutes)
    assert found.notes == ()
    replay_s = found.train_tokens * found.replay.share / 110 * SIZES.answer_tokens / SPEED.generate_tokens_per_s
    assert found.train_s + found.evidence_s + replay_s <= minutes * 60
    assert found.train_s + found.evidence_s + replay_s == pytest.approx(minutes * 60 * MARGIN, rel=0.01)
    assert found.evidence_s <= minutes * 30


def test_evidence_lies_between_the_smallest_and_the_largest_and_never_over_what_there_is() -> None:
    to_choose = {"select_items": 10_000, "probe_texts": 10_000, "probe_requests": 10_000}
    plenty = replace(SIZES, field_items=10_000, texts=10_000, requests=10_000, choices=10_000, **to_choose)
    assert evidence_plan("quick", plenty, SPEED, 0.0) == SMALLEST
    assert planned(1000, plenty).evidence == LARGEST_QUICK
    few = replace(SIZES, field_items=7, texts=6, requests=8, choices=10)
    assert planned(120, few).evidence == EvidencePlan(7, 6, 8, 10)
    assert planned(0.5, few).evidence == EvidencePlan(7, 6, 8, 10)


def test_time_beyond_the_smallest_evidence_goes_to_texts_and_answers_first() -> None:
    plenty = replace(SIZES, requests=120, select_items=200, probe_texts=36, probe_requests=20)
    needed = evidence_seconds(SURER, plenty, SPEED)
    assert evidence_plan("quick", plenty, SPEED, needed - 1) == SMALLEST
    assert evidence_plan("quick", plenty, SPEED, needed) == SURER
    assert evidence_plan("quick", SIZES, SPEED, needed).requests == SIZES.requests < SURER.requests


def test_evidence_of_each_kind_is_counted_in_both_arms() -> None:
    one_of_each = EvidencePlan(1, 1, 1, 1)
    expected = 2 * (90 + 220 + 500 + 150 + 60) / 2000 + 2 * 96 / 250
    assert evidence_seconds(one_of_each, SIZES, SPEED) == pytest.approx(expected)


def test_half_of_the_requests_are_scored_and_all_are_answered() -> None:
    five = EvidencePlan(0, 0, 5, 0)
    assert five.scored_requests == 3
    assert evidence_seconds(five, SIZES, SPEED) == pytest.approx(2 * 3 * 150 / 2000 + 2 * 5 * 96 / 250)


def test_minutes_that_are_over_before_the_plan_are_no_minutes() -> None:
    found = plan(Settings(data=("x",)), SIZES, SPEED, -30.0, lr=1e-3)
    assert found.notes == (f"0 s may be too few for {FEWEST_STEPS} steps, which are made anyway",)


def test_without_evidence_all_the_time_is_for_training() -> None:
    found = planned(2, evidence="none", replay=0.0)
    assert found.evidence == EvidencePlan(0, 0, 0, 0)
    assert found.evidence_s == 0
    assert found.train_tokens == int(120 * MARGIN * 700)
    assert found.replay.answers == 0


def test_full_evidence_is_everything_where_the_time_allows_at_more_strengths() -> None:
    sizes = replace(SIZES, select_items=200, probe_texts=36, probe_requests=20)
    choosing = Choosing(200, 36, 20, FULL_STRENGTHS)
    assert planned(600, sizes, evidence="full").evidence == EvidencePlan(300, 156, 60, 240, choosing)
    hurried = evidence_plan("full", sizes, SPEED, 0.0)
    assert hurried == replace(SMALLEST, choosing=replace(SMALLEST.choosing, strengths=FULL_STRENGTHS))


@pytest.mark.parametrize("options", [{}, {"tokens": 8192}])
def test_where_even_the_smallest_evidence_takes_too_long_no_strength_is_chosen_and_it_is_said(options: Any) -> None:
    sizes = replace(SIZES, select_items=200, probe_texts=36, probe_requests=20)
    assert planned(4, sizes, **options).evidence.choosing.strengths
    found = planned(0.5, sizes, **options)
    assert found.evidence == replace(SMALLEST, choosing=Choosing())
    assert "the time is too short to choose a strength: the adapter is measured as it is trained" in found.notes


def test_without_a_select_half_no_strength_is_chosen() -> None:
    assert {planned(10, evidence=mode).evidence.choosing.strengths for mode in ("none", "quick", "full")} == {()}


def test_what_is_read_to_choose_by_is_counted_for_every_strength_and_the_field_for_every_stage() -> None:
    choosing = Choosing(2, 3, 4, (0.5, 1.0, 1.25))
    expected = 5 * (2 * 90 + 3 * 220 + 4 * 150)  # the base, three strengths, halfway
    expected += (2 + 2) * 2 * 90  # two earlier stages; trained rows, by both models
    assert choosing.score_tokens(SIZES) == expected
    evidence = EvidencePlan(1, 1, 1, 1, choosing)
    without = evidence_seconds(EvidencePlan(1, 1, 1, 1), SIZES, SPEED)
    assert evidence_seconds(evidence, SIZES, SPEED) - without == pytest.approx(expected / 2000 + 4 * 96 / 250)


def test_the_steps_beside_the_run_that_the_trajectory_takes_are_planned_and_counted_as_evidence() -> None:
    sizes = replace(SIZES, select_items=200, probe_texts=36, probe_requests=20)
    found = planned(10, sizes)
    read_s = evidence_seconds(found.evidence, sizes, SPEED)
    assert found.evidence_s - read_s == pytest.approx(EXTRA_STEPS * found.train_s, abs=0.1)
    replay_s = found.train_tokens * found.replay.share / 110 * SIZES.answer_tokens / SPEED.generate_tokens_per_s
    assert found.train_s + found.evidence_s + replay_s == pytest.approx(600 * MARGIN, rel=0.01)
    assert planned(10).evidence_s == pytest.approx(evidence_seconds(planned(10).evidence, SIZES, SPEED), abs=0.1)


def test_given_tokens_leave_their_evidence_the_time_without_the_steps_beside_the_run() -> None:
    sizes = replace(SIZES, select_items=200, probe_texts=36, probe_requests=20)
    smallest_s = evidence_seconds(evidence_plan("quick", sizes, SPEED, 0.0), sizes, SPEED)
    tokens = 70_000  # 100 s of training, and 17.5 s beside it
    needed = (1 + EXTRA_STEPS) * tokens / SPEED.train_tokens_per_s + SUSTAINED * smallest_s
    for seconds, chooses in ((needed - 1, False), (needed + 1, True)):
        found = planned(seconds / MARGIN / 60, sizes, tokens=tokens, lr=1e-3)
        assert bool(found.evidence.choosing.strengths) == chooses


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_tokens_that_are_given_are_kept_whatever_the_speed_and_the_minutes(factor: float) -> None:
    speed = Speed(*(factor * value for value in vars(SPEED).values()))
    for minutes in (0.1, 10, 100):
        found = planned(minutes, speed=speed, tokens=30_000)
        assert found.train_tokens == 30_000
        assert (found.steps, found.step_tokens) == (16, 1875)
        assert found.notes == ()
        assert found.replay == planned(tokens=30_000).replay


def test_few_tokens_are_kept_too() -> None:
    found = planned(tokens=500)
    assert (found.train_tokens, found.steps, found.step_tokens) == (500, 1, 512)


@pytest.mark.parametrize("tokens", [0, 10**9])
def test_the_field_is_passed_over_at_most_as_often_as_the_settings_say_and_the_plan_says_so(tokens: int) -> None:
    found = planned(600, tokens=tokens, max_epochs=3, replay=0.2)
    assert found.train_tokens == 200_000 * 3 / 0.8
    assert found.epochs == 3
    assert found.notes == ("the field is trained 3 times over, no more: 750,000 tokens suffice",)


def test_too_few_minutes_are_said_and_sixteen_small_steps_are_made_anyway() -> None:
    found = planned(0.1)
    assert found.train_tokens == FEWEST_STEPS * SMALLEST_STEP
    assert found.steps == FEWEST_STEPS
    assert found.notes == (f"{6 * MARGIN:.0f} s may be too few for {FEWEST_STEPS} steps, which are made anyway",)


def test_a_small_field_is_not_blamed_on_the_minutes() -> None:
    """It is trained max_epochs times over, which is less than sixteen steps: time is not what lacks."""
    found = planned(60, replace(SIZES, train_tokens=1000), replay=0.0)
    assert found.train_tokens == 4000
    assert found.notes == ("the field is trained 4 times over, no more: 4,000 tokens suffice",)
    assert "too few" in planned(0.001, replace(SIZES, train_tokens=1000), replay=0.0).notes[0]


def test_a_run_has_sixteen_steps_or_more_unless_a_sixteenth_is_less_than_the_smallest_step() -> None:
    assert planned(tokens=400_000).step_tokens == 2048
    assert planned(tokens=20_000).step_tokens == 1250
    assert planned(tokens=20_000).steps == 16
    assert planned(tokens=8000).step_tokens == SMALLEST_STEP
    assert planned(tokens=8000, pack_tokens=256).step_tokens == 500


def test_texts_with_tasks_mined_from_them_are_replayed_as_answers_are() -> None:
    texts = replace(SIZES, kind="text")
    plain, mined = planned(sizes=texts, replay=BY_DATA), planned(sizes=texts, replay=BY_DATA, mined=0.2)
    assert (plain.replay.share, plain.replay.likeliest) == (SHARES["text"], 0)
    assert (mined.replay.share, mined.replay.likeliest) == (SHARES["answers"], LIKELIEST)


def test_no_step_is_smaller_than_the_windows_of_long_texts() -> None:
    """Each step trains a document at least, so ten steps of a window are what 8,000 tokens are."""
    texts = replace(SIZES, document_tokens=800)
    assert (planned(tokens=8000, sizes=texts).step_tokens, planned(tokens=8000, sizes=texts).steps) == (800, 10)
    assert planned(tokens=400_000, sizes=texts).step_tokens == 2048
    assert planned(tokens=400_000, sizes=texts, step_tokens=256, pack_tokens=256).step_tokens == 256


def test_a_learning_rate_that_is_given_is_kept_and_none_takes_the_models() -> None:
    assert planned().lr == 1e-3
    assert planned(lr=3e-5).lr == 3e-5


@pytest.mark.parametrize(
    ("options", "from_where"),
    [
        ({"minutes": 30}, "the middle of those tried"),
        ({"tokens": 400_000}, "the middle of those tried"),
        ({"minutes": 30, "lr": 1e-3}, "as given"),
        ({"minutes": 3}, "the run is too short"),
        ({"tokens": 20_000}, "the run is too short"),
        ({"minutes": 30, "sizes": replace(SIZES, field_items=0)}, "nothing is held out"),
        ({"minutes": 30, "sizes": replace(SIZES, train_tokens=5000)}, "the run is too short"),
        ({"minutes": 30, "method": "full"}, "--method full"),
        ({"minutes": 30, "sizes": replace(SIZES, pairs=3)}, "rows are preferences"),
    ],
)
def test_rates_are_tried_where_the_run_can_bear_it_and_none_is_given(options: dict[str, Any], from_where: str) -> None:
    found = planned(**options)
    assert from_where in found.lr_from
    assert found.lr == 1e-3
    assert (found.probe is not None) == (from_where == "the middle of those tried")
    if found.probe:
        assert found.probe.cost_tokens <= 0.25 * found.train_tokens


def test_the_probe_of_given_tokens_is_the_same_on_every_machine() -> None:
    slow, fast = (planned(0.1, speed=Speed(*(f * v for v in vars(SPEED).values())), tokens=400_000) for f in (0.1, 9))
    assert slow.probe == fast.probe != None  # noqa: E711


TO_CHOOSE = replace(SIZES, select_items=200, probe_texts=36, probe_requests=20, replay_requests=1000)
TO_CHOOSE = replace(TO_CHOOSE, shown=4, looked_at_tokens=2048)


def replanned(minutes: float, pace: float, seconds: float, **options: Any) -> tuple[Plan, Plan]:
    """(a plan, the same after a base that took `pace` times what was planned for it, with `seconds` left)"""
    first = planned(minutes, TO_CHOOSE, **options)
    settings = Settings(data=("x",), minutes=minutes, **{"replay": 0.15, **options})
    return first, replan(first, settings, TO_CHOOSE, seconds, pace * first.base_s)


def rest_s(found: Plan, pace: float = 1.0) -> float:
    """Seconds of all that comes after the base."""
    replay_s = found.train_tokens * found.replay.share * 96 / 110 / SPEED.generate_tokens_per_s
    trained_s = (1 + EXTRA_STEPS) * found.train_tokens / SPEED.train_tokens_per_s
    return found.after_s * pace + (trained_s + replay_s) * max(1.0, pace)


def test_a_base_that_was_as_quick_as_planned_leaves_the_margin_to_training() -> None:
    first = planned(10, TO_CHOOSE)
    assert first.evidence_s == pytest.approx(first.base_s + first.after_s + EXTRA_STEPS * first.train_s, abs=0.2)
    _, found = replanned(10, 1.0, 600 - first.base_s)
    assert found.train_tokens > first.train_tokens
    assert rest_s(found) == pytest.approx(KNOWN_MARGIN * (600 - first.base_s), rel=0.01)
    assert found.epochs == pytest.approx(first.epochs * found.train_tokens / first.train_tokens, abs=2e-3)
    assert found.replay.answers > first.replay.answers
    same = ("evidence", "speed", "lr", "probe", "field_tokens", "base_s", "after_s", "notes")
    assert all(getattr(found, name) == getattr(first, name) for name in same)


@pytest.mark.parametrize("pace", [0.8, 1.3])
def test_what_is_left_is_taken_to_need_what_the_base_needed(pace: float) -> None:
    _, found = replanned(10, pace, 500)
    assert rest_s(found, pace) == pytest.approx(KNOWN_MARGIN * 500, rel=0.01)


def test_a_base_that_took_no_time_because_it_was_known_does_not_make_the_rest_free() -> None:
    _, found = replanned(10, 0.05, 500)
    assert found == replanned(10, QUICKEST, 500)[1]
    assert found != replanned(10, 1.0, 500)[1]
    assert replanned(10, 9.0, 500)[1] == replanned(10, SLOWEST, 500)[1]


def test_a_base_that_took_all_of_the_time_leaves_sixteen_small_steps() -> None:
    first, found = replanned(10, 2.0, 0.0)
    assert found.train_tokens == FEWEST_STEPS * SMALLEST_STEP < first.train_tokens
    assert (found.steps, found.step_tokens) == (FEWEST_STEPS, SMALLEST_STEP)
    assert first.notes == ()
    hurried = f"0 s may be too few for {FEWEST_STEPS} steps, which are made anyway"
    assert found.notes == (TOO_SHORT, hurried)


TOO_SHORT = "the time is too short to choose a strength: the adapter is measured as it is trained"


def test_a_strength_is_chosen_after_all_where_the_base_was_known() -> None:
    first, found = replanned(3, 0.05, 150)
    assert (first.evidence.choosing, first.notes) == (Choosing(), (TOO_SHORT,))
    assert found.evidence == replace(first.evidence, choosing=SMALLEST.choosing)
    assert TOO_SHORT not in found.notes
    line = "its strength is chosen among 0.5, 1, 1.25 on 14 other held-out items, 12 texts and 10 requests"
    assert line in after_base_lines(first, found, 2.0)
    assert replanned(3, 1.0, 150)[1].evidence == first.evidence


def test_a_base_that_took_longer_leaves_less_to_choose_by_and_then_nothing() -> None:
    found = [replanned(10, pace, 500)[1].evidence.choosing.field_items for pace in (0.8, 1.2, 1.5, 2.0)]
    assert found[0] == replanned(10, 1.0, 600)[0].evidence.choosing.field_items
    assert found == sorted(found, reverse=True)
    assert len(set(found)) > 2
    first, again = replanned(5, 2.0, 150)
    assert first.evidence.choosing.strengths
    assert again.evidence == replace(first.evidence, choosing=Choosing())
    assert after_base_lines(first, again, 99.0)[1:] == [f"note: {TOO_SHORT}"]
    full, fewer = replanned(20, 1.5, 700, evidence="full")
    assert set(fewer.evidence.choosing.strengths) == set(FULL_STRENGTHS)
    assert 14 <= fewer.evidence.choosing.field_items < full.evidence.choosing.field_items


@pytest.mark.parametrize("minutes", [5, 6, 8, 10, 15, 30])
@pytest.mark.parametrize("pace", [0.3, 0.8, 1.0, 1.3])
def test_where_a_strength_is_chosen_quick_evidence_costs_no_more_than_training(minutes: int, pace: float) -> None:
    """On a machine whose pace after the base is that of the base."""
    first, found = replanned(minutes, pace, 60 * minutes - pace * planned(minutes, TO_CHOOSE).base_s)
    pace = max(pace, QUICKEST)
    trained_s = rest_s(found, pace) - pace * found.after_s
    beside_s = EXTRA_STEPS * found.train_tokens / SPEED.train_tokens_per_s * max(1.0, pace)
    evidence_s = pace * (first.base_s + found.after_s) + beside_s
    if found.evidence.choosing.strengths:
        assert evidence_s < 1.001 * (trained_s - beside_s)


def test_what_was_said_of_too_little_time_is_taken_back_where_the_base_leaves_enough() -> None:
    hurried = "s may be too few for"
    first, found = replanned(1, 0.8, 60)
    assert any(hurried in note for note in first.notes)
    assert found.train_tokens > FEWEST_STEPS * SMALLEST_STEP
    assert not any(hurried in note for note in found.notes)
    assert found.notes == tuple(note for note in first.notes if hurried not in note)


def test_a_plan_that_was_made_again_says_how_long_the_base_took_and_what_is_new_of_its_notes() -> None:
    first, again = replanned(10, 2.0, 0.0)
    line, *notes = after_base_lines(first, again, 133.0)
    assert line.startswith(f"the base was measured in 133 s, planned {first.base_s:.0f}: 8,192 tokens in 16 steps fit")
    assert notes == [f"note: {note}" for note in again.notes]
    assert after_base_lines(again, again, 1.0)[1:] == []


def test_what_is_answered_for_the_reader_and_looked_at_beside_is_counted_in_the_evidence_alone() -> None:
    sizes = replace(SIZES, shown=4, looked_at_tokens=2048)
    few = EvidencePlan(2, 1, 1, 1)  # two held-out rows, so that no more are shown
    more_s = evidence_seconds(few, sizes, SPEED) - evidence_seconds(few, SIZES, SPEED)
    assert more_s == pytest.approx(2048 / 2000 + 2 * 2 * 96 / 250)
    assert evidence_seconds(EvidencePlan(0, 0, 0, 0), sizes, SPEED) == 0


@pytest.mark.parametrize("options", [{"tokens": 30_000}, {"evidence": "none"}])
def test_given_tokens_and_runs_without_evidence_are_not_planned_again(options: Any) -> None:
    first, found = replanned(10, 0.8, 500, **options)
    assert found == first


def test_more_time_than_the_epochs_need_is_left() -> None:
    first, found = replanned(10, 1.0, 60_000, max_epochs=1)
    assert found.train_tokens == int(200_000 / 0.85) > first.train_tokens
    assert found.epochs == 1
    assert found.notes == (*first.notes, "the field is trained once, no more: 235,294 tokens suffice")
