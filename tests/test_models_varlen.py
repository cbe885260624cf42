"""The rows of keys and queries that a GPU's kernel gets are the pack; the kernel itself is not run here."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metier.models import attention, varlen
from metier.models.packing import Branches, PackReader, pack, pack_branches
from tiny import SLIDING_WINDOW, documents, random_ids, tiny_model

CPU = torch.device("cpu")


def reference_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """torch's variable-length attention as its documentation has it, row by row, the last query at the last key."""
    out = torch.empty_like(query)
    assert query_ends.dtype == key_ends.dtype == torch.int32
    sizes = []
    for i in range(len(query_ends) - 1):
        rows, keys = slice(*query_ends[i : i + 2].tolist()), slice(*key_ends[i : i + 2].tolist())
        q, k, v = query[rows].transpose(0, 1), key[keys].transpose(0, 1), value[keys].transpose(0, 1)
        n_q, n_k = q.shape[1], k.shape[1]
        sizes.append((n_q, n_k))
        back = torch.arange(n_k - n_q, n_k)[:, None] - torch.arange(n_k)[None, :]
        seen = (back >= 0) & ((back <= window_size[0]) if window_size[0] >= 0 else True)
        found = torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], seen, scale=scale, enable_gqa=enable_gqa
        )
        out[rows] = found[0].transpose(0, 1)
    assert (longest_query, longest_key) == tuple(map(max, zip(*sizes, strict=True)))
    return out


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Attention takes the way of a GPU; how often it did."""
    calls: list[int] = []

    def kernel(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return reference_kernel(*args, **kwargs)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(attention, "is_taken", lambda _: True)
    return calls


STEM = Branches("s", random_ids(11, 4), (random_ids(5, 5), random_ids(8, 6)))


def test_documents_alone_are_rows_of_the_pack_itself() -> None:
    rows = varlen.rows_of(((3,), (5,)), CPU)
    assert rows.keys is None
    assert rows.query_ends.tolist() == rows.key_ends.tolist() == [0, 3, 8]
    assert (rows.longest_query, rows.longest_key) == (5, 5)


def test_a_branch_has_the_keys_of_its_stem_before_its_own() -> None:
    rows = varlen.rows_of(((2,), (3, 1, 2)), CPU)
    assert rows.keys is not None
    assert rows.keys.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 2, 3, 4, 6, 7]
    assert rows.query_ends.tolist() == [0, 2, 5, 6, 8]
    assert rows.key_ends.tolist() == [0, 2, 5, 9, 14]
    assert (rows.longest_query, rows.longest_key) == (3, 5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma3", "phi3"])
def test_packs_and_branches_score_and_train_as_on_a_cpu(family: str, by_rows: list[int]) -> None:
    assert SLIDING_WINDOW < 11
    packs = (pack(documents(13, 9, 4)), pack_branches([STEM]))
    found_model = tiny_model(family).bfloat16().float()
    reader = PackReader(found_model)
    for layer in found_model.modules():
        layer.__dict__.pop("forward", None)  # the fused ones are a CPU's
    assert not reader.why_plain
    by_rows.clear()
    found = [reader.token_nll(batch) for batch in packs]
    reader.summed_nll(packs[1]).backward()
    assert len(by_rows) == 6  # two layers, three passes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "is_taken", lambda _: False)
        model = tiny_model(family).bfloat16().float()
        on_cpu = PackReader(model)
        for batch, nll in zip(packs, found, strict=True):
            torch.testing.assert_close(nll, on_cpu.token_nll(batch), rtol=1e-5, atol=1e-5)
        on_cpu.summed_nll(packs[1]).backward()
    for (name, p), q in zip(found_model.named_parameters(), model.parameters(), strict=True):
        if p.grad is not None and "head" not in name:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4 * float(q.grad.abs().max()), msg=name)


def test_a_cpu_keeps_its_own_attention() -> None:
    assert not varlen.is_taken(torch.zeros(4, 3, 8, dtype=torch.bfloat16))
