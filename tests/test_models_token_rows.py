"""Rows of new tokens: they start from their pieces, only they are trained, and without them the base is the base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from metier.errors import ModelError
from metier.models.adapters import disabled, load_adapter, weights_moved
from metier.models.decoding import continue_all
from metier.models.encoding import Encoder
from metier.models.methods import add_method, n_trained
from metier.models.packing import PackReader, pack
from tiny import VOCABULARY, document, documents, random_ids, tiny_model, tiny_tokenizer

FIRST, SECOND = VOCABULARY, VOCABULARY + 1
PIECES = {FIRST: (11, 12, 13), SECOND: (21, 22)}
WITH_NEW = [document((5, FIRST, 9, SECOND, *random_ids(9, 1), FIRST), "a"), document((7, 8, SECOND, 30), "b")]
WITHOUT = documents(12, 7)
TIES = pytest.mark.parametrize("tied", [True, False])


def added(method: str = "tokens", tied: bool = True, attention: str = "metier") -> PeftModel:
    model = tiny_model("llama", attention, tie_word_embeddings=tied)
    adapted: PeftModel = add_method(model, method, r=4, alpha=8, seed=0, new_tokens=PIECES)
    return adapted


def moved(model: PeftModel) -> PeftModel:
    """Every trained number away from its start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 0.2 * torch.randn(p.shape, generator=generator)
    return model


def plain_loss(model: Any) -> Tensor:
    """Through PEFT's and the model's own forward, full logits, each document alone."""
    total = torch.zeros(())
    for d in WITH_NEW:
        ids = torch.tensor([d.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        total = total + nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    return total


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@TIES
def test_a_row_starts_at_the_mean_of_its_pieces_in_embedding_and_head(tied: bool) -> None:
    base = tiny_model("llama", tie_word_embeddings=tied)
    embedding, head = base.get_input_embeddings().weight, base.get_output_embeddings().weight
    model = added(tied=tied).merge_and_unload()
    for token, pieces in PIECES.items():
        torch.testing.assert_close(model.get_input_embeddings().weight[token], embedding[list(pieces)].mean(0))
        torch.testing.assert_close(model.get_output_embeddings().weight[token], head[list(pieces)].mean(0))


@TIES
@pytest.mark.parametrize("method", ["tokens", "lora", "dora"])
def test_packs_give_the_loss_and_the_gradients_of_the_plain_path(method: str, tied: bool) -> None:
    fast, plain = moved(added(method, tied)), moved(added(method, tied, attention="eager"))
    reader = PackReader(fast)
    assert not reader.why_plain
    loss, expected = reader.summed_nll(pack(WITH_NEW)), plain_loss(plain)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    found, wanted = gradients(fast), gradients(plain)
    assert any("trainable_tokens" in name for name in found)
    assert sum("trainable_tokens" in name for name in found) == (1 if tied else 2)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-5 * float(wanted[name].abs().max()))


@TIES
def test_only_the_new_rows_are_trained(tied: bool) -> None:
    model = added(tied=tied)
    assert n_trained(model, "tokens") == (1 if tied else 2) * len(PIECES) * 32
    assert n_trained(added("lora", tied), "lora") == n_trained(model, "tokens") + n_trained(_lora(tied), "lora")
    assert weights_moved(model) == 0
    assert weights_moved(moved(model)) > 0.1


def _lora(tied: bool) -> Any:
    return add_method(tiny_model("llama", tie_word_embeddings=tied), "lora", r=4, alpha=8, seed=0)


@TIES
@pytest.mark.parametrize("method", ["tokens", "lora"])
def test_switched_off_the_base_neither_scores_nor_writes_the_new_tokens(method: str, tied: bool) -> None:
    base = PackReader(tiny_model("llama", tie_word_embeddings=tied))
    model = added(method, tied)
    with torch.no_grad():  # rows that would win often, and so would what stands in their places in the base
        for name, p in model.named_parameters():
            if "trainable_tokens" in name:
                p.mul_(50)
            if "base_layer" in name and len(p) > VOCABULARY:
                p[VOCABULARY:] = 50 * p[:2]
    reader = PackReader(model)
    encoder = Encoder(tiny_tokenizer(), 512)
    prompts = [list(random_ids(9, seed)) for seed in range(4)]
    expected = continue_all(base.model, prompts, 12, encoder.ends)
    on = continue_all(model, prompts, 12, encoder.ends)
    assert any(token >= VOCABULARY for row in on for token in row)
    with disabled(model):
        assert torch.equal(reader.token_nll(pack(WITHOUT)), base.token_nll(pack(WITHOUT)))
        assert continue_all(model, prompts, 12, encoder.ends) == expected
    assert not torch.allclose(reader.token_nll(pack(WITHOUT)), base.token_nll(pack(WITHOUT)))


@TIES
@pytest.mark.parametrize("method", ["tokens", "lora"])
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_what_is_saved_is_small_and_loads_as_it_was(method: str, tied: bool, tmp_path: Path) -> None:
    model = moved(added(method, tied))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = PackReader(model).token_nll(pack(WITH_NEW))
    loaded = load_adapter(tiny_model("llama", tie_word_embeddings=tied), tmp_path, new_tokens=PIECES)
    torch.testing.assert_close(PackReader(loaded).token_nll(pack(WITH_NEW)), expected, rtol=1e-5, atol=1e-5)
    theirs = tiny_model("llama", tie_word_embeddings=tied)
    theirs.resize_token_embeddings(VOCABULARY + len(PIECES), mean_resizing=False)
    ids = torch.tensor([WITH_NEW[0].ids])
    with torch.no_grad():
        found = PeftModel.from_pretrained(theirs, tmp_path)(input_ids=ids).logits
        torch.testing.assert_close(found, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 4 * VOCABULARY * 32 + 4 * n_trained(model, method)


@TIES
@pytest.mark.parametrize("method", ["tokens", "lora"])
def test_the_dial_moves_the_rows_from_their_start(method: str, tied: bool, tmp_path: Path) -> None:
    moved(added(method, tied)).save_pretrained(tmp_path, save_embedding_layers=False)

    def merged(dial: float) -> dict[str, Tensor]:
        base = tiny_model("llama", tie_word_embeddings=tied)
        state: dict[str, Tensor] = load_adapter(base, tmp_path, dial, PIECES).merge_and_unload().state_dict()
        return state

    off, half, full = merged(0.0), merged(0.5), merged(1.0)
    start = added(tied=tied).merge_and_unload().state_dict()
    for name in full:
        torch.testing.assert_close(off[name], start[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(half[name], torch.lerp(off[name], full[name], 0.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(full["model.embed_tokens.weight"][FIRST], off["model.embed_tokens.weight"][FIRST])


def test_a_head_with_a_bias_is_refused() -> None:
    model = tiny_model("llama")
    model.set_output_embeddings(nn.Linear(32, VOCABULARY, bias=True))
    with pytest.raises(ModelError, match="has a bias in its head"):
        add_method(model, "tokens", r=4, alpha=8, seed=0, new_tokens=PIECES)
