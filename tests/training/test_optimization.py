"""The learning rate over time and the average of the weights, against closed forms."""

import math

import pytest
import torch

from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.loop import moving_average


def test_warm_up_is_linear_and_the_rest_a_cosine_to_zero():
    share = warmup_cosine(110, 10 / 110)
    assert [share(step) for step in range(10)] == pytest.approx([k / 10 for k in range(1, 11)])
    assert share(10) == pytest.approx(1.0)
    assert share(60) == pytest.approx(0.5)
    assert share(35) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert share(110) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("num_cycles", [2, 3])
def test_every_cycle_repeats_the_first_at_half_the_peak(num_cycles):
    first = warmup_cosine(50, 0.1)
    share = warmup_cosine(50 * num_cycles, 0.1, num_cycles)
    for cycle in range(num_cycles):
        for step in range(50):
            assert share(50 * cycle + step) == pytest.approx(0.5**cycle * first(step))
    assert share(50 * num_cycles) == pytest.approx(0.0, abs=1e-12)


def test_cycles_of_unequal_length_end_at_zero():
    share = warmup_cosine(101, 0.0, 2)
    assert share(51) == pytest.approx(0.5)
    assert 0.0 <= share(101) < 0.01


def test_the_average_follows_the_weights_at_first_and_keeps_counters():
    averaged = moving_average(0.99)
    average, current = torch.tensor([0.0]), torch.tensor([1.0])
    assert averaged(average, current, 0).item() == pytest.approx(0.9)
    assert averaged(average, current, 10**6).item() == pytest.approx(0.01)
    assert averaged(torch.tensor(3), torch.tensor(5), 10**6).item() == 5
