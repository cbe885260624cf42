"""Packs are exact: a document in a pack is what it is alone, in every architecture that takes the fast path."""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    PreTrainedModel,
)

from metier.models.encoding import Encoded, Loss
from metier.models.methods import add_method
from metier.models.packing import Branches, PackReader, pack, pack_branches, packs_of
from tiny import FAMILIES, SLIDING_WINDOW, document, documents, random_ids, tiny_model

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = (5, 23, 9, 14)
assert max(LENGTHS) > 2 * SLIDING_WINDOW


def alone(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """Nats of ids[1:], from full logits of the model's own forward."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    return nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_the_fast_path(family: str) -> None:
    assert PackReader(tiny_model(family)).why_plain == ""


@pytest.mark.parametrize("own", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_in_a_pack_scores_as_it_does_alone_with_the_models_own_attention(family: str, own: str) -> None:
    rows = documents(*LENGTHS)
    found = PackReader(tiny_model(family)).token_nll(pack(rows))
    reference = tiny_model(family, attention=own)
    torch.testing.assert_close(found, torch.cat([alone(reference, row.ids) for row in rows]), **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_changing_one_document_leaves_every_other_exactly_as_it_was(family: str) -> None:
    rows = documents(*LENGTHS)
    reader = PackReader(tiny_model(family))
    batch, changed = pack(rows), pack([*rows[:1], document(random_ids(LENGTHS[1], seed=99)), *rows[2:]])
    before, after = reader.token_nll(batch), reader.token_nll(changed)
    others = batch.owners != 1
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[~others], after[~others])


@pytest.mark.parametrize("family", FAMILIES)
def test_each_branch_scores_as_it_does_alone_after_the_stem(family: str) -> None:
    """The stem with all branches is longer than the sliding window; a branch alone behind it is not always."""
    stems = [
        Branches("a", random_ids(5, 1), (random_ids(3, 2), random_ids(4, 3), random_ids(2, 4))),
        Branches("b", random_ids(12, 5), (random_ids(6, 6), random_ids(9, 7))),
    ]
    batch = pack_branches(stems)
    found = PackReader(tiny_model(family)).token_nll(batch)
    reference = tiny_model(family, attention="eager")
    expected = [alone(reference, s.stem + branch)[len(s.stem) - 1 :] for s in stems for branch in s.branches]
    torch.testing.assert_close(found, torch.cat(expected), **CLOSE)
    assert batch.items == ("a#0", "a#1", "a#2", "b#0", "b#1")
    assert torch.bincount(batch.owners).tolist() == [3, 4, 2, 6, 9]


def leaking_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: object
) -> tuple[Tensor, None]:
    """Causal over the whole pack, whoever the documents belong to."""
    del module, mask, options
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    out = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.transpose(1, 2), None


def test_a_model_that_leaks_between_documents_is_run_plainly_and_says_why() -> None:
    AttentionInterface.register("leaking", leaking_attention)
    AttentionMaskInterface.register("leaking", lambda *_, **__: None)
    reader = PackReader(tiny_model("llama", attention="leaking"))
    assert reader.why_plain == "LlamaForCausalLM does not keep packed documents apart"
    rows = documents(*LENGTHS)
    reference = tiny_model("llama", attention="eager")
    torch.testing.assert_close(
        reader.token_nll(pack(rows)), torch.cat([alone(reference, row.ids) for row in rows]), **CLOSE
    )
    torch.testing.assert_close(reader.summed_nll(pack(rows)), reader.token_nll(pack(rows)).sum())
    stem = Branches("a", random_ids(5, 1), (random_ids(3, 2), random_ids(4, 3)))
    expected = torch.cat([alone(reference, stem.stem + branch)[4:] for branch in stem.branches])
    torch.testing.assert_close(reader.token_nll(pack_branches([stem])), expected, **CLOSE)


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        # Its own eager attention keeps documents apart by their position ids, but cuts the second branch from the stem.
        (
            Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0),
            "Gemma2ForCausalLM does not keep packed documents apart",
        ),
        # It scales its logits after the head.
        (GraniteConfig(**SIZES, logits_scaling=4.0), "GraniteForCausalLM does not keep packed documents apart"),
    ],
    ids=["gemma2", "granite"],
)
def test_an_architecture_that_the_fast_path_does_not_compute_is_run_plainly_and_rightly(
    config: Gemma2Config | GraniteConfig, why: str
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    reader = PackReader(model)
    assert reader.why_plain == why
    stem = Branches("a", random_ids(5, 1), (random_ids(3, 2), random_ids(4, 3)))
    expected = torch.cat([alone(model, stem.stem + branch)[4:] for branch in stem.branches])
    torch.testing.assert_close(reader.token_nll(pack_branches([stem])), expected, **CLOSE)


def test_asking_whether_a_model_reads_packs_leaves_its_mode_as_it_was() -> None:
    model = tiny_model().train()
    PackReader(model)
    assert model.training


def test_a_pack_has_no_padding_and_positions_restart_in_each_document() -> None:
    rows = documents(3, 2, 4)
    batch = pack(rows)
    assert batch.input_ids.tolist() == [[*rows[0].ids, *rows[1].ids, *rows[2].ids]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch.n_tokens == 9
    assert batch.segments == ((3,), (2,), (4,))


OPENING = tuple(range(100, 112))


def opened(*rest: int, item: str = "d", n_prompt: int = 14) -> Encoded:
    return document((*OPENING, *rest), item, n_prompt)


def test_what_all_documents_begin_with_stands_in_the_pack_once() -> None:
    batch = pack([opened(1, 2, 3, item="a"), document((5, 6)), opened(4, 2, 3, 7, item="b")])
    assert batch.input_ids.tolist() == [[*OPENING, 1, 2, 3, 4, 2, 3, 7, 5, 6]]
    assert batch.position_ids.tolist() == [[*range(12), 12, 13, 14, 12, 13, 14, 15, 0, 1]]
    assert batch.segments == ((12, 3, 4), (2,))
    assert batch.items == ("a", "b", "d")
    assert batch.labels.tolist() == [3, 3, 7, 6]
    assert batch.owners.tolist() == [0, 1, 1, 2]


def test_a_token_with_loss_is_never_shared_and_every_document_keeps_one_of_its_own() -> None:
    rows = [opened(1, 2, item="a", n_prompt=9), opened(1, 2, item="b", n_prompt=13)]
    batch = pack(rows)
    assert batch.segments == ((9, 5, 5),)
    assert batch.labels.tolist() == [*OPENING[9:], 1, 2, 2]
    prompts_alone = pack([document(OPENING, n_prompt=12), document(OPENING, n_prompt=12)])
    assert prompts_alone.segments == ((11, 1, 1),)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_behind_a_shared_stem_scores_as_it_does_alone(family: str) -> None:
    rows = [opened(1, 2, 3, 4, item="a"), opened(9, 8, 7, item="b", n_prompt=12), opened(3, 3, item="c", n_prompt=13)]
    found = PackReader(tiny_model(family)).token_nll(pack(rows))
    reference = tiny_model(family, attention="eager")
    expected = [alone(reference, row.ids)[row.n_before_loss - 1 :] for row in rows]
    torch.testing.assert_close(found, torch.cat(expected), **CLOSE)


def test_packs_are_filled_by_the_tokens_that_are_computed() -> None:
    rows = [opened(i, 2, 3, item=f"d{i}") for i in range(6)]
    packs = list(packs_of(rows, 12 + 4 * 3))
    assert [p.items for p in packs] == [("d0", "d1", "d2", "d3"), ("d4", "d5")]
    assert [p.n_tokens for p in packs] == [24, 18]


def test_labels_are_the_supervised_tokens_and_predictors_stand_right_before_them() -> None:
    prompted = document((10, 11, 12, 13, 14), n_prompt=3, ends=True)
    batch = pack([prompted, document((20, 21))])
    assert batch.labels.tolist() == [13, 14, 21]
    assert batch.input_ids[0, batch.predictors + 1].tolist() == [13, 14, 21]
    assert batch.owners.tolist() == [0, 0, 1]


def test_end_tokens_are_trained_but_not_scored() -> None:
    row = document((10, 11, 12), ends=True)
    assert pack([row]).labels.tolist() == [11, 12]
    assert pack([row], with_end=False).labels.tolist() == [11]


def test_prompt_tokens_carry_no_loss() -> None:
    """The loss of a document is that of its answer, whatever the prompt's own tokens would cost."""
    ids = random_ids(12, 3)
    reader = PackReader(tiny_model())
    found = reader.summed_nll(pack([document(ids, n_prompt=7)]))
    torch.testing.assert_close(found, alone(tiny_model(attention="eager"), ids)[6:].sum(), **CLOSE)


def test_packs_are_filled_in_order_and_never_over_their_size_but_for_one_long_document() -> None:
    rows = documents(4, 4, 3, 20, 2, 5)
    packs = list(packs_of(rows, 10))
    assert [p.items for p in packs] == [("d0", "d1"), ("d2",), ("d3",), ("d4", "d5")]
    assert [p.n_tokens for p in packs] == [8, 3, 20, 7]
    assert list(packs_of([], 10)) == []


def test_an_answer_cut_by_a_limit_keeps_its_text_and_loses_its_end() -> None:
    cut = document((10, 11, 12), ends=True).without_end()
    assert cut == Encoded("d", (10, 11, 12), (Loss.NONE, Loss.TEXT, Loss.NONE), 3)
    assert pack([cut]).labels.tolist() == [11]


OWN_FORWARDS = {
    "llama": [],
    "mistral": [],
    "qwen3": ["Qwen3Attention"],
    "gpt2": ["GPT2Attention", "GPT2MLP", "LayerNorm"],
    "gpt_neox": ["GPTNeoXAttention", "GPTNeoXMLP", "LayerNorm"],
}


@pytest.mark.parametrize("family", OWN_FORWARDS)
def test_parts_that_keep_their_own_forward_are_named(family: str) -> None:
    reader = PackReader(add_method(tiny_model(family), "lora", r=4, alpha=8, seed=0))
    assert reader.own_forwards == OWN_FORWARDS[family]
    names = ", ".join(OWN_FORWARDS[family])
    assert reader.slower_paths() == [
        f"parts of its layers compute through their own forward, slower and the same: {n}" for n in [names] if n
    ]


@pytest.mark.parametrize(
    ("method", "own"),
    [("dora", ["LlamaAttention", "LlamaMLP"]), ("full", ["LlamaAttention", "LlamaMLP", "LlamaRMSNorm"])],
)
def test_fused_parts_that_stand_back_for_what_is_trained_are_named(method: str, own: list[str]) -> None:
    assert PackReader(add_method(tiny_model(), method, r=4, alpha=8, seed=0)).own_forwards == own
