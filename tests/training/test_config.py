"""The numbers of training: learning rates, and steps of a budget."""

import dataclasses

import pytest

from unnoise.presets import PRESETS
from unnoise.registry import to_json
from unnoise.training.config import TrainingConfig


def test_rate_rises_stays_and_falls_to_zero() -> None:
    config = TrainingConfig(warmup=10, decay=0.4, learning_rate=1.0)
    rates = [config.learning_rate_at(k, 1000) for k in range(1001)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[599] == 1 and rates[800] == pytest.approx(0.5)
    assert rates[1000] == 0
    assert config.learning_rate_at(1, 100) == pytest.approx(2 / 3)  # the rise takes 3 % of the steps at most
    assert config.learning_rate_at(4, None) == 0.5 and config.learning_rate_at(9999, None) == 1
    cosine, constant = (dataclasses.replace(config, lr_schedule=name, warmup=0) for name in ("cosine", "constant"))
    assert [cosine.learning_rate_at(k, 100) for k in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert {constant.learning_rate_at(k, 100) for k in range(101)} == {1}


def test_an_open_training_ends_with_a_short_fall() -> None:
    """From where it is asked to end, whatever `decay` says."""
    config = TrainingConfig(warmup=0, decay=0.4, learning_rate=1.0)
    rates = [config.learning_rate_at(k, 110, decay_from=100) for k in range(111)]
    assert set(rates[:100]) == {1.0}
    assert rates[100:] == pytest.approx([1 - k / 10 for k in range(11)])


def test_the_notebooks_recipe_shows_each_choice() -> None:
    shown = to_json(PRESETS["notebook"])
    training, sampling = shown["training"], shown["sampling"]
    assert shown["schedule"] == {"name": "linear", "timesteps": 300, "beta_start": 1e-4, "beta_end": 0.02,
                                 "zero_terminal_snr": False}  # fmt: skip
    assert shown["network"] == {"name": "simple-unet", "widths": [64, 128, 256, 512, 1024], "time_size": 32}
    assert shown["target"]["name"] == "epsilon" and training["loss"]["name"] == "l1"
    assert (training["optimizer"], training["learning_rate"], training["beta2"]) == ("adam", 1e-3, 0.999)
    assert (training["batch"], training["drop_last"], training["epochs"], training["ema"]) == (150, True, 4000, 0)
    assert (training["warmup"], training["decay"], training["clip"], training["weight_decay"]) == (0, 0, 0, 0)
    assert sampling["sampler"] == {"name": "ddpm", "clamp": True, "variance": "posterior"} and sampling["steps"] == 300
    assert PRESETS["notebook"].training.steps_asked(10_000) == 264_000
    config = PRESETS["notebook"].training
    assert config.learning_rate_at(0, 264_000) == config.learning_rate_at(263_999, 264_000) == 1e-3
