"""How fast the machine is: looked at as briefly as it can be seen, and the model is left as it was."""

import pytest
import torch

from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.training import speed
from metier.training.speed import FIRST_PACK, SOON, measure_speed
from tiny import documents, tiny_model


def test_measuring_the_speed_leaves_weights_gradients_and_mode_as_they_were() -> None:
    torch.set_num_threads(1)
    model = add_method(tiny_model(), "lora", r=4, alpha=8, seed=0).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = measure_speed(PackReader(model), documents(9, 14), documents(20), 64, 96)
    assert min(vars(found).values()) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize(
    ("rate", "pack_tokens", "tried"),
    [
        (FIRST_PACK / SOON * 0.9, 4096, [FIRST_PACK]),
        (FIRST_PACK / SOON * 1.1, 4096, [FIRST_PACK, 4096]),
        (FIRST_PACK / SOON * 1.1, 256, [256]),
    ],
    ids=["slow", "fast", "packs that are small"],
)
def test_a_whole_pack_is_timed_only_where_a_small_one_takes_no_time(
    rate: float, pack_tokens: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    sizes: list[int] = []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock)

    def timed(n_tokens: int) -> speed.Timed:
        sizes.append(n_tokens)

        def work() -> None:
            nonlocal clock
            clock += n_tokens / rate

        return work, n_tokens

    assert speed._tokens_per_s(timed, pack_tokens) == pytest.approx(rate)
    assert sizes == tried


def test_the_first_call_of_a_small_pack_warms_up_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    seconds = iter([5.0, 2.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock)

    def work() -> None:
        nonlocal clock
        clock += next(seconds)

    assert speed._tokens_per_s(lambda n_tokens: (work, n_tokens), 4096) == FIRST_PACK / 2.0


def test_an_answer_costs_its_prompt_at_the_rate_of_scoring_and_a_step_for_each_further_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 0.0
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock)

    def generate(_: object, prompts: list[list[int]], n: int, **__: object) -> None:
        nonlocal clock
        assert prompts == [[1]] * 60
        clock += 3.0 + 0.25 * n

    monkeypatch.setattr(speed, "continue_all", generate)
    found = speed._generate_rate(PackReader(tiny_model()), 64, score_tokens_per_s=600)
    assert found == pytest.approx(60 * 64 / (60 * 26 / 600 + 63 * 0.25))
