"""The formula counts what torch counts, attention left out."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metier.models import onednn
from metier.models.flops import Linear, products
from metier.models.methods import add_method
from metier.models.packing import PackReader, pack
from tiny import document, documents, random_ids, tiny_model


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a tiny model go where those of a large one do."""
    monkeypatch.setattr(onednn, "FEWEST_MULTIPLICATIONS", 0)


def product_flops(out: Any, a: Any, b: Any, **kwargs: Any) -> int:
    del out, kwargs
    return 2 * int(a[0] * a[1] * b[1])


def linear_flops(rows: Any, second: Any, third: Any, *others: Any, **kwargs: Any) -> int:
    """Of (rows, weight, bias or none, ...), and of (rows, what is added, weight, ...)."""
    del others, kwargs
    weight = second if third is None or len(third) == 1 else third
    return 2 * int(rows[0] * rows[1] * weight[0])


def counted(reader: PackReader, batch: Any, training: bool) -> int:
    """Products of matrices: attention multiplies batches of them, one a head, which are left out."""
    aten = torch.ops.aten
    passed_over: dict[Any, Any] = {aten.addmm_: product_flops}  # by torch's counter
    if onednn.is_there():
        passed_over[torch.ops.mkldnn._linear_pointwise] = linear_flops
    with FlopCounterMode(display=False, custom_mapping=passed_over) as counter:
        if training:
            reader.summed_nll(batch).backward()  # type: ignore[no-untyped-call]
        else:
            reader.token_nll(batch)
    by_operation = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in by_operation.items() if operation in (aten.mm, aten.addmm, *passed_over))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("training", [True, False])
def test_lora_costs_what_torch_counts(family: str, training: bool) -> None:
    reader = PackReader(add_method(tiny_model(family), "lora", r=4, alpha=8, seed=0))
    batch = pack([*documents(9, 14, seed=1), document(random_ids(12, 5), n_prompt=7)])
    assert reader.why_plain == ""
    expected = products(reader.model).flops(batch.n_tokens, len(batch.labels), training)
    assert expected == counted(reader, batch, training)


def test_layers_below_the_lowest_trained_block_have_no_backward_pass() -> None:
    reader = PackReader(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))
    for name, parameter in reader.model.named_parameters():
        if ".layers.0." in name:
            parameter.requires_grad_(False)
    batch = pack(documents(9, 14, seed=1))
    expected = products(reader.model).flops(batch.n_tokens, len(batch.labels), True)
    assert expected == counted(reader, batch, True)


def test_full_fine_tuning_costs_a_gradient_for_every_weight() -> None:
    model = tiny_model()
    batch = pack(documents(9, 14, seed=1))
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=batch.input_ids, logits_to_keep=batch.predictors).logits
        torch.nn.functional.cross_entropy(logits[0], batch.labels).backward()
    assert products(model).flops(batch.n_tokens, len(batch.labels), True) == counter.get_total_flops()


def test_a_frozen_model_is_scored_only() -> None:
    frozen = products(tiny_model().requires_grad_(False))
    assert frozen.flops(7, 3, training=True) == frozen.flops(7, 3, training=False) > 0


def test_one_layer_by_hand() -> None:
    layer = Linear(10, 20, rank=2)
    assert layer.flops(training=False) == 2 * 10 * 20 + 2 * 2 * 30
    assert layer.flops(training=True) == 4 * 10 * 20 + 6 * 2 * 30
