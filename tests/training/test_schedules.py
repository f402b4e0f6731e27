"""Learning-rate schedules compared with the published ones, and with values by hand."""

import json
from pathlib import Path

import pytest

from dqecir.errors import DataError
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe, TrainingSettings
from dqecir.training.schedules import cosine_rate, epoch_cosine_rate, one_cycle_rate, step_rate, warm_up_rate

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "12_text_pad_schedule.json").read_text())


def settings_of(**changes) -> TrainingSettings:
    return parse_settings(changes, TrainingSettings, "recipe")


def factors(settings, steps, epoch_steps):
    arguments = steps, epoch_steps, settings.warm_up_steps, settings.final_rate
    return [settings.schedule.factor(step, *arguments) for step in range(steps)]


@pytest.mark.parametrize(
    ("key", "rate", "epochs"),
    [("fashioniq_30_epochs_init_5e-6", 5e-6, 30), ("cirr_50_epochs_init_1e-5", 1e-5, 50)],
)
def test_the_cosine_by_epochs_is_the_published_one(key, rate, epochs):
    settings = settings_of(schedule={"kind": "epoch_cosine"}, final_rate=0.01)
    found = [rate * factor for factor in factors(settings, epochs * 7, 7)]
    assert found[::7] == pytest.approx(GOLDEN["qure_lr_per_epoch"][key], rel=1e-9)
    assert found[6::7] == found[::7]


def test_one_cycle_is_the_published_one_on_fashioniq():
    published = GOLDEN["sprc_onecycle_fiq"]
    settings = settings_of(schedule={"kind": "one_cycle", "peak": 1.5 / 30, "start_divisor": 100})
    found = [published["args"]["max_lr"] * factor for factor in factors(settings, 300, 10)]
    assert found[:60] == pytest.approx(published["lr_first_60"], rel=1e-9)
    assert found[-1] == pytest.approx(published["lr_last"], rel=1e-9)


def test_one_cycle_that_is_built_for_more_epochs_than_are_run_does_not_come_down():
    published = GOLDEN["sprc_onecycle_cirr"]
    settings = settings_of(schedule={"kind": "one_cycle", "peak": 0.02, "built_for_epochs": 80})
    found = [published["args"]["max_lr"] * factor for factor in factors(settings, 500, 10)]
    assert found[:60] == pytest.approx(published["lr_first_60"], rel=1e-9)
    assert found[-1] > 0.3 * published["args"]["max_lr"]
    whole = [published["args"]["max_lr"] * factor for factor in factors(settings, 800, 10)]
    assert whole[-1] == pytest.approx(published["lr_last"], rel=1e-9)


def test_a_cycle_that_is_over_stays_at_its_end():
    assert one_cycle_rate(99, 20, 0.5) == one_cycle_rate(19, 20, 0.5) == pytest.approx(1 / 25e4)
    assert one_cycle_rate(0, 1, 0.5) == pytest.approx(1 / 25e4)


def test_steps_drop_at_their_milestones():
    settings = settings_of(schedule={"kind": "step", "milestones": [35, 42]}, warm_up_steps=10)
    found = factors(settings, 60 * 2, 2)
    assert found[0] == pytest.approx(0.1)
    assert found[9] == found[69] == 1.0
    assert found[70] == found[83] == pytest.approx(0.1)
    assert found[84] == found[-1] == pytest.approx(0.01)
    assert step_rate(8, (2, 4, 8), 0.5) == 0.125


def test_a_constant_rate_is_constant_after_the_warm_up():
    settings = settings_of(schedule={"kind": "constant"}, warm_up_steps=4)
    assert factors(settings, 6, 3) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warm_up_rate(0, 0) == 1.0


def test_the_default_is_the_cosine_from_step_to_step():
    settings = settings_of(warm_up_steps=10, final_rate=0.1)
    assert factors(settings, 100, 7) == [cosine_rate(step, 100, 10, 0.1) for step in range(100)]
    assert epoch_cosine_rate(50, 100, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": {"kind": "one_cycle"}, "warm_up_steps": 5}, "ignores warm_up_steps"),
        ({"schedule": {"kind": "constant"}, "final_rate": 0.1}, "ignores final_rate"),
        ({"schedule": {"kind": "one_cycle", "peek": 0.1}}, "did you mean 'peak'"),
        ({"schedule": {"kind": "step", "milestones": []}}, "milestones"),
        ({"schedule": {"kind": "cosinus"}}, "cosine"),
    ],
)
def test_settings_that_a_schedule_does_not_read_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        settings_of(**changes)


def test_a_recipe_carries_its_schedule():
    recipe = parse_settings(
        {"method": "dqe", "training": {"schedule": {"kind": "step", "milestones": [3]}}}, Recipe, "recipe"
    )
    again = parse_settings(recipe.model_dump(mode="json"), Recipe, "recipe")
    assert again == recipe
    assert again.training.schedule.milestones == (3.0,)
