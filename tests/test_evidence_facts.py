"""What a run cost: whose seconds are whose."""

from metier.evidence.facts import cost
from metier.training.loop import Trained


def test_steps_beside_the_run_are_evidence_and_replay_and_rates_are_training() -> None:
    trained = Trained(n_steps=4, n_tokens=800, n_documents=8, seconds=40.0, early_seconds=5.0)
    rate = {"lost_seconds": 2.0, "judging_seconds": 1.0}
    found = cost(trained, rate, replay_s=7.0, evidence_s=30.0, total_s=100.0)
    assert (found["train_s"], found["evidence_s"], found["total_s"]) == (50.0, 35.0, 100.0)
    assert (found["train_tokens_per_s"], found["examples_per_s"]) == (20.0, 0.2)
    assert cost(trained, None, 7.0, 30.0, 100.0)["train_s"] == 47.0
