"""Who may look at whom."""

import pytest
import torch
from torch import nn

from metier.errors import ModelError
from metier.models import attention, blocks
from metier.models.blocks import Layout, Segment
from tiny import tiny_model


def seen(segments: list[Segment], sliding_window: int | None = None) -> list[list[int]]:
    """Row i: 1 where position i sees position j."""
    n = sum(map(sum, segments))
    rows = [[0] * n for _ in range(n)]
    for group in Layout(segments).groups:
        mask = attention.group_mask(group, sliding_window, 1, torch.zeros(())).isfinite().tolist()
        for block in group.blocks:
            keys = [*block.stem, *block.own]
            for query, row in zip(block.queries, mask, strict=False):
                assert not any(row[len(keys) :])  # what only fills the block up is seen by none of its queries
                for key, is_seen in zip(keys, row, strict=False):
                    rows[query][key] += is_seen
    return rows


@pytest.mark.parametrize("n_queries", [1, 2, 64])
def test_a_branch_sees_the_stem_and_its_own_past_only(n_queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_QUERIES", n_queries)
    monkeypatch.setattr(blocks, "MOST_PADDED", 2.0)
    assert seen([(2, 1, 2)]) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


@pytest.mark.parametrize("n_queries", [1, 2, 64])
def test_a_sliding_window_is_measured_from_a_branchs_place_behind_the_stem(
    n_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two positions of stem and a window of two, the first token of either branch still sees the stem's last."""
    monkeypatch.setattr(blocks, "BLOCK_QUERIES", n_queries)
    assert seen([(2, 1, 2)], sliding_window=2) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_blocks_of_like_size_are_one_group_and_documents_are_cut_at_the_same_places() -> None:
    groups = Layout([(4, 40, 41, 20, 100), (60,), (59,), (200,), (0, 64)]).groups
    assert [(g.n_past, [(b.queries.start, b.n_queries) for b in g.blocks]) for g in groups] == [
        (0, [(324, 64), (524, 64), (205, 60)]),
        (0, [(265, 59)]),
        (0, [(0, 4)]),
        (4, [(105, 64)]),
        (4, [(44, 41), (4, 40)]),
        (4, [(85, 20)]),
        (64, [(388, 64)]),
        (68, [(169, 36)]),
        (128, [(452, 72)]),
    ]


DENSE = [
    # (segments, query heads, key heads, window)
    ([(3, 5, 9, 4), (7,), (2, 1)], 6, 3, None),
    ([(3, 5, 9, 4), (7,), (2, 1)], 4, 4, 4),
    ([(130,), (70, 20, 21, 22)], 3, 1, None),
    ([(1,)], 2, 1, None),
]


@pytest.mark.parametrize(("segments", "n_heads", "n_kv", "window"), DENSE)
@pytest.mark.parametrize("n_queries", [2, 64])
@pytest.mark.parametrize("kept_keys", [0, 384])
def test_batches_of_blocks_give_what_one_masked_product_over_the_pack_gives(
    segments: list[Segment],
    n_heads: int,
    n_kv: int,
    window: int | None,
    n_queries: int,
    kept_keys: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_QUERIES", n_queries)
    monkeypatch.setattr(blocks, "MOST_PADDED", 1.6)  # so that many blocks are filled up
    monkeypatch.setattr(attention, "KEPT_KEYS", kept_keys)
    layout = Layout(segments)
    n = sum(map(sum, segments))
    generator = torch.Generator().manual_seed(n)
    query, key, value, grad = (
        torch.randn(n, heads, 8, generator=generator) for heads in (n_heads, n_kv, n_kv, n_heads)
    )
    found, kept = attention.attend(query, key, value, layout, 0.3, window)
    grads = attention.attend_backward(grad, (query, key, value), layout, kept, 0.3, window)
    assert all((p is None) == (kept_keys == 0) for p in kept)

    wide = [states.double().requires_grad_() for states in (query, key, value)]
    q, k, v = (states.repeat_interleave(n_heads // states.shape[1], 1).transpose(0, 1) for states in wide)
    hidden = ~torch.tensor(seen(segments, window)).bool()
    expected = ((q @ k.mT * 0.3).masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(0, 1)
    torch.testing.assert_close(found, expected.float())
    for of_ours, of_dense in zip(grads, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        torch.testing.assert_close(of_ours, of_dense.float(), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_stem_that_many_see_is_the_same_bits_every_time() -> None:
    layout = Layout([(30, *[40 + i % 5 for i in range(40)])])
    generator = torch.Generator().manual_seed(0)
    n = sum(layout.segments[0])
    query, key, value, grad = (torch.randn(n, heads, 16, generator=generator) for heads in (6, 3, 3, 6))
    _, kept = attention.attend(query, key, value, layout, 0.25, None)
    first, *others = (attention.attend_backward(grad, (query, key, value), layout, kept, 0.25, None) for _ in range(6))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_outside_a_pack_a_padded_batch_is_read_as_by_transformers_own_attention() -> None:
    ids = torch.arange(2, 14).reshape(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        ours, theirs = (
            tiny_model("mistral", attention=name)(input_ids=ids, attention_mask=mask).logits
            for name in (attention.NAME, "sdpa")
        )
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()])


def test_the_segments_are_forgotten_after_the_pack_even_when_reading_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), attention.packed([(3,)]):
        raise ZeroDivisionError
    assert attention.current_layout() is None


def test_an_attention_with_terms_that_packs_lack_is_refused() -> None:
    one = torch.zeros(1, 1, 3, 4)
    with attention.packed([(3,)]), pytest.raises(ModelError, match="Linear needs an attention"):
        attention.attention(nn.Linear(1, 1), one, one, one, None, softcap=30.0)
