"""What changed inside: nothing for a fresh adapter, and for one that changes one layer that layer and those above."""

import torch

from metier.evidence.layers import layer_changes
from metier.models.methods import add_method
from metier.models.packing import PackReader
from tiny import documents, tiny_model


def reader(*changed: str) -> PackReader:
    """A tiny model of two layers whose adapter is filled where a name of `changed` stands in a parameter's."""
    model = add_method(tiny_model(), "lora", r=2, alpha=4, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and any(part in name for part in changed):
                parameter.fill_(0.05)
    return PackReader(model)


def test_a_fresh_adapter_changed_nothing() -> None:
    found = layer_changes(reader(), documents(20, 30), documents(25, seed=9))
    assert found == [{"layer": i, "weights": 0.0, "field": 0.0, "general": 0.0} for i in (1, 2)]


def test_what_changes_in_the_last_layer_changes_nothing_below() -> None:
    first, second = layer_changes(reader(".layers.1."), documents(20, 30), documents(25, seed=9))
    assert first == {"layer": 1, "weights": 0.0, "field": 0.0, "general": 0.0}
    assert all(float(str(second[name])) > 0.001 for name in ("weights", "field", "general"))


def test_what_changes_below_is_carried_upwards() -> None:
    first, second = layer_changes(reader(".layers.0."), documents(20, 30), documents(25, seed=9))
    assert float(str(first["weights"])) > 0 == float(str(second["weights"]))
    assert float(str(second["field"])) > 0.001
    assert float(str(second["general"])) > 0.001
