"""LoRA computed by our function is PEFT's LoRA; what is saved is what is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from metier.errors import ModelError
from metier.models import onednn, replace
from metier.models.adapters import at_strength, disabled, layer_of, load_adapter, weights_moved
from metier.models.encoding import Encoded
from metier.models.fused import lora_linear
from metier.models.linear import FEW_ROWS, Layer, plain_layer
from metier.models.methods import add_method
from metier.models.packing import PackReader, pack
from metier.models.replace import replace_forwards
from tiny import FAMILIES, document, documents, random_ids, tiny_model

IDS = torch.tensor([random_ids(17, 5)])


def adapted(family: str = "llama", seed: int = 0) -> PeftModel:
    model = stirred(add_method(tiny_model(family), "lora", r=4, alpha=8, seed=seed))
    replace_forwards(model)
    return model


def stirred(model: PeftModel) -> PeftModel:
    """B starts at zero, and half of what could be wrong is multiplied by it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


def gradients(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_nll(model: PeftModel, rows: list[Encoded]) -> Tensor:
    """Full logits of each document alone, PEFT's forward, cross entropy."""
    losses = []
    for row in rows:
        full = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].float()
        supervised = torch.tensor([bool(kind) for kind in row.loss[1:]])
        losses.append(
            nn.functional.cross_entropy(full[supervised], torch.tensor(row.ids[1:])[supervised], reduction="sum")
        )
    return torch.stack(losses).sum()


SHARED = random_ids(11, 9)
MIXED = [
    document(random_ids(19, 1), "a", n_prompt=8),
    *(
        document((*SHARED, *random_ids(n, n)), f"s{n}", n_prompt=n_prompt)
        for n, n_prompt in ((6, 12), (1, 11), (9, 15))
    ),
    *documents(7, 15, seed=2),
    document(random_ids(400, 4), "long", n_prompt=3),
]
"""Alone, behind one stem, and longer than one block of attention."""


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_of_the_fast_path_equal_those_of_the_plain_path(family: str) -> None:
    fast = adapted(family)
    reader = PackReader(fast)
    assert reader.why_plain == ""
    batch = pack(MIXED)
    assert len(SHARED) in {segment[0] for segment in batch.segments if len(segment) == 4}
    nll = reader.summed_nll(batch)
    nll.backward()

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = get_peft_model(tiny_model(family, attention="eager"), config)
    plain.load_state_dict(fast.state_dict())
    expected = plain_nll(plain, MIXED)
    expected.backward()

    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=0)
    found, wanted = gradients(fast), gradients(plain)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_layers_of_unlike_ranks_and_layers_without_lora_share_what_is_multiplied_once() -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"v_proj": 3},
        task_type="CAUSAL_LM",
    )
    fast = stirred(get_peft_model(tiny_model(), config))
    assert {"LlamaMLP", "LlamaAttention"} <= replace_forwards(fast)
    plain = get_peft_model(tiny_model(attention="eager"), config)
    plain.load_state_dict(fast.state_dict())
    nll, expected = PackReader(fast).summed_nll(pack(MIXED)), plain_nll(plain, MIXED)
    nll.backward()
    expected.backward()
    torch.testing.assert_close(nll, expected, rtol=1e-5, atol=0)
    wanted = gradients(plain)
    assert len(wanted) == 12
    for name, gradient in gradients(fast).items():
        assert (gradient - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


def n_replaced(model: Any, *kinds: str) -> int:
    """Of these classes, the head not counted, which only multiplies in another order."""
    head = model.get_output_embeddings()
    modules = [module for module in model.modules() if type(module).__name__ in kinds and module is not head]
    return sum("forward" in vars(module) for module in modules)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_rows", [3, FEW_ROWS, FEW_ROWS + 1])
def test_a_head_gives_the_same_logits_and_gradient_in_the_order_of_few_rows(
    family: str, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family)
    head = model.get_output_embeddings()
    states = torch.randn(1, n_rows, head.in_features, requires_grad=True)
    expected = head(states)
    replace_forwards(model)
    products: list[tuple[int, ...]] = []

    def multiplied(weight: Tensor, rows: Tensor) -> Tensor:
        products.append(tuple(weight.shape))
        return weight @ rows.t()

    monkeypatch.setattr(replace, "weight_times", multiplied)
    found = head(states)
    assert products == ([tuple(head.weight.shape)] if n_rows <= FEW_ROWS else [])
    torch.testing.assert_close(found, expected)
    ones = torch.ones_like(found)
    torch.testing.assert_close(*(torch.autograd.grad(logits, states, ones)[0] for logits in (found, expected)))
    assert found.is_contiguous()


@pytest.mark.parametrize(
    ("family", "replaced"),
    [
        ("llama", {"Linear": 14, "LlamaMLP": 2, "LlamaAttention": 2, "LlamaRMSNorm": 5}),
        ("qwen3", {"Linear": 14, "Qwen3MLP": 2, "Qwen3Attention": 0, "Qwen3RMSNorm": 9}),
        ("mistral", {"Linear": 14, "MistralMLP": 2, "MistralAttention": 2, "MistralRMSNorm": 5}),
        ("gemma3", {"Linear": 14, "Gemma3MLP": 2, "Gemma3Attention": 0, "Gemma3RMSNorm": 13}),
        ("phi3", {"Linear": 8, "Phi3MLP": 0, "Phi3Attention": 0, "Phi3RMSNorm": 5}),
        ("gpt2", {"Linear": 0}),
        ("gpt_neox", {"Linear": 8}),
    ],
)
def test_what_is_written_out_is_replaced_and_everything_else_keeps_its_own_forward(
    family: str, replaced: dict[str, int]
) -> None:
    model = add_method(tiny_model(family), "lora", r=4, alpha=8, seed=0)
    replace_forwards(model)
    assert {kind: n_replaced(model, kind) for kind in replaced} == replaced


@pytest.mark.parametrize("change", [{"use_dora": True}, {"lora_dropout": 0.1}])
def test_a_lora_that_computes_something_else_is_not_replaced(change: dict[str, Any]) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **change)
    model = get_peft_model(tiny_model(), config)
    ids = torch.tensor([random_ids(9, 0)])
    torch.manual_seed(0)
    expected = model(input_ids=ids).logits
    replace_forwards(model)
    assert n_replaced(model, "Linear") == 0
    torch.manual_seed(0)
    torch.testing.assert_close(model(input_ids=ids).logits, expected)


