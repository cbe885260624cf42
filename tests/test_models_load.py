"""A base model is loaded as it is saved, or refused in one sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma2Config

from metier.errors import ModelError
from metier.models import attention
from metier.models.embedded import EMBEDDED, is_cached, model_folder, remove
from metier.models.load import LONGEST_WINDOW, load_base
from tiny import save_tiny, tiny_model, tiny_tokenizer


def test_a_loaded_folder_is_the_saved_model_with_our_attention(tmp_path: Path) -> None:
    base = load_base(str(save_tiny(tmp_path)))
    expected = tiny_model().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in base.model.state_dict().items())
    assert base.model.config._attn_implementation == attention.NAME
    assert not base.model.training
    assert base.encoder.window == 512
    assert base.n_parameters == sum(p.numel() for p in tiny_model().parameters())


def test_the_window_is_bounded_whatever_the_model_promises(tmp_path: Path) -> None:
    base = load_base(str(save_tiny(tmp_path, max_position_embeddings=10**6)))
    assert base.encoder.window == LONGEST_WINDOW


def test_the_hash_is_that_of_the_weights_and_not_of_the_folder(tmp_path: Path) -> None:
    first, copy, other = (
        load_base(str(save_tiny(tmp_path / name, seed=seed))).sha256 for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == copy
    assert first != other


def test_an_architecture_with_soft_caps_keeps_its_own_attention(tmp_path: Path) -> None:
    """Ours, and sdpa, would leave the caps out."""
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}
    config = Gemma2Config(**sizes, **heads, attn_logit_softcapping=1.0, initializer_range=0.3)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_base(str(tmp_path)).model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_name_that_is_nothing_is_refused_with_what_there_is(tmp_path: Path) -> None:
    for name in ("no-such-model", str(tmp_path / "absent"), "./absent"):
        with pytest.raises(ModelError, match="is no model folder: name one, a hub id, or one of smollm2-135m-instruct"):
            load_base(name)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_base(str(tmp_path))


def test_a_config_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        load_base(str(tmp_path))


def test_weights_that_are_a_pickle_are_not_loaded(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which is not loaded for safety"):
        load_base(str(tmp_path))


@pytest.mark.parametrize("content", [b"cut short", b"\x00" * 64], ids=["no header", "zeros"])
def test_weights_that_are_cut_short_are_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model") as caught:
        load_base(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "of another shape"])
def test_weights_that_are_not_all_there_are_refused(change: str, tmp_path: Path) -> None:
    """transformers would fill a missing layer with random numbers."""
    save_tiny(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    layer = weights.pop("model.layers.0.mlp.up_proj.weight")
    if change == "of another shape":
        weights["model.layers.0.mlp.up_proj.weight"] = layer[:10].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(str(tmp_path))


def test_tied_embeddings_are_not_taken_for_missing_ones(tmp_path: Path) -> None:
    assert load_base(str(save_tiny(tmp_path, tie_word_embeddings=True))).model.config.tie_word_embeddings


def test_a_model_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        load_base(str(tmp_path))


def test_an_embedded_model_is_cached_as_a_folder_that_can_be_removed() -> None:
    (name,) = EMBEDDED
    assert not is_cached(name)
    assert not remove(name)
    save_tiny(model_folder(name))
    assert is_cached(name)
    assert load_base(name).name == name
    assert remove(name)
    assert not is_cached(name)
