"""Every default once; what is written is read back; what cannot be meant is refused in one sentence."""

import tomllib
from dataclasses import fields
from typing import Any

import pytest

from metier.errors import MetierError
from metier.settings import METHODS, Settings, from_mapping, from_toml, help_of, learning_rate, to_toml

AWKWARD = (
    'a "quoted" \\ name.txt',
    "C:\\new\\table",
    "naïve « 🩺 »",
    "tab\there\nand a line",
    "\x7f\x00",
    "\U000e0001 tag",
)


def test_settings_survive_toml_with_quotes_backslashes_and_any_character() -> None:
    settings = Settings(
        data=AWKWARD, general=("x",), model=AWKWARD[0], lr=1e-5, minutes=0.5, replay=0, evidence="full", seed=-3
    )
    assert from_toml(to_toml(settings)) == settings


@pytest.mark.parametrize("text", AWKWARD)
def test_each_awkward_string_is_valid_toml(text: str) -> None:
    assert tomllib.loads(to_toml(Settings(data=(text,))))["data"] == [text]


def test_the_file_is_complete() -> None:
    assert set(tomllib.loads(to_toml(Settings(data=("x",))))) == {f.name for f in fields(Settings)}


def test_what_the_file_leaves_out_has_its_default() -> None:
    assert from_toml('data = ["x"]\nminutes = 3') == Settings(data=("x",), minutes=3)


def test_an_unknown_key_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(
        MetierError, match="unknown setting learning_rate: the settings are alpha, benchmark, budget_forgetting, "
    ):
        from_toml('data = ["x"]\nlearning_rate = 1e-3')
    with pytest.raises(MetierError, match="unknown setting b"):
        from_mapping({"data": ["x"], "b": 1, "c": 2})


def test_toml_that_cannot_be_read_is_refused_with_its_line() -> None:
    with pytest.raises(MetierError, match=r"config\.toml cannot be read \(.*line 2"):
        from_toml('data = ["x"]\nminutes = = 3')


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": ()}, "no data"),
        ({"minutes": 0}, "--minutes 0:"),
        ({"minutes": -1}, "--minutes -1:"),
        ({"minutes": float("nan")}, "--minutes nan:"),
        ({"minutes": float("inf")}, "--minutes inf:"),
        ({"tokens": -5}, "--tokens -5:"),
        ({"replay": 1.0}, "--replay 1:"),
        ({"replay": -0.1}, "--replay -0.1:"),
        ({"held_out": 0}, "--held-out 0:"),
        ({"held_out": 0.95}, "--held-out 0.95:"),
        ({"lr": -1e-3}, "--lr -0.001:"),
        ({"budget_forgetting": 0}, "--budget-forgetting 0:"),
        ({"method": "qlora"}, "--method qlora: choose lora, rslora, dora, pissa, tokens or full"),
        ({"method": "tokens"}, "--method tokens needs terms"),
        ({"method": "full", "new_tokens": ("x",)}, "--new-tokens is for adapters on all layers"),
        ({"top_layers": 1, "new_tokens": ("x",)}, "--new-tokens is for adapters on all layers"),
        ({"sharding": "fsdp", "new_tokens": ("x",)}, "--sharding fsdp takes neither"),
        ({"method": "pissa", "load_in_4bit": True}, "--method pissa needs the weights themselves"),
        ({"device": "gpu"}, "--device gpu: choose auto, cpu, cuda, cuda:N or mps"),
        ({"top_layers": -1}, "--top-layers -1:"),
        ({"method": "full", "top_layers": 4}, "--top-layers is for adapters"),
        ({"evidence": "some"}, "--evidence some:"),
        ({"step_tokens": 100, "pack_tokens": 200}, "--step-tokens must not be smaller"),
        ({"pack_tokens": 0}, "--step-tokens must not be smaller"),
        ({"r": 0}, "--r and --alpha"),
        ({"alpha": -1}, "--r and --alpha"),
        ({"max_epochs": 0}, "--max-epochs 0:"),
        ({"threads": -1}, "--threads -1:"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_meant_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MetierError) as caught:
        Settings(**{"data": ("x",), **change})
    message = str(caught.value)
    assert message.startswith(sentence)
    assert message.endswith(".")
    assert "\n" not in message


def test_a_setting_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        Settings(data=("x",)).seed = 1  # type: ignore[misc]


def test_every_setting_but_the_data_has_its_help() -> None:
    assert all(help_of(f.name) for f in fields(Settings) if f.name != "data")


@pytest.mark.parametrize(("n_parameters", "rate"), [(135e6, 1e-4), (1e9, 5e-5), (7e9, 2e-5)])
def test_full_fine_tuning_has_a_tenth_of_the_rate_of_lora(n_parameters: int, rate: float) -> None:
    assert learning_rate(n_parameters, "full") == pytest.approx(rate)
    assert learning_rate(n_parameters) == pytest.approx(10 * rate)


def test_every_method_has_a_rate() -> None:
    assert all(0 < learning_rate(135_000_000, m, preferences=True) < learning_rate(135_000_000, m) for m in METHODS)


def test_larger_models_learn_more_slowly() -> None:
    assert learning_rate(135_000_000) > learning_rate(1_000_000_000) > learning_rate(7_000_000_000) > 0
