"""Who may look at whom."""

import pytest
import torch
from torch import nn

from metier.errors import ModelError
from metier.models import attention
from tiny import tiny_model


def test_a_branch_sees_the_stem_and_its_own_past_only() -> None:
    allowed = attention.branch_mask((2, 1, 2)).int().tolist()
    assert allowed == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


def test_a_sliding_window_is_measured_from_a_branchs_place_behind_the_stem() -> None:
    """With two positions of stem and a window of two, the first token of either branch still sees the stem's last."""
    near = (attention.branch_mask((2, 1, 2)) & attention.window_mask((2, 1, 2), 2)).int().tolist()
    assert near == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 0, 0, 1, 1],
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
    assert attention._segments.get() is None


def test_an_attention_with_terms_that_packs_lack_is_refused() -> None:
    one = torch.zeros(1, 1, 3, 4)
    with attention.packed([(3,)]), pytest.raises(ModelError, match="Linear needs an attention"):
        attention.attention(nn.Linear(1, 1), one, one, one, None, softcap=30.0)
