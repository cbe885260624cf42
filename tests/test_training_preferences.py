"""DPO in packs is DPO: the same loss and gradients as each conversation alone, with full logits and a second model."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metier.models.encoding import Encoded, Encoder
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.sources.examples import Example, Message
from metier.training import update
from metier.training.loop import Recipe, train
from metier.training.memory import try_longest_pack
from metier.training.preferences import BETA, branches_of, compare, pair_packs_of
from metier.training.stream import Step
from metier.training.update import train_step
from tiny import document, random_ids, tiny_model, tiny_tokenizer


def pair(n_prompt: int, n_chosen: int, n_rejected: int, seed: int) -> Encoded:
    chosen = document(random_ids(n_prompt + n_chosen, seed), f"p{seed}", n_prompt=n_prompt, ends=True)
    return replace(chosen, rejected=random_ids(n_rejected, seed + 100))


PAIRS = [pair(6, 5, 7, 1), pair(3, 8, 4, 2), pair(9, 2, 2, 3)]
TEXT = document(random_ids(12, 9), "t", n_prompt=4)
METHODS = ("lora", "dora", "pissa")


def moved_model(method: str = "lora", family: str = "llama") -> Any:
    """An adapter that is not at its start."""
    model = add_method(tiny_model(family), method, r=4, alpha=8, seed=0)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                rank = p.shape[1] // 2 if method == "pissa" else p.shape[1]
                p[:, :rank] += 0.1 * torch.randn(p[:, :rank].shape, generator=generator)
    return model.eval()


def log_probability(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, :-1]
    return -nn.functional.cross_entropy(logits[len(prompt) - 1 :], torch.tensor(answer), reduction="sum")


def plain_margins(model: Any, reference: Any, documents: list[Encoded]) -> Tensor:
    margins = []
    for d in documents:
        prompt, (chosen, rejected) = branches_of(d).stem, branches_of(d).branches
        gained = []
        for answer in (chosen, rejected):
            with torch.no_grad():
                before = log_probability(reference, prompt, answer)
            gained.append(log_probability(model, prompt, answer) - before)
        margins.append(BETA * (gained[0] - gained[1]))
    return torch.stack(margins)


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_those_of_two_models_that_read_each_answer_alone(method: str, family: str) -> None:
    model = moved_model(method, family)
    (batch,) = pair_packs_of(PAIRS, 1000)
    found = compare(PackReader(model), batch)
    found.loss.backward()
    grads = gradients(model)
    model.zero_grad(set_to_none=True)
    margins = plain_margins(model, tiny_model(family, attention="eager"), PAIRS)
    loss = -nn.functional.logsigmoid(margins).sum()
    loss.backward()
    torch.testing.assert_close(found.loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.margins, margins.detach(), rtol=1e-4, atol=1e-5)
    assert margins.abs().min() > 1e-3
    wanted = gradients(model)
    assert grads.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (grads[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_before_the_first_step_nothing_is_ahead() -> None:
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    (batch,) = pair_packs_of(PAIRS, 1000)
    found = compare(PackReader(model), batch)
    assert found.loss.item() == pytest.approx(3 * 0.693147, rel=1e-4)
    assert found.margins.abs().max() < 1e-5


def test_the_prompt_of_a_pair_is_read_once_and_packs_hold_what_they_may() -> None:
    packs = list(pair_packs_of(PAIRS, 33))
    assert [batch.n_tokens for batch in packs] == [18 + 15, 13]
    assert [len(batch.items) for batch in packs] == [4, 2]
    assert [batch.n_tokens for batch in pair_packs_of(PAIRS, 1)] == [18, 15, 13]


def step_of(*documents: Encoded) -> Step:
    return Step(documents, {"field": sum(d.n_tokens for d in documents)}, 0)


def test_training_on_preferences_puts_the_chosen_answers_ahead() -> None:
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    seen: list[Any] = []
    train(PackReader(model), lambda: itertools.repeat(step_of(*PAIRS)), Recipe(15, 3e-3, 1000), seen.append)
    assert seen[0].preference_margin == pytest.approx(0, abs=1e-5)
    assert seen[-1].preference_accuracy == 1.0
    assert seen[-1].preference_margin > 0.2
    assert seen[-1].loss < seen[0].loss


def test_memory_is_tried_with_the_longest_pack_of_pairs() -> None:
    reader, seen = PackReader(moved_model()), []
    real = reader.row_nll
    reader.row_nll = lambda batch: seen.append(batch.n_tokens) or real(batch)  # type: ignore[func-returns-value,method-assign]
    assert try_longest_pack(reader, [step_of(*PAIRS, TEXT)], 1, 1000, print) == 1000
    assert seen == [18 + 15 + 13]


def test_a_step_without_preferences_says_nothing_of_them() -> None:
    seen: list[Any] = []
    train(PackReader(moved_model()), lambda: iter([step_of(TEXT)]), Recipe(1, 1e-3, 1000), seen.append)
    assert (seen[0].preference_accuracy, seen[0].preference_margin) == (None, None)


@pytest.mark.parametrize("pack_tokens", [1000, 20, 1])
def test_texts_and_preferences_of_one_step_share_it_by_their_tokens(
    pack_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the step is cut: nats of the text, and for every token of a pair the mean loss of the pairs."""
    monkeypatch.setattr(update, "MAX_GRAD_NORM", float("inf"))
    model = moved_model()
    found: dict[str, Tensor] = {}

    class Keep(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            del closure
            found.update(gradients(model))

    optimizer = Keep([p for p in model.parameters() if p.requires_grad], lr=0.1)
    done = train_step(PackReader(model), optimizer, step_of(PAIRS[0], TEXT, *PAIRS[1:]), pack_tokens)
    margins = plain_margins(model, tiny_model(attention="eager"), PAIRS)
    nats = -log_probability(model, TEXT.ids[:4], TEXT.ids[4:])
    n_pair_tokens = 5 + 7 + 8 + 4 + 2 + 2
    loss = (nats + n_pair_tokens * -nn.functional.logsigmoid(margins).mean()) / (8 + n_pair_tokens)
    loss.backward()
    assert done.n_supervised == 8 + n_pair_tokens
    assert done.loss == pytest.approx(loss.item(), rel=1e-5)
    assert done.margins == pytest.approx(margins.tolist(), rel=1e-4)
    shares = -nn.functional.logsigmoid(margins) * n_pair_tokens / 3
    expected = [("t", 8, nats.item()), *zip(("p1", "p2", "p3"), (12, 12, 4), shares.tolist(), strict=True)]
    assert [(row.item, row.tokens) for row in done.rows] == [(item, n) for item, n, _ in expected]
    assert [row.nats for row in done.rows] == pytest.approx([n for _, _, n in expected], rel=1e-4)
    for name, gradient in gradients(model).items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def preference(chosen: str, rejected: str, prompt: str = "why?") -> Example:
    turns = (Message("user", "hello"), Message("assistant", "hi"), Message("user", prompt))
    return Example("r:1", "r", 1, "r:1", messages=(*turns, Message("assistant", chosen)), rejected=rejected)


def test_a_preference_is_encoded_as_the_prompt_and_two_answers_with_their_ends() -> None:
    encoder = Encoder(tiny_tokenizer(), 200)
    (found,) = encoder.encode(preference("the answer", "the error on"))
    branches = branches_of(found)
    decode = encoder.tokenizer.decode
    assert decode(branches.stem).endswith("<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n")
    assert [decode(b) for b in branches.branches] == ["the answer<|im_end|>", "the error on<|im_end|>"]
    assert found.n_bytes == len("the answer")
    assert found.n_tokens == branches.n_tokens


@pytest.mark.parametrize("answers", [("the answer " * 60, "no"), ("no", "the answer " * 60)])
def test_a_pair_of_which_one_answer_does_not_fit_is_left_out_whole(answers: tuple[str, str]) -> None:
    assert Encoder(tiny_tokenizer(), 120).encode(preference(*answers)) == []
