"""The learning rate is tried on the run itself: the best one's steps are kept, only the others' are lost."""

import math
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from metier.errors import DivergedError
from metier.models.adapters import disabled
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.training import probe as probing
from metier.training.loop import Recipe, StepMetrics, train
from metier.training.probe import (
    MAX_SHARE,
    READING_COST,
    STEPS,
    Judge,
    Probed,
    ProbePlan,
    probe,
    probe_plan,
)
from metier.training.stream import Step
from tiny import document, documents, random_ids, tiny_model

N_STEPS, PACK = 12, 64
HELD_OUT = documents(9, 14, 11, seed=50)
GENERAL = documents(12, 10, seed=80)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lora() -> PeftModel:
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    assert isinstance(model, PeftModel)
    return model


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def stream() -> Iterator[Step]:
    """The held-out rows are learned, so that every sound rate improves on them."""
    rows = [*HELD_OUT, *documents(8, 13, seed=3)]
    return iter(
        [Step(tuple(rows[i % 3 :]), {"field": sum(len(r.ids) for r in rows[i % 3 :])}, 0) for i in range(N_STEPS)]
    )


def tried(
    *rates: float, model: PeftModel | None = None, steps: int = 4, stop_after: int | None = None, at: Any = None
) -> tuple[Probed, PackReader]:
    reader, seen = PackReader(model or lora()), list[StepMetrics]()
    judge = Judge(reader, HELD_OUT, GENERAL, PACK)

    def stop() -> bool:
        return stop_after is not None and len(seen) >= stop_after

    def on_step(metrics: StepMetrics) -> None:
        seen.append(metrics)
        if at is not None:
            at(metrics)

    found = probe(reader, stream, ProbePlan(rates, steps, 0), Recipe(N_STEPS, 0.0, PACK), judge, on_step, stop)
    return found, reader


def test_a_rate_that_is_far_too_high_is_not_chosen_though_it_is_the_tables() -> None:
    found, _ = tried(3.0, 1e-2)
    high, low = found.tried
    assert found.lr == low.lr == 1e-2
    assert high.judged is not None
    assert low.judged is not None
    assert high.judged > found.base_bits_per_byte > low.judged


