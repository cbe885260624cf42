"""The divergence of packs equals that of the model's own logits, document by document."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from metier.models.adapters import disabled
from metier.models.attention import NAME
from metier.models.divergence import BesideBase, KeepingBase
from metier.models.encoding import Encoded
from metier.models.packing import Pack, PackReader, pack
from tiny import document, documents, random_ids, tiny_model

MIXED = [document(random_ids(19, 1), "a", n_prompt=8), *documents(7, 15, seed=2), document(random_ids(90, 4), "long")]


def adapted(family: str, attention: str = NAME) -> PackReader:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(family, attention), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return PackReader(model.eval())


def divergence(reader: PackReader, batch: Pack, kept: bool = True) -> torch.Tensor:
    """(4, N), with the base read first or not."""
    base = KeepingBase(reader)
    if kept:
        with disabled(reader.model):
            nats = base.per_token(batch)
            torch.testing.assert_close(nats, reader.per_token(batch))
    return BesideBase(base).per_token(batch)


@torch.no_grad()
def plain(reader: PackReader, one: Encoded) -> torch.Tensor:
    """(4, supervised tokens), by whole matrices of logits."""
    ids = torch.tensor([one.ids])
    with reader.model.disable_adapter():
        base = functional.log_softmax(reader.model(input_ids=ids).logits[0], -1)
    now = functional.log_softmax(reader.model(input_ids=ids).logits[0], -1)
    rows = [i - 1 for i, loss in enumerate(one.loss) if loss]
    kl = functional.kl_div(now[rows], base[rows], log_target=True, reduction="none").sum(1)
    entropies = (torch.distributions.Categorical(logits=logits[rows]).entropy() for logits in (base, now))
    nats = functional.cross_entropy(now[rows], ids[0, [row + 1 for row in rows]], reduction="none")
    return torch.stack([nats, kl, *entropies])


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_it_is_that_of_each_document_alone(family: str) -> None:
    reader = adapted(family)
    batch = pack(MIXED)
    found = divergence(reader, batch)
    by_item = {one.item: plain(reader, one) for one in MIXED}
    for number, item in enumerate(batch.items):
        torch.testing.assert_close(found[:, batch.owners == number], by_item[item], rtol=1e-4, atol=1e-5)
    assert float(found[1].min()) > 0
    torch.testing.assert_close(found[0], reader.token_nll(batch), rtol=1e-5, atol=1e-5)


def test_what_the_base_made_of_a_pack_is_kept_and_of_another_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, batch = adapted("llama"), pack(MIXED)
    read, states = [], reader.states
    monkeypatch.setattr(reader, "states", lambda one: read.append(one) or states(one))
    found = divergence(reader, batch)
    assert len(read) == 3  # by the base, by the base again for the test's own sake, by the adapted model
    torch.testing.assert_close(divergence(reader, batch, kept=False), found)
    assert len(read) == 5
    base = KeepingBase(reader)
    with disabled(reader.model):
        base.per_token(pack(MIXED[1:]))
    torch.testing.assert_close(BesideBase(base).per_token(batch), found)


def test_a_model_that_reads_each_document_alone_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, batch = adapted("llama"), pack(MIXED)
    packed = divergence(reader, batch)
    monkeypatch.setattr(reader, "why_plain", "for the test")
    base = KeepingBase(reader)
    base.per_token(batch)
    assert not base._kept  # whole logits
    torch.testing.assert_close(divergence(reader, batch), packed, rtol=1e-4, atol=1e-5)


def test_chunks_of_the_vocabulary_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, batch = adapted("llama"), pack(MIXED)
    whole = divergence(reader, batch)
    monkeypatch.setattr("metier.models.divergence.chunk_rows", lambda *_: 7)
    torch.testing.assert_close(divergence(reader, batch), whole)


def test_an_adapter_that_changes_nothing_diverges_by_nothing() -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    _, kl, base, now = divergence(PackReader(get_peft_model(tiny_model(), config)), pack(MIXED))
    assert kl.abs().max() == 0
    assert torch.equal(base, now)
