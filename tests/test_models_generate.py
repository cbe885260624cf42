"""Greedy answers: the same in any batch, ended or cut, and kept from run to run."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from metier.models import decoding, generate
from metier.models.decoding import continue_all
from metier.models.encoding import Encoder
from metier.models.generate import Answer, AnswerCache, Prompt, answer_all, prompts_of
from metier.sources.examples import Message
from tiny import FAMILIES, tiny_model, tiny_tokenizer

REQUESTS = ("the question", "why?", "the question and the answer in one", "é", "on an error")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_tokenizer(), 512)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model()


def one_by_one(model: PreTrainedModel, prompt: list[int], n: int, end: int) -> list[int]:
    """The likeliest token, again and again, with nothing kept."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + n and (len(ids) == len(prompt) or ids[-1] != end):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_in_a_padded_batch_is_the_answer_alone(
    family: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that begin alike, read in groups of two, in an order that is not that of their lengths."""
    monkeypatch.setattr(decoding, "READ_AT_ONCE", 2)
    model = tiny_model(family)
    prompts = [encoder.prompt_ids([Message("user", request)]) for request in REQUESTS]
    assert len({len(prompt) for prompt in prompts}) > 2
    assert len({tuple(prompt[:3]) for prompt in prompts}) == 1
    expected = [one_by_one(model, prompt, 8, encoder.end) for prompt in prompts]
    assert continue_all(model, prompts, 8, encoder.ends) == expected
    assert continue_all(model, prompts[:1], 8, encoder.ends) == expected[:1]
    others = [prompt[i:] for i, prompt in enumerate(prompts)]  # which begin with nothing in common
    assert continue_all(model, others, 8, encoder.ends) == [one_by_one(model, p, 8, encoder.end) for p in others]


def test_a_prompt_that_another_goes_on_from_is_answered_as_alone(model: PreTrainedModel, encoder: Encoder) -> None:
    long = encoder.prompt_ids([Message("user", "the question and the answer")])
    prompts = [long[:5], long, long[:6], long]
    expected = [one_by_one(model, prompt, 8, encoder.end) for prompt in prompts]
    assert continue_all(model, prompts, 8, encoder.ends) == expected


def test_what_prompts_begin_with_is_read_once_and_a_short_one_is_not_padded_to_the_longest(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "READ_AT_ONCE", 2)
    read: list[tuple[int, ...]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: read.append(tuple(ids[0].shape)))
    stem = list(range(2, 12))
    continue_all(model, [[*stem, 13, 14], [*stem, *range(20, 26)], [*stem, 15], [*stem, *range(30, 35)]], 2, ())
    hook.remove()
    assert read == [(1, 10), (2, 6), (2, 2), (4, 1)]


def test_more_than_a_few_rows_are_a_multiple_of_eight_while_any_of_them_runs(model: PreTrainedModel) -> None:
    """A product of 15 rows takes as long as one of 32; copies of a prompt say nothing, and neither do ended rows."""
    prompts = [[5, 6, 7, 40 + i, 70 + i] for i in range(21)]
    ends = {said[4] for said in continue_all(model, prompts[4:], 5, ())}  # of most answers, at their fifth token
    alone = [continue_all(model, [prompt], 12, ends)[0] for prompt in prompts]
    read: list[tuple[int, ...]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: read.append(tuple(ids[0].shape)))
    assert continue_all(model, prompts, 12, ends) == alone
    hook.remove()
    steps = [n_rows for n_rows, n_tokens in read if n_tokens == 1]
    assert steps[0] == 24
    assert len(set(steps)) > 1
    assert all(n % 8 == 0 or n <= 4 for n in steps)


def test_what_slides_out_of_sight_is_counted_without_the_padding(encoder: Encoder) -> None:
    """A prompt much shorter than the longest, in a model that sees few tokens back."""
    model = tiny_model("mistral")
    window = model.config.sliding_window
    stem = list(range(2, 8))
    prompts = [[*stem, 9], [*stem, *range(10, 10 + window + 4)]]
    expected = [one_by_one(model, prompt, 8, encoder.end) for prompt in prompts]
    assert continue_all(model, prompts, 8, encoder.ends) == expected


def test_a_sampled_answer_is_the_same_in_any_batch_and_another_than_the_likeliest(
    model: PreTrainedModel, encoder: Encoder
) -> None:
    together, likeliest = (
        answer_all(model, encoder, prompts_of(encoder, REQUESTS), 8, sampled=s) for s in (range(len(REQUESTS)), ())
    )
    assert [answer_all(model, encoder, prompts_of(encoder, [r]), 8, sampled=[0])[0] for r in REQUESTS] == together
    assert together != likeliest
    mixed = answer_all(model, encoder, prompts_of(encoder, REQUESTS), 8, sampled={1, 3})
    assert mixed == [together[i] if i in (1, 3) else likeliest[i] for i in range(len(REQUESTS))]


def test_every_request_has_a_seed_of_its_own() -> None:
    seeds = [generate._chance(request).initial_seed() for request in (*REQUESTS, *REQUESTS)]
    assert len(set(seeds)) == len(REQUESTS)


def test_tokens_are_sampled_as_often_as_they_are_likely(model: PreTrainedModel, encoder: Encoder) -> None:
    prompt = encoder.prompt_ids([Message("user", "why?")])
    with torch.no_grad():
        likely = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1], -1)
    n = 2000
    chances = [torch.Generator().manual_seed(seed) for seed in range(n)]
    first = torch.tensor([said[0] for said in continue_all(model, [prompt] * n, 1, (), chances)])
    top = likely.topk(5)
    for token, expected in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        found = float((first == token).float().mean())
        assert abs(found - expected) < 4 * (expected * (1 - expected) / n) ** 0.5


def test_answers_come_in_the_order_of_the_requests_whatever_the_batches(
    model: PreTrainedModel, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer_all(model, encoder, prompts_of(encoder, REQUESTS), 6)
    monkeypatch.setattr(generate, "BATCH", 2)
    told: list[tuple[int, int]] = []
    assert (
        answer_all(model, encoder, prompts_of(encoder, REQUESTS), 6, lambda done, total: told.append((done, total)))
        == whole
    )
    assert [a.request for a in whole] == list(REQUESTS)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_an_answer_that_ended_by_itself_says_so_and_one_cut_by_the_limit_does_not(
    model: PreTrainedModel, encoder: Encoder
) -> None:
    prompt = encoder.prompt_ids([Message("user", "why?")])
    third = one_by_one(model, prompt, 8, encoder.end)[2]
    ending = Encoder(tiny_tokenizer(), 512, [third])  # a model that says this token has ended
    (ended,) = answer_all(model, ending, prompts_of(ending, ["why?"]), 8)
    assert ended.ended
    assert ended.tokens <= 3
    (cut,) = answer_all(model, encoder, prompts_of(encoder, ["why?"]), 8)
    assert not cut.ended
    assert cut.tokens == 8


def test_answering_leaves_the_mode_of_the_model_as_it_was(model: PreTrainedModel, encoder: Encoder) -> None:
    model.train()
    answer_all(model, encoder, prompts_of(encoder, ["why?"]), 2)
    assert model.training
    model.eval()


def test_answers_are_kept_from_run_to_run_and_only_the_missing_ones_generated(
    tmp_path: Path, model: PreTrainedModel, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = AnswerCache(tmp_path, "a" * 64, encoder, 6).answers(model, encoder, REQUESTS[:3])
    asked: list[str] = []

    def counted(_: object, __: object, prompts: Sequence[Prompt], *___: object) -> list[Answer]:
        asked.extend(prompt.request for prompt in prompts)
        return [Answer(prompt.request, "new", 1, True) for prompt in prompts]

    monkeypatch.setattr(generate, "answer_all", counted)
    again = AnswerCache(tmp_path, "a" * 64, encoder, 6)
    assert again.missing(REQUESTS) == list(REQUESTS[3:])
    found = again.answers(model, encoder, [REQUESTS[4], *REQUESTS[:3]])
    assert asked == [REQUESTS[4]]
    assert found == [Answer(REQUESTS[4], "new", 1, True), *first]


@pytest.mark.parametrize(("sha256", "limit"), [("b" * 64, 6), ("a" * 64, 7)])
def test_another_base_or_another_limit_has_its_own_answers(
    sha256: str, limit: int, tmp_path: Path, model: PreTrainedModel, encoder: Encoder
) -> None:
    AnswerCache(tmp_path, "a" * 64, encoder, 6).answers(model, encoder, ["why?"])
    assert AnswerCache(tmp_path, sha256, encoder, limit).missing(["why?"]) == ["why?"]
    assert AnswerCache(tmp_path, "a" * 64, encoder, 6, sampled=True).missing(["why?"]) == ["why?"]


def test_another_template_beside_the_same_weights_has_its_own_answers(
    tmp_path: Path, model: PreTrainedModel, encoder: Encoder
) -> None:
    AnswerCache(tmp_path, "a" * 64, encoder, 6).answers(model, encoder, ["why?"])
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "Q " + tokenizer.chat_template
    assert AnswerCache(tmp_path, "a" * 64, Encoder(tokenizer, 512), 6).missing(["why?"]) == ["why?"]


def test_a_damaged_file_of_answers_is_made_again(tmp_path: Path, model: PreTrainedModel, encoder: Encoder) -> None:
    kept = AnswerCache(tmp_path, "a" * 64, encoder, 6)
    kept.answers(model, encoder, ["why?"])
    kept.path.write_text('[{"request": "why?"', encoding="utf-8")
    assert AnswerCache(tmp_path, "a" * 64, encoder, 6).missing(["why?"]) == ["why?"]
