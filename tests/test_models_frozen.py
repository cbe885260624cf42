"""Kept outputs of frozen layers change the time and nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from metier.models.attention import NAME
from metier.models.encoding import Encoded
from metier.models.frozen import LowerOutputs, lower_outputs_kept, pieces
from metier.models.methods import add_method, decoder_layers
from metier.models.packing import Branches, Pack, PackReader, pack, pack_branches
from tiny import document, documents, random_ids, tiny_model

ROWS = [document(random_ids(19, 1), "a", n_prompt=8), *documents(7, 15, 4, seed=2)]
STEMS = [Branches("s", random_ids(6, 7), (random_ids(5, 8), random_ids(3, 9))), Branches("t", (3, 4), ((5,), (6, 7)))]
EPOCHS = [
    [pack(ROWS[:2]), pack(ROWS[2:]), pack_branches(STEMS)],
    [pack([ROWS[3], ROWS[1]]), pack_branches(STEMS[::-1]), pack([ROWS[2], ROWS[0]])],
    [pack(ROWS[::-1]), pack_branches([STEMS[1]])],
]


def model_of(family: str = "llama", attention: str = NAME) -> Any:
    return add_method(
        tiny_model(family, attention, num_hidden_layers=3, layer_types=["full_attention"] * 3)
        if family != "gemma3"
        else tiny_model(family),
        "lora",
        r=4,
        alpha=8,
        seed=0,
        top_layers=1,
    )


def n_lower(model: Any) -> int:
    return len(decoder_layers(model)[1]) - 1


def losses(reader: PackReader, packs: Sequence[Pack]) -> Iterator[float]:
    """Of a step of gradient descent on each pack, before it."""
    for batch in packs:
        loss = reader.summed_nll(batch) / len(batch.labels)
        loss.backward()
        with torch.no_grad():
            for p in reader.model.parameters():
                if p.grad is not None:
                    p -= 0.05 * p.grad
                    p.grad = None
        yield loss.item()


@pytest.mark.parametrize(
    ("family", "attention"), [("llama", NAME), ("gpt2", NAME), ("gemma3", NAME), ("mistral", NAME), ("llama", "eager")]
)
def test_epochs_with_kept_outputs_have_the_losses_of_those_without(family: str, attention: str) -> None:
    packs = [batch for epoch in EPOCHS for batch in epoch]
    expected = list(losses(PackReader(model_of(family, attention)), packs))
    model = model_of(family, attention)
    reader = PackReader(model)
    with lower_outputs_kept(model.get_base_model(), n_lower(model)) as kept:
        found = list(losses(reader, packs))
    assert found == pytest.approx(expected, rel=1e-5)
    assert expected[-1] != pytest.approx(expected[0], rel=1e-2)
    assert kept.hits > kept.misses


def test_from_the_second_epoch_on_the_lower_layers_do_not_run() -> None:
    model = model_of()
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    lowest, uppermost = (decoder_layers(model)[1][i].self_attn for i in (0, 2))
    with lower_outputs_kept(model.get_base_model(), 2):
        reader = PackReader(model)
        for module in (lowest, uppermost):
            module.register_forward_hook(count)
        for epoch in EPOCHS:
            before = runs
            for batch in epoch:
                reader.summed_nll(batch)
            ran = runs - before
            assert ran == (2 * len(epoch) if epoch is EPOCHS[0] else len(epoch))


def test_afterwards_the_model_is_as_it_was() -> None:
    model = model_of()
    reader = PackReader(model)
    before = reader.token_nll(EPOCHS[0][0])
    with lower_outputs_kept(model.get_base_model(), 2):
        list(losses(reader, EPOCHS[0][:1]))
    with torch.no_grad():
        for p in decoder_layers(model)[1][0].parameters():
            p += 0.1
    assert not torch.allclose(reader.token_nll(EPOCHS[0][0]), before, atol=1e-2)
    assert all("forward" not in vars(layer) for layer in decoder_layers(model)[1])


def test_no_more_is_kept_than_the_limit_and_the_rest_is_computed() -> None:
    expected = list(losses(PackReader(model_of()), EPOCHS[0] * 2))
    model = model_of()
    reader = PackReader(model)
    limit = 26 * 32 * 4  # the first pack
    with lower_outputs_kept(model.get_base_model(), 2, limit_bytes=limit) as kept:
        found = list(losses(reader, EPOCHS[0] * 2))
    assert found == pytest.approx(expected, rel=1e-5)
    assert kept.n_bytes == limit
    assert kept.hits == 1


def test_the_pieces_of_a_pack_are_its_documents_and_branches() -> None:
    batch = pack_branches(STEMS)
    found = list(pieces(batch.input_ids[0], batch.position_ids))
    assert [(p.own.start, p.own.stop) for p in found] == [(0, 11), (11, 14), (14, 17), (17, 19)]
    assert [(p.stem.start, p.stem.stop) for p in found] == [(0, 0), (0, 6), (14, 14), (14, 16)]

    def tokens(*ids: int) -> bytes:
        return torch.tensor(ids).numpy().tobytes()

    assert found[1].tokens == tokens(*STEMS[0].stem, *STEMS[0].branches[1])
    assert found[3].tokens == tokens(3, 4, 6, 7)
    assert list(pieces(torch.tensor([5, 6, 7]), None)) == [(tokens(5, 6, 7), slice(0, 0), slice(0, 3))]


def test_the_same_tokens_after_another_stem_are_another_piece() -> None:
    kept = LowerOutputs()
    first, second = (pack_branches([Branches("s", stem, ((7, 8), (9,)))]) for stem in ((3, 4), (5, 6)))
    kept.begin(first.input_ids, first.position_ids)
    kept.keep(torch.zeros(1, 5, 2))
    kept.begin(second.input_ids, second.position_ids)
    assert kept.replayed is None
    kept.begin(first.input_ids, first.position_ids)
    assert kept.replayed is not None
    assert kept.replayed.shape == (1, 5, 2)


def test_a_document_that_was_read_behind_a_stem_is_known_alone_and_behind_another_part_of_its_start() -> None:
    kept = LowerOutputs()
    shared = pack_branches([Branches("s", (3, 4), ((7, 8), (9,)))])
    kept.begin(shared.input_ids, shared.position_ids)
    kept.keep(torch.arange(10.0).view(1, 5, 2))
    alone = pack([Encoded("d", (3, 4, 9), ROWS[0].loss[:3], 0)])
    kept.begin(alone.input_ids, alone.position_ids)
    assert kept.replayed is not None
    assert kept.replayed[0].tolist() == [[0, 1], [2, 3], [8, 9]]
    other = pack_branches([Branches("s", (3,), ((4, 9), (4, 7, 8)))])
    kept.begin(other.input_ids, other.position_ids)
    assert kept.replayed is not None
    assert kept.replayed[0].tolist() == [[0, 1], [2, 3], [8, 9], [2, 3], [4, 5], [6, 7]]
