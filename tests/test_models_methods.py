"""Each method trains what it says, starts at the base, and its dial goes from the base to what was trained."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from metier.errors import ModelError
from metier.models.adapters import disabled, load_adapter, set_dial, weights_moved
from metier.models.load import load_base
from metier.models.methods import add_method, n_trained, turn
from metier.models.packing import PackReader, pack
from metier.models.replace import replace_forwards
from tiny import document, documents, random_ids, save_tiny, tiny_model

IDS = torch.tensor([random_ids(17, 5)])
ROWS = [document(random_ids(19, 1), "a", n_prompt=8), *documents(7, 15, seed=2)]
ADAPTERS = ("lora", "rslora", "dora", "pissa")
FAMILIES = ("llama", "gpt2")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def base_logits(family: str) -> Tensor:
    """Of the base, through the same functions as the adapted model's."""
    base = tiny_model(family)
    replace_forwards(base)
    return logits(base)


def added(method: str, family: str = "llama", **options: int) -> PeftModel:
    model: PeftModel = add_method(tiny_model(family), method, r=4, alpha=8, seed=0, **options)
    return model


def descend(model: Any, n_steps: int = 3, rate: float = 0.3) -> list[float]:
    """Steps of plain gradient descent on the rows; the loss before each."""
    reader, losses = PackReader(model), []
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(n_steps):
        loss = reader.summed_nll(pack(ROWS)) / 40
        loss.backward()
        with torch.no_grad():
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            assert norm > 0
            for p in parameters:
                p -= rate * p.grad
                p.grad = None
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_starts_at_the_base_learns_and_switched_off_is_the_base(method: str, family: str) -> None:
    model, base = added(method, family), base_logits(family)
    torch.testing.assert_close(logits(model), base, rtol=1e-4, atol=1e-4)
    losses = descend(model)
    assert losses[-1] < losses[0]
    assert not torch.allclose(logits(model), base, atol=1e-2)
    with disabled(model):
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ADAPTERS)
def test_the_dial_of_a_saved_adapter_goes_along_the_merged_weights(method: str, family: str, tmp_path: Path) -> None:
    model = added(method, family)
    descend(model)
    model.save_pretrained(tmp_path)
    base, trained = base_logits(family), logits(model)
    assert (trained - base).abs().max() > 0.1
    torch.testing.assert_close(logits(load_adapter(tiny_model(family), tmp_path)), trained, rtol=1e-5, atol=1e-5)
    off = load_adapter(tiny_model(family), tmp_path, dial=0.0)
    torch.testing.assert_close(logits(off), base, rtol=1e-5, atol=1e-5)
    between = load_adapter(tiny_model(family), tmp_path, dial=0.4)
    merged = model.merge_and_unload()
    turn(merged, tiny_model(family), 0.4)
    torch.testing.assert_close(logits(between), logits(merged), rtol=1e-4, atol=1e-4)
    with disabled(between):
        assert torch.equal(logits(between), base)


def test_pissa_takes_the_steps_that_pefts_own_takes() -> None:
    """PEFT takes the start out of the base's weights; we keep it beside them."""
    ours = added("pissa")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa", task_type="CAUSAL_LM"
    )
    assert descend(ours, 5) == pytest.approx(descend(get_peft_model(tiny_model(), config), 5), rel=1e-4)


