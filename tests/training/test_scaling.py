"""The law of scaling against the trials that it was fitted to, and the choice that follows from it."""

import json
from pathlib import Path

import numpy as np
import pytest

from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.training.autotune import compare_networks
from unnoise.training.scaling import WIDTHS, excess_loss, learning_rate
from unnoise.utils.errors import UserError

TRIALS = Path(__file__).parents[2] / "benchmarks" / "scaling-trials.jsonl"
PLAIN = {"blocks": 1, "patch": 0, "attention": 64, "batch": 32, "rate": 0.5, "dropout": 0, "augment": 0, "decay": 0.4,
         "optimizer": "muon", "images": 0}  # fmt: skip


@pytest.mark.parametrize("data", ["digits", "fashion-mnist", "airplanes"])
def test_the_law_is_what_was_measured(data: str) -> None:
    """For each set of images a floor and a unit, fitted here, take the law through its trials."""
    rows = [json.loads(line) for line in TRIALS.read_text().splitlines()]
    mine = [r for r in rows if r["trial"]["data"] == data and PLAIN.items() <= r["trial"].items()]
    assert len({r["trial"]["width"] for r in mine}) >= 3 and len({r["trial"]["tflop"] for r in mine}) >= 3
    excess = np.array([excess_loss(r["trial"]["width"], r["steps"], 32, r["trial"]["side"]) for r in mine])
    loss = np.array([r["loss"] for r in mine])
    line = np.stack([excess, np.ones(len(mine))], axis=1) / loss[:, None]  # least squares of the relative error
    (unit, floor), *_ = np.linalg.lstsq(line, np.ones(len(mine)), rcond=None)
    error = np.abs(unit * excess + floor - loss) / loss
    assert unit > 0 and error.mean() < 0.05 and error.max() < 0.12


def machine(peak: float, overhead: float, size: tuple[int, int] = (8, 8)) -> dict[int, float]:
    """Images/s by width of a machine that takes `overhead` seconds for an image and then `peak` pixels of width 32 a second."""
    return {w: 1 / (overhead + size[0] * size[1] * (w / 32) ** 2 / peak) for w in WIDTHS}


def best_width(seconds: float | None, peak: float, steps: int | None = None, size: tuple[int, int] = (8, 8)) -> int:
    speeds = machine(peak, 1e-4, size)
    found = compare_networks(AutoUNet(), size, lambda n: speeds[n.widths[0]], 32, seconds, steps)
    return min(found, key=lambda c: c.loss).network.widths[0]


def test_the_more_time_and_speed_the_larger_the_network() -> None:
    by_time = [best_width(seconds, 1e5) for seconds in (5, 60, 600, 6000, 60_000)]
    by_speed = [best_width(60, peak) for peak in (1e4, 1e5, 1e6, 1e7, 1e8)]
    for found in (by_time, by_speed):
        assert found == sorted(found) and found[0] <= 32 and found[-1] >= 128


def test_only_the_candidates_that_can_win_are_measured() -> None:
    """From the smallest on, up to the first that is worse: a slow machine never has to run a large network."""
    tried: list[int] = []
    speeds = machine(1e4, 1e-4)

    def measure(network: UNetConfig) -> float:
        tried.append(network.widths[0])
        return speeds[tried[-1]]

    found = compare_networks(AutoUNet(), (8, 8), measure, 32, 30.0, None)
    assert tried == list(WIDTHS[: len(found)]) and len(found) <= 3 and found[-1].loss > found[-2].loss


def test_a_number_of_steps_is_a_budget_too() -> None:
    widths = [best_width(None, 1e5, steps) for steps in (1, 50, 1000, 20_000, 400_000)]
    assert widths == sorted(widths) and widths[:2] == [16, 16] and widths[-1] > 32


@pytest.mark.parametrize("steps", [3000, 10_000, 30_000])
def test_with_a_number_of_steps_a_network_is_wider_where_the_same_time_gives_more(steps: int) -> None:
    """As one that is chosen for the time which it takes would be; and all the steps are said to be done."""
    speed = {16: 1290.0, 32: 806.0, 48: 545.0, 64: 390.0, 96: 210.0, 128: 130.0, 192: 66.0, 256: 40.0}
    found = compare_networks(AutoUNet(), (8, 8), lambda n: speed[n.widths[0]], 32, None, steps)
    best = min(found, key=lambda choice: choice.loss)
    assert best.steps == steps
    same_time = compare_networks(AutoUNet(), (8, 8), lambda n: speed[n.widths[0]], 32, steps * 32 / best.speed, None)
    assert min(same_time, key=lambda choice: choice.loss).network == best.network


def test_steps_bound_a_time_that_would_allow_more() -> None:
    found = compare_networks(AutoUNet(), (8, 8), lambda n: 32e5 / n.widths[0], 32, 3600.0, 500)
    assert {choice.steps for choice in found} == {500}


def test_without_time_for_a_step_the_smallest_is_taken() -> None:
    for seconds in (-60.0, 0.0, 0.1):
        found = compare_networks(AutoUNet(), (64, 64), lambda n: 100.0, 16, seconds, None)
        assert [(c.network.widths[0], c.steps < 1) for c in found] == [(16, True)]


def test_a_network_that_does_not_fit_in_memory_ends_the_search() -> None:
    def measure(network: UNetConfig) -> float:
        if network.widths[0] > 32:
            raise UserError("not even one image fits in memory")
        return 1e5

    assert [c.network.widths[0] for c in compare_networks(AutoUNet(), (64, 64), measure, 16, 3600.0, None)] == [16, 32]


def test_what_is_given_stays() -> None:
    found = compare_networks(AutoUNet(widths=(32, 96), blocks=2, attention_tokens=0), (28, 28), lambda n: 100.0, 32, 60.0, None)
    assert [c.network for c in found] == [UNetConfig((32, 96), 2, 2, attention_tokens=0)]


@pytest.mark.parametrize(
    ("size", "patch", "levels"),
    [((8, 8), 1, 2), ((16, 16), 1, 2), ((28, 28), 2, 2), ((32, 32), 2, 2), ((48, 64), 2, 3), ((64, 64), 2, 3), ((96, 96), 2, 3),
     ((30, 30), 2, 1), ((12, 20), 2, 2), ((25, 25), 1, 1), ((33, 65), 1, 1), ((90, 90), 2, 1), ((100, 100), 2, 2)],
)  # fmt: skip
def test_the_shape_follows_the_size(size: tuple[int, int], patch: int, levels: int) -> None:
    """And every one can be built."""
    network = AutoUNet().of_width(16, size)
    assert (network.patch, len(network.widths)) == (patch, levels)
    network.build(1, size, 0)


def test_wider_networks_learn_at_lower_rates() -> None:
    rates = [learning_rate(width, "muon") for width in WIDTHS]
    assert rates == sorted(rates, reverse=True) and learning_rate(32, "muon") == 2 * learning_rate(32, "adamw") == 4e-3
