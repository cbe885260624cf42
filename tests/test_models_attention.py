"""Who may look at whom."""

import pytest
import torch
from torch import nn

from metier.errors import ModelError
from metier.models import attention
from tiny import tiny_model


def seen(segment: attention.Segment, sliding_window: int | None = None) -> list[list[int]]:
    """Row i: 1 where position i sees position j."""
    rows = []
    for block in attention.blocks_of([segment]):
        keys = [*range(block.stem.start, block.stem.stop), *range(block.own.start, block.own.stop)]
        mask = attention.block_mask(block, sliding_window, 1, torch.zeros(()))
        for row in mask.isfinite().tolist():
            sees = {key for key, allowed in zip(keys, row, strict=True) if allowed}
            rows.append([int(j in sees) for j in range(sum(segment))])
    return rows


@pytest.mark.parametrize(("rows", "together"), [(1, 0), (2, 0), (192, 0), (192, 2), (192, 96)])
def test_a_branch_sees_the_stem_and_its_own_past_only(
    rows: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ROWS", rows)
    monkeypatch.setattr(attention, "TOGETHER", together)
    assert seen((2, 1, 2)) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


@pytest.mark.parametrize(("rows", "together"), [(1, 0), (2, 0), (192, 0), (192, 96)])
def test_a_sliding_window_is_measured_from_a_branchs_place_behind_the_stem(
    rows: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two positions of stem and a window of two, the first token of either branch still sees the stem's last."""
    monkeypatch.setattr(attention, "ROWS", rows)
    monkeypatch.setattr(attention, "TOGETHER", together)
    assert seen((2, 1, 2), sliding_window=2) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_short_documents_are_attended_together_and_long_ones_alone() -> None:
    blocks = attention.blocks_of([(4, 40, 50, 30, 100), (60,), (20,), (3, 5), (400,)])
    assert [(b.n_stem, b.first, b.lengths) for b in blocks] == [
        (0, 0, (4,)),
        (4, 4, (40, 50)),
        (4, 94, (30,)),
        (4, 124, (100,)),
        (0, 224, (60, 20)),
        (0, 304, (3,)),
        (3, 307, (5,)),
        (0, 312, (133,)),
        (0, 445, (266,)),
        (0, 578, (400,)),
    ]


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
    assert attention.current_blocks() is None


def test_an_attention_with_terms_that_packs_lack_is_refused() -> None:
    one = torch.zeros(1, 1, 3, 4)
    with attention.packed([(3,)]), pytest.raises(ModelError, match="Linear needs an attention"):
        attention.attention(nn.Linear(1, 1), one, one, one, None, softcap=30.0)