def test_forgetting_counts_against_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The higher of two sound rates is better on the field; a heavy weight on general text turns the choice."""
    assert tried(3e-2, 1e-3)[0].lr == 3e-2
    monkeypatch.setattr(probing, "KL_WEIGHT", 50.0)
    assert tried(3e-2, 1e-3)[0].lr == 1e-3


@pytest.mark.parametrize("rates", [(1e-2, 3.0), (3.0, 1e-2)])
def test_going_on_after_the_probe_is_the_run_at_that_rate_from_its_start_to_the_bit(rates: tuple[float, ...]) -> None:
    found, reader = tried(*rates)
    first = [metrics for metrics, _ in found.begun.steps]
    later: list[StepMetrics] = []
    trained = train(reader, stream, Recipe(N_STEPS, found.lr, PACK), later.append, begun=found.begun)
    alone, whole = lora(), list[StepMetrics]()
    expected = train(PackReader(alone), stream, Recipe(N_STEPS, 1e-2, PACK), whole.append)
    one, two = weights(reader.model), weights(alone)
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert [(m.step, m.lr, m.loss) for m in (*first, *later)] == [(m.step, m.lr, m.loss) for m in whole]
    assert (trained.n_steps, trained.n_tokens, trained.windows) == (N_STEPS, expected.n_tokens, expected.windows)


def test_the_same_probe_again_gives_the_same_judgements() -> None:
    first, second = (tried(1e-2, 2e-2, 5e-3)[0] for _ in range(2))
    assert [t.judged for t in first.tried] == [t.judged for t in second.tried]


def test_the_costs_add_up() -> None:
    found, _ = tried(1e-2, 2e-2, 5e-3)
    told = found.as_json()
    first = sum(step.n_tokens for step, _ in zip(stream(), range(4), strict=False))
    assert [t["tokens"] for t in told["tried"]] == [first] * 3
    assert told["lost_tokens"] == 2 * first
    assert found.begun.done.n_tokens == sum(m.tokens for m, _ in found.begun.steps) == first
    everything = sum(t["seconds"] for t in told["tried"])
    assert told["lost_seconds"] + found.begun.done.seconds == pytest.approx(everything)
    assert told["judging_tokens"] == 4 * sum(len(d.ids) for d in (*HELD_OUT, *GENERAL))
    assert told["judging_seconds"] > 0
    assert told["steps"] == 4


def test_the_judgement_is_the_bits_of_held_out_rows_plus_the_divergence_from_the_base() -> None:
    """Against each document alone, with full logits."""
    model = lora()
    reader = PackReader(model)
    judge = Judge(reader, HELD_OUT, GENERAL, PACK)
    assert judge()[1] == 0
    train(reader, stream, Recipe(N_STEPS, 3e-2, PACK), lambda _: None)
    field, kl = judge()
    nats = expected_kl = 0.0
    with torch.no_grad():
        for row in HELD_OUT:
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
            nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[1:]), reduction="sum"))
        for row in GENERAL:
            now = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
            with disabled(model):
                base = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
            expected_kl += float(torch.nn.functional.kl_div(now, base, log_target=True, reduction="sum"))
    assert field == pytest.approx(nats / math.log(2) / sum(d.n_bytes for d in HELD_OUT), rel=1e-5)
    assert kl == pytest.approx(expected_kl / math.log(2) / sum(d.n_bytes for d in GENERAL), rel=1e-4)


def test_a_rate_that_diverges_is_not_chosen_and_when_all_do_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    real = probing.train

    def poisoned(reader: PackReader, steps: Any, recipe: Recipe, *rest: Any, **named: Any) -> Any:
        if recipe.peak_lr > 1e-2:
            raise DivergedError(f"{recipe.peak_lr} diverged")
        return real(reader, steps, recipe, *rest, **named)

    monkeypatch.setattr(probing, "train", poisoned)
    found, _ = tried(2e-2, 1e-2)
    assert found.lr == 1e-2
    assert found.tried[0].judged is None
    assert "0.02: diverged" in found.line()
    with pytest.raises(DivergedError, match=r"0\.03 diverged"):
        tried(2e-2, 3e-2)


def test_stopped_at_the_first_rate_it_leaves_the_steps_made_so_far_and_later_the_best_that_was_judged() -> None:
    early, reader = tried(1e-2, 2e-2, stop_after=3)
    assert (early.lr, early.begun.done.n_steps, early.begun.done.interrupted) == (1e-2, 3, True)
    alone = lora()
    train(PackReader(alone), lambda: islice(stream(), 3), Recipe(N_STEPS, 1e-2, PACK), lambda _: None)
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(reader.model).items())
    late, _ = tried(1e-2, 2e-2, stop_after=6)
    assert (late.lr, late.begun.done.n_steps, late.begun.done.interrupted) == (1e-2, 4, True)


@pytest.mark.parametrize("tokens", [10_000, 200_000, 350_000, 400_000, 10**7])
def test_a_probe_costs_a_quarter_of_training_at_most_or_there_is_none(tokens: int) -> None:
    found = probe_plan(tokens, 2048, 4000, 1e-3)
    cost = 2 * STEPS * 2048 + 4 * 4000 * READING_COST
    assert (found is not None) == (cost <= MAX_SHARE * tokens)
    if found:
        assert (found.cost_tokens, found.steps) == (cost, STEPS)
        assert found.rates == (1e-3, 2e-3, 5e-4)


def test_a_general_answer_is_read_to_a_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "KL_POSITIONS", 3)
    judge = Judge(PackReader(lora()), HELD_OUT, [document(random_ids(20, 1), n_prompt=5)], PACK)
    assert judge.base[0].shape == (3, 300)


def test_without_general_answers_the_field_alone_judges() -> None:
    reader = SimpleNamespace(token_nll=lambda batch: torch.ones(len(batch.labels)), inner=None)
    field, kl = Judge(reader, HELD_OUT, [], PACK)()  # type: ignore[arg-type]
    assert (round(field * math.log(2) * 34, 4), kl) == (31.0, 0.0)