def test_the_start_of_pissa_is_not_trained_and_not_counted() -> None:
    model = added("pissa")
    layer = next(m for m in model.modules() if isinstance(m, LoraLinear))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    start_a, start_b = a.detach().clone(), b.detach().clone()
    descend(model)
    assert torch.equal(a[4:], start_a[4:])
    assert torch.equal(b[:, 4:], start_b[:, 4:])
    assert not torch.equal(a[:4], start_a[:4])
    assert not torch.equal(b[:, :4], start_b[:, :4])
    assert n_trained(model, "pissa") == n_trained(added("lora"), "lora")


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    scales = [
        next(m for m in added(method).modules() if isinstance(m, LoraLinear)).scaling["default"]
        for method in ("lora", "rslora", "pissa")
    ]
    assert scales == [2.0, 4.0, 2.0]


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_movement_of_the_weights_is_that_of_the_merged_ones(method: str) -> None:
    model = added(method)
    descend(model)
    found = weights_moved(model)
    base, merged = tiny_model().state_dict(), model.merge_and_unload().state_dict()
    names = [name for name in base if "_proj" in name]
    moved = sum(float((merged[name] - base[name]).square().sum()) for name in names)
    total = sum(float(base[name].square().sum()) for name in names)
    assert found == pytest.approx((moved / total) ** 0.5, rel=1e-3)
    assert found > 1e-3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_the_gradients_of_full_fine_tuning_are_those_of_the_models_own_loss(family: str, tied: bool) -> None:
    """A tied embedding gets the gradient of the head and that of the embedding."""
    model = add_method(tiny_model(family, tie_word_embeddings=tied), "full", 4, 8, 0)
    reader = PackReader(model)
    assert reader.why_plain == ""
    nll = reader.summed_nll(pack(ROWS))
    nll.backward()
    plain = tiny_model(family, attention="eager", tie_word_embeddings=tied)
    expected = torch.zeros(())
    for row in ROWS:
        labels = torch.tensor([[t if kind else -100 for t, kind in zip(row.ids, row.loss, strict=True)]])
        expected = expected + plain(input_ids=torch.tensor([row.ids]), labels=labels).loss * row.n_supervised
    expected.backward()
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=0)
    wanted = dict(plain.named_parameters())
    assert all(p.grad is not None for p in model.parameters())
    assert ("lm_head.weight" in wanted) != tied
    for name, parameter in model.named_parameters():
        gradient = wanted[name].grad
        assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_the_dial_of_a_full_model_moves_every_tensor(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", tie_word_embeddings=True)
    base = load_base(str(tmp_path / "base")).model
    trained = add_method(load_base(str(tmp_path / "base")).model, "full", 4, 8, 0)
    descend(trained)
    trained.save_pretrained(tmp_path / "model")
    before, after = dict(base.named_parameters()), copy.deepcopy(dict(trained.named_parameters()))
    assert not [name for name in before if torch.equal(before[name], after[name])]
    for dial in (0.0, 0.5, 1.0):
        loaded = load_base(str(tmp_path / "base")).model
        loaded.load_state_dict(trained.state_dict())
        turn(loaded, base, dial)
        for name, parameter in loaded.named_parameters():
            torch.testing.assert_close(parameter, before[name] + dial * (after[name] - before[name]))
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_on_the_top_layers_leave_the_lower_ones_alone(method: str, family: str, tmp_path: Path) -> None:
    model = added(method, family, top_layers=1)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(".1." in name and "lora_" in name for name in names)
    whole = [name for name, p in added(method, family).named_parameters() if p.requires_grad]
    assert len(whole) == 2 * len(names)
    descend(model)
    model.save_pretrained(tmp_path)
    loaded = load_adapter(tiny_model(family), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)


def test_more_top_layers_than_there_are_is_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"^--top-layers 3: LlamaForCausalLM has 2 layers here, name fewer\.$"):
        added("lora", top_layers=3)


def test_a_method_that_the_model_cannot_take_is_one_sentence() -> None:
    class NoLinear(nn.Module):
        config = tiny_model().config

    with pytest.raises(ModelError, match=r"^NoLinear cannot take dora"):
        add_method(NoLinear(), "dora", 4, 8, 0)  # type: ignore[arg-type]


def test_pissa_of_weights_that_are_whole_numbers_is_one_sentence() -> None:
    model = tiny_model()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"^PiSSA needs weights that are floating-point numbers"):
        add_method(model, "pissa", 4, 8, 0)


def test_a_dial_of_one_changes_nothing() -> None:
    model = added("dora")
    descend(model)
    before = logits(model)
    set_dial(model, 1.0)
    assert torch.equal(logits(model), before)