def test_a_class_that_computes_something_else_than_its_name_says_keeps_its_forward() -> None:
    class LlamaRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8), requires_grad=False), 1e-6

        def forward(self, hidden_states: Tensor) -> Tensor:
            return 2 * hidden_states

    assert replace_forwards(LlamaRMSNorm()) == frozenset()


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_a_forward_is_tried_beside_the_size_of_its_values(scale: float, activation: str) -> None:
    """Large weights make values of thousands, whose rounding is no other function; another function of small ones is
    not taken for rounding."""

    class LlamaMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = nn.Linear(64, 96, bias=False), nn.Linear(64, 96, bias=False)
            self.down_proj, self.act_fn = nn.Linear(96, 64, bias=False), nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            gate = getattr(nn.functional, activation)(self.gate_proj(x))
            down: Tensor = self.down_proj(gate * self.up_proj(x))
            return down

    torch.manual_seed(0)
    mlp = LlamaMLP().requires_grad_(False)
    for parameter in mlp.parameters():
        parameter.mul_(scale)
    assert replace_forwards(mlp) == (frozenset({"LlamaMLP"}) if activation == "silu" else frozenset())


@pytest.mark.parametrize(("width", "scale"), [(576, 1), (256, 30), (576, 100)])
def test_attention_whose_scores_are_large_is_tried_without_rounding(
    width: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of the first layer of a real model: in float32 a softmax on random numbers differs in its fourth digit by the
    order of a product alone, and a model lost its fused attention on one maker's processors."""
    monkeypatch.setattr(onednn, "is_intel", lambda: False)
    shape = {"hidden_size": width, "num_attention_heads": width // 64, "head_dim": 64}
    model: Any = tiny_model(**shape, num_key_value_heads=1, num_hidden_layers=1)
    for projection in (model.model.layers[0].self_attn.q_proj, model.model.layers[0].self_attn.k_proj):
        with torch.no_grad():
            projection.weight.mul_(scale)
    assert "LlamaAttention" in replace_forwards(model)


def test_a_replaced_norm_in_16_bits_keeps_its_own_forward_which_computes_in_32() -> None:
    model: Any = tiny_model().requires_grad_(False)
    assert "LlamaRMSNorm" in replace_forwards(model)
    norm = model.model.norm.bfloat16()
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(norm(states), type(norm).forward(norm, states))


def test_the_gradient_of_a_is_tried_though_b_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(x: Tensor, layer: Layer) -> Tensor:
        return lora_linear(x, layer._replace(a=2 * layer.a - layer.a.detach()))  # type: ignore[operator, union-attr]

    monkeypatch.setattr(replace, "lora_linear", doubled)
    assert "Linear" not in replace_forwards(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0))


def test_a_fused_layer_with_a_bias_equals_pefts() -> None:
    """Qwen 2 has biases; and the input of an inner layer needs a gradient, that of the first does not."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            inner: Tensor = self.second(torch.tanh(self.first(x)))
            return inner

    torch.manual_seed(0)
    model = stirred(get_peft_model(Two(), LoraConfig(r=2, lora_alpha=6, target_modules=["first", "second"])))
    x = torch.randn(3, 4, 6, requires_grad=True)
    expected = model(x).square().sum()
    expected.backward()
    wanted, wanted_x = gradients(model), x.grad.clone()
    model.zero_grad()
    x.grad = None
    assert replace_forwards(model) == {"Linear"}
    found = model(x).square().sum()
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(model), wanted)
    torch.testing.assert_close(x.grad, wanted_x)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_at_step_zero_is_the_base(family: str) -> None:
    torch.testing.assert_close(
        logits(add_method(tiny_model(family), "lora", r=4, alpha=8, seed=0)), logits(tiny_model(family))
    )


def test_only_adapter_weights_get_gradients() -> None:
    model = adapted()
    PackReader(model).summed_nll(pack(documents(9, 12))).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in touched)
    assert len(touched) == 28
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.grad is not None)


def test_a_switched_off_adapter_is_the_base_exactly_and_comes_back() -> None:
    model, same_functions = adapted(), tiny_model()
    replace_forwards(same_functions)
    before, base = logits(model), logits(same_functions)
    torch.testing.assert_close(base, logits(tiny_model()))
    with disabled(model):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(before, base)
    with disabled(same_functions):
        assert torch.equal(logits(same_functions), base)


def test_the_seed_fixes_the_adapter() -> None:
    first, again, other = (add_method(tiny_model(), "lora", r=4, alpha=8, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_gives_a_fresh_model_the_same_logits(family: str, tmp_path: Path) -> None:
    model = adapted(family)
    model.save_pretrained(tmp_path)
    loaded = load_adapter(tiny_model(family), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.allclose(logits(loaded), logits(tiny_model(family)))


def test_dial_zero_is_the_base_and_half_the_dial_is_half_the_update(tmp_path: Path) -> None:
    model = adapted()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_adapter(tiny_model(), tmp_path, dial=0.0)), logits(tiny_model()))
    half = load_adapter(tiny_model(), tmp_path, dial=0.5).merge_and_unload().state_dict()
    base, whole = tiny_model().state_dict(), model.merge_and_unload().state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(half[name], (base[name] + whole[name]) / 2)


def test_a_loaded_adapter_is_fused_and_in_eval_mode(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path)
    loaded = load_adapter(tiny_model(), tmp_path)
    assert n_replaced(loaded, "Linear") == 14
    assert not loaded.training


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"num_hidden_layers": 4, "hidden_size": 48}),
        ("llama", {"num_hidden_layers": 3}),
        ("llama", {"num_hidden_layers": 5}),
        ("gpt2", {}),
    ],
    ids=["wider", "fewer layers", "more layers", "another family"],
)
def test_an_adapter_for_another_base_is_refused(family: str, changes: dict[str, int], tmp_path: Path) -> None:
    # Four layers: PEFT then notes the kinds of layers, not each by its number, and would adapt any layer of the kind.
    stirred(add_method(tiny_model(num_hidden_layers=4), "lora", r=4, alpha=8, seed=0)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not fit this base model") as caught:
        load_adapter(tiny_model(family, **changes), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_adapter(tiny_model(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        load_adapter(tiny_model(), tmp_path)


def test_adapter_files_that_cannot_be_read_are_refused_in_one_sentence(tmp_path: Path) -> None:
    adapted().save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError):
        load_adapter(tiny_model(), tmp_path)
    adapted().save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError):
        load_adapter(tiny_model(), tmp_path)


def test_the_movement_of_the_weights_is_the_norm_of_the_update_over_that_of_the_weights() -> None:
    model = adapted()
    found = weights_moved(model)
    moved = total = 0.0
    base = tiny_model().state_dict()
    merged = model.merge_and_unload().state_dict()
    for name in base:
        if "_proj" in name:
            moved += float((merged[name] - base[name]).square().sum())
            total += float(base[name].square().sum())
    assert found == pytest.approx((moved / total) ** 0.5, rel=1e-4)
    assert weights_moved(add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)) == 0


class PartOfAWeight(Tensor):
    """Stands for a weight that is divided over several processes."""


def as_part(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().as_subclass(PartOfAWeight), requires_grad=False)


def test_fused_functions_stand_back_where_a_weight_is_no_plain_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, lora = (model.get_submodule("model.layers.0") for model in (tiny_model(), adapted().get_base_model()))
    plain.requires_grad_(False)
    assert plain_layer(plain.self_attn.q_proj) is not None
    assert plain_layer(lora.self_attn.q_proj) is not None
    plain.self_attn.q_proj.weight = as_part(plain.self_attn.q_proj.weight)
    lora.self_attn.q_proj.base_layer.weight = as_part(lora.self_attn.q_proj.base_layer.weight)
    assert plain_layer(plain.self_attn.q_proj) is None
    assert plain_layer(lora.self_attn.q_proj) is None
    norm = lora.input_layernorm
    norm.weight = as_part(norm.weight)
    monkeypatch.setattr(replace, "rms_norm", None)
    assert norm(torch.randn(1, 3, len(norm.weight))).shape == (1, 3, len(norm.weight))


def test_a_model_without_a_linear_layer_cannot_take_lora() -> None:
    class NoLinear(nn.Module):
        config = tiny_model().config

    with pytest.raises(ModelError, match="NoLinear cannot take lora"):
        add_method(NoLinear(), "lora", r=4, alpha=8, seed=0)  # type: ignore[arg-type]


# strength ------------------------------------------------------------------------------------------------------------


def scalings(model: PeftModel) -> dict[int, set[float]]:
    """{layer: what its adapters are multiplied by}."""
    found: dict[int, set[float]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found.setdefault(layer_of(name) or 0, set()).add(round(module.scaling["default"], 6))
    return found


def test_a_tilt_turns_deep_layers_up_as_far_as_shallow_ones_down_and_back() -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(num_hidden_layers=3), config)
    assert scalings(model) == {0: {2.0}, 1: {2.0}, 2: {2.0}}
    with at_strength(model, 0.5, tilt=0.4):
        assert scalings(model) == {0: {0.6}, 1: {1.0}, 2: {1.4}}
    with at_strength(model, 1.0, tilt=0.4):
        assert scalings(model) == {0: {1.2}, 1: {2.0}, 2: {2.8}}
    assert scalings(model) == {0: {2.0}, 1: {2.0}, 2: {2.0}}


def test_a_tilt_is_even_over_the_layers_that_are_adapted() -> None:
    options = {"target_modules": ["q_proj"], "layers_to_transform": [2, 3], "task_type": "CAUSAL_LM"}
    model = get_peft_model(tiny_model(num_hidden_layers=4), LoraConfig(r=4, lora_alpha=8, **options))
    with at_strength(model, 1.0, tilt=0.5):
        assert scalings(model) == {2: {1.0}, 3: {3.0}}


def test_a_tilted_dora_lies_between_the_base_and_what_was_trained_layer_by_layer() -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM")
    model = stirred(get_peft_model(tiny_model(), config))
    first, last = (model.get_base_model().model.layers[i].mlp.down_proj for i in (0, 1))
    inputs = torch.randn(1, 5, first.in_features)
    whole = [layer(inputs) for layer in (first, last)]
    with model.disable_adapter():
        without = [layer(inputs) for layer in (first, last)]
    with at_strength(model, 1.0, tilt=0.25):
        found = [layer(inputs) for layer in (first, last)]
    for i, strength in enumerate((0.75, 1.25)):
        torch.testing.assert_close(found[i], torch.lerp(without[i], whole[i], strength))
    assert torch.equal(first(inputs), whole[0])
