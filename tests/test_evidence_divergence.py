"""How far the next token moved: sums of records, by kind of text and by step."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from metier.evidence.divergence import divergence_by_step, divergence_part, entropy_on_text, read_beside
from metier.evidence.score import encode_items, score_field
from metier.models.divergence import BesideBase, KeepingBase
from metier.models.encoding import Encoder
from metier.models.packing import PackReader, pack
from metier.sources.examples import Example
from tiny import tiny_model, tiny_tokenizer

Record = dict[str, object]


def record(item: str, name: str, step: int, tokens: int, kl: float, base: float = 0.0, now: float = 0.0) -> Record:
    sums = {"kl": kl, "entropy_base": base, "entropy_adapted": now}
    return {"item": item, "document": item, "slice": name, "step": step, "tokens": tokens, **sums}


RECORDS = [
    record("a", "field", 8, 10, 1.0),
    record("a", "field", 16, 10, 2.0),
    record("b", "field", 16, 30, 8.0),
    record("t", "text/news", 16, 10, 0.2, 30.0, 27.0),
    record("u", "text/code", 16, 10, 0.4, 20.0, 23.0),
    record("o", "chat/own answers", 16, 5, 0.0),
    record("o", "chat/good answers", 16, 5, 9.0),
]


def test_nats_a_token_are_sums_over_sums_after_the_last_step() -> None:
    part = divergence_part(RECORDS)
    assert part is not None
    assert {name: one["kl"] for name, one in part["slices"].items()} == pytest.approx(
        {"field": 10 / 40, "text": 0.6 / 20, "chat/own answers": 0.0}
    )
    assert part["slices"]["text"]["ci_low"] < 0.03 < part["slices"]["text"]["ci_high"]
    assert part["slices"]["chat/own answers"]["ci_low"] is None
    assert "0.250 on the field, 0.030 on general text and 0.000 on the base's own answers" in part["sentence"]


def test_the_field_by_step_is_what_the_detector_of_drift_reads() -> None:
    assert divergence_by_step(RECORDS) == [{"step": 8, "kl_field": 0.1}, {"step": 16, "kl_field": 0.25}]


def test_entropy_is_that_of_general_text() -> None:
    found = entropy_on_text(RECORDS)
    assert found is not None
    assert math.isclose(found["base"], 2.5)
    assert math.isclose(found["adapted"], 2.5)
    assert entropy_on_text(RECORDS[:3]) is None


def test_where_nothing_was_read_nothing_is_said() -> None:
    assert divergence_part([]) is None
    assert divergence_by_step([]) == []


def test_a_score_read_beside_the_base_holds_the_sums_of_its_windows() -> None:
    model = get_peft_model(tiny_model(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    encoder, reader = Encoder(tiny_tokenizer(), 64), PackReader(model.eval())
    long = "A long text that fills more than one window of this encoder. " * 6
    texts = [Example(f"t{i}", "s", i, f"d{i // 2}", text=f"{i} {long}") for i in range(3)]
    assert len(encoder.encode(texts[0])) > 1
    items = encode_items(encoder, texts, (), (), (), ())
    beside = BesideBase(KeepingBase(reader))
    alone, _ = score_field(reader, items, 64, lambda _: None)
    assert read_beside(alone) == []
    for pack_tokens in (64, 2048):
        records, _ = score_field(beside, items, pack_tokens, lambda _: None)
        assert read_beside(records) == records
        for record, one, text in zip(records, alone, texts, strict=True):
            assert record["nll"] == pytest.approx(one["nll"], rel=1e-5)
            windows = [pack([window], with_end=False) for window in encoder.encode(text)]
            expected = sum(beside.per_token(window).double().sum(1) for window in windows)[1:].tolist()
            assert [record[name] for name in beside.figures] == pytest.approx(expected, rel=1e-4)
            assert float(str(record["kl"])) > 0
