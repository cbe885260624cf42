"""One step is one update, however it is cut; what goes wrong is said with its rows."""

import os
import signal
from collections.abc import Sequence
from itertools import repeat

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from metier.errors import DataError, DivergedError
from metier.interrupts import StopAfterStep
from metier.models.encoding import Encoded
from metier.models.methods import add_method
from metier.models.packing import Pack, PackReader
from metier.training import loop, update
from metier.training.loop import Recipe, StepMetrics, Trained, train
from metier.training.stream import Step
from metier.training.update import train_step
from tiny import document, documents, random_ids, tiny_model

ROWS = [document(random_ids(21, 1), "a", n_prompt=15, ends=True), *documents(7, 16, 11, 5, seed=2)]


pytestmark = pytest.mark.usefixtures("one_thread")


def lora(seed: int = 0) -> PeftModel:
    return add_method(tiny_model(), "lora", r=4, alpha=8, seed=seed)


def step_of(rows: Sequence[Encoded], epoch: int = 0) -> Step:
    return Step(tuple(rows), {"field": sum(len(r.ids) for r in rows)}, epoch)


def weights(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def run(
    model: PeftModel, n_steps: int, stop_after: int | None = None, rows: Sequence[Encoded] = ROWS
) -> tuple[Trained, list[StepMetrics]]:
    seen: list[StepMetrics] = []
    steps = [step_of(rows[i % 3 :], epoch=i // 3) for i in range(n_steps + 2)]
    trained = train(
        PackReader(model),
        lambda: iter(steps),
        Recipe(n_steps, 1e-2, 32),
        seen.append,
        lambda: stop_after is not None and len(seen) >= stop_after,
    )
    return trained, seen


def step_gradients(pack_tokens: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, dict[str, Tensor]]:
    """(loss, gradient of the update). The optimizer does nothing: gradients are compared before Adam divides them."""
    monkeypatch.setattr(update, "MAX_GRAD_NORM", float("inf"))
    model = lora()
    found: dict[str, Tensor] = {}

    class Keep(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            del closure
            found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    optimizer = Keep([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss, _, n, *_ = train_step(PackReader(model), optimizer, step_of(ROWS), pack_tokens)
    assert n == 6 + 6 + 15 + 10 + 4
    return loss, found


def test_how_a_step_is_cut_into_packs_does_not_change_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, whole = step_gradients(10_000, monkeypatch)
    for pack_tokens in (1, 24, 40):
        cut_loss, cut = step_gradients(pack_tokens, monkeypatch)
        assert cut_loss == pytest.approx(loss, rel=1e-6)
        for name, gradient in whole.items():
            assert (cut[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_the_loss_of_a_step_is_the_mean_over_its_supervised_tokens_and_not_over_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against each document alone through the model's own forward: no padding, no prompt, the end token trained."""
    reference = tiny_model(attention="eager")
    total, n = 0.0, 0
    for row in ROWS:
        with torch.no_grad():
            logits = reference(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        nll = nn.functional.cross_entropy(logits, torch.tensor(row.ids[1:]), reduction="none")
        supervised = torch.tensor([bool(kind) for kind in row.loss[1:]])
        total, n = total + float(nll[supervised].sum()), n + int(supervised.sum())
    loss, _ = step_gradients(24, monkeypatch)
    assert loss == pytest.approx(total / n, rel=1e-5)


def test_training_lowers_the_loss_and_moves_the_adapter_only() -> None:
    model = lora()
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" not in name}
    before = weights(model)
    trained, seen = run(model, 12)
    assert seen[-1].loss < seen[0].loss - 0.5
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights(model).items())
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert trained.n_steps == len(seen) == 12
    assert not model.training


def test_each_step_moves_the_weights_by_the_rate_of_the_schedule() -> None:
    """Adam's first step moves each weight by the rate, whatever its gradient; B starts at zero."""
    model = lora()
    _, (first,) = run(model, 100, stop_after=1)
    assert first.lr == pytest.approx(0.2 * 1e-2)
    b = torch.cat([tensor.flatten() for name, tensor in weights(model).items() if "lora_B" in name])
    assert b.abs().median().item() == pytest.approx(first.lr, rel=1e-3)


def test_the_metrics_add_up_to_what_was_trained() -> None:
    trained, seen = run(lora(), 4)
    assert [m.step for m in seen] == [1, 2, 3, 4]
    assert [m.epoch for m in seen] == [0, 0, 0, 1]
    assert trained.n_tokens == sum(m.tokens for m in seen)
    assert trained.n_supervised == sum(m.supervised_tokens for m in seen)
    assert trained.n_documents == 5 + 4 + 3 + 5
    assert trained.seconds == pytest.approx(sum(m.seconds for m in seen))
    assert all(m.tokens_per_s == pytest.approx(m.tokens / m.seconds) for m in seen)
    assert not trained.interrupted


def test_the_learned_bytes_of_an_item_count_each_window_once_however_many_epochs() -> None:
    first, second = (Encoded("t", r.ids, r.loss, n_bytes=10 * (w + 1), window=w) for w, r in enumerate(ROWS[1:3]))
    done = Trained()
    for epoch in range(3):
        loop._count(done, step_of([first, second, ROWS[0]], epoch), 30, 1.0)
    assert done.bytes_by_item == {"t": 30, "a": 21}


def test_the_same_seed_gives_the_same_losses_and_the_same_adapter_bit_by_bit() -> None:
    first, again, other = lora(), lora(), lora(seed=1)
    losses = [[m.loss for m in run(model, 5)[1]] for model in (first, again, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    one, two = weights(first), weights(again)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_interrupt_after_a_step_leaves_the_weights_of_whole_steps() -> None:
    """Three of five steps: what a run whose data ends after the same three steps has."""
    interrupted, whole = lora(), lora()
    trained, seen = run(interrupted, 5, stop_after=3)
    assert trained.interrupted
    assert trained.n_steps == len(seen) == 3
    steps = [step_of(ROWS[i % 3 :]) for i in range(3)]
    assert not train(PackReader(whole), lambda: iter(steps), Recipe(5, 1e-2, 32), lambda _: None).interrupted
    one, two = weights(interrupted), weights(whole)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not interrupted.training


def test_a_signal_ends_the_run_after_the_step_in_hand_and_a_second_one_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with StopAfterStep(said.append) as stop:
        trained = train(
            PackReader(lora()),
            lambda: repeat(step_of(ROWS)),
            Recipe(5, 1e-2, 32),
            lambda _: os.kill(os.getpid(), signal.SIGINT),
            stop.requested,
        )
        assert trained.n_steps == 1
        assert trained.interrupted
        assert said == ["Stopping after this step; Ctrl-C again stops at once."]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_to_stop_too() -> None:
    with StopAfterStep(lambda _: None) as stop:
        assert not stop.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested()


def test_a_step_without_a_supervised_token_is_an_error_that_names_its_rows() -> None:
    masked = [document(random_ids(5, 1), "rows.jsonl:7", n_prompt=5)]
    with pytest.raises(DataError, match=r"no supervised tokens in a step \(rows\.jsonl:7\)"):
        train(PackReader(lora()), lambda: iter([step_of(masked)]), Recipe(1, 1e-2, 32), lambda _: None)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_names_the_rows_and_leaves_the_weights(
    poison: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lora()
    before = weights(model)
    reader = PackReader(model)
    real = reader.row_nll

    def poisoned(batch: Pack) -> tuple[Tensor, Tensor]:
        nll, by_row = real(batch)
        if poison == "loss":
            return nll * float("nan"), by_row
        nll.register_hook(lambda gradient: gradient * float("inf"))
        return nll, by_row

    monkeypatch.setattr(reader, "row_nll", poisoned)
    with pytest.raises(DivergedError, match=r"at rows a, d0, d1, d2, d3: lower --lr"):
        train(reader, lambda: repeat(step_of(ROWS)), Recipe(3, 1e-2, 32), lambda _: None)
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


def test_a_long_list_of_rows_is_cut() -> None:
    masked = [document(random_ids(3, i), f"r{i}", n_prompt=3) for i in range(11)]
    with pytest.raises(DataError, match=r"r7 and 3 more\)"):
        train(PackReader(lora()), lambda: iter([step_of(masked)]), Recipe(1, 1e-2, 32), lambda _: None)


def test_the_gradient_is_clipped_to_a_norm_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clipped: list[float] = []

    class Watch(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            del closure
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            clipped.append(float(torch.stack([g.norm() for g in grads]).norm()))

    model = lora()
    watch = Watch([p for p in model.parameters() if p.requires_grad], lr=0.1)
    _, norm, *_ = train_step(PackReader(model), watch, step_of(ROWS), 64)
    limit = norm / 2
    monkeypatch.setattr(update, "MAX_GRAD_NORM", limit)
    _, again, *_ = train_step(PackReader(model), watch, step_of(ROWS), 64)
    assert again == pytest.approx(norm)
    assert clipped[-1] == pytest.approx(limit, rel=1e-4)
