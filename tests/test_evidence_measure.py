"""How far a field is from what the base knows, and what gain its held-out documents can show."""

import pytest

from metier.evidence import measure
from metier.evidence.arms import Arm
from metier.evidence.measure import detectable_line
from metier.evidence.planning import distance
from metier.models.encoding import Encoder
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.sources.examples import Example
from tiny import document, tiny_model, tiny_tokenizer


def test_the_distance_is_the_bits_a_byte_of_the_field_over_those_of_general_text_without_the_adapter() -> None:
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0)
    reader = PackReader(model)
    texts = [document(range(30), "a"), document(range(3, 40), "b")]
    assert distance(reader, texts, texts) == pytest.approx(1.0)
    surprising = [document([7, 200, 3, 150, 9, 280, 1, 222] * 4, "c")]
    there_and_back = distance(reader, surprising, texts), distance(reader, texts, surprising)
    assert there_and_back[0] == pytest.approx(1 / there_and_back[1])
    assert there_and_back[0] != pytest.approx(1.0, abs=0.01)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            weights.data.fill_(0.3)
    assert distance(reader, surprising, texts) == pytest.approx(there_and_back[0])


def test_windows_of_one_text_count_each() -> None:
    reader = PackReader(tiny_model())
    windows = [document(range(30), "a"), document(range(30), "a")]
    assert distance(reader, windows, windows[:1]) == pytest.approx(1.0)


def test_what_training_moved_is_read_on_whole_rows_up_to_a_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(tiny_tokenizer(), 64)
    rows = [Example(f"r{i}", "a", i, f"r{i}", text=f"the question and the answer {i}") for i in range(9)]
    sizes = [len(encoder.encode(row)[0].ids) for row in rows]
    monkeypatch.setattr(measure, "PROBE_TOKENS", sum(sizes[:3]))
    few = measure.Probe(encoder, rows)
    assert (few.n_rows, [d.item for d in few.documents]) == (3, ["r0", "r1", "r2"])
    long = Example("long", "a", 1, "long", text="the question and the answer, " * 40)
    assert measure.Probe(encoder, [long, *rows]).documents[0] == encoder.encode(long)[0]  # of a long text one window
    assert measure.Probe(encoder, []).n_rows == 0


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (None, "one held-out document cannot show a gain of any size: add documents"),
        (0.039, "these 10 held-out documents can show a gain of about 3.9% of the base's bits, not less"),
        (0.6, "to show a gain that is not 60% of the base's bits: add documents"),
        (1.009, "to show a gain that is not all of the base's bits: add documents"),
    ],
)
def test_what_the_set_can_show_is_said_and_no_gain_that_nobody_has(share: float | None, said: str) -> None:
    scores = [{"slice": "field", "document": str(i)} for i in range(10)]
    assert detectable_line(Arm(scores, [], [], []), "document", share).endswith(said)  # type: ignore[arg-type]
