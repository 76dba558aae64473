"""The table of steps: what each paper, its released code and avkit do to the data, step by step.

No step is left out, the settings that a step names are the recipe's, and what differs has a name.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any
import pytest
from avkit.training.configure import configure
from avkit.training.quirks import QUIRKS
from helpers import PAPERS

STEPS = (
    "labels", "split", "windows", "frames", "faces", "pixels", "picture_augmentation",
    "video_backbone", "waveform", "audio_features", "audio_backbone", "audio_augmentation",
    "missing_and_padding", "batches", "learning_rate", "selection", "post_processing", "scoring",
)  # fmt: skip
SAID = ("paper", "released", "as_described", "as_released")
MAY = ("settings", "released_settings", "quirks", "not_brought_back")
FOLDER = Path(__file__).parents[2] / "nbs" / "papers" / "steps"


@cache
def steps_of(recipe: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((FOLDER / f"{recipe}.toml").read_text("utf-8"))


def looked_up(recipe: dict, name: str) -> Any:
    "The value of a setting; dots lead into options, None where one is absent"
    for part in name.split("."):
        recipe = recipe.get(part) if isinstance(recipe, dict) else None
    return list(recipe) if isinstance(recipe, tuple) else recipe


@pytest.fixture(params=[p for p in PAPERS if (FOLDER / f"{p}.toml").is_file()])
def recipe(request):
    return request.param


def test_no_step_is_left_out(recipe):
    steps = steps_of(recipe)
    assert list(steps) == list(STEPS)
    for name, step in steps.items():
        assert not set(step) - set(SAID + MAY), name
        assert all(step[k].strip() for k in SAID), name


@pytest.mark.parametrize("mode, key", [
    ("as_described", "settings"), ("as_released", "released_settings")])  # fmt: skip
def test_a_step_names_the_settings_of_its_recipe(recipe, mode, key):
    made = configure(recipe=recipe, mode=mode, size="paper").recipe
    said = {k: v for step in steps_of(recipe).values() for k, v in step.get(key, {}).items()}
    assert said == {k: looked_up(made, k) for k in said}


def test_what_differs_between_the_modes_has_a_name(recipe):
    "Every quirk stands in a step; a step of different settings has a quirk"
    steps = steps_of(recipe)
    named = [q for step in steps.values() for q in step.get("quirks", [])]
    own = {name for name, q in QUIRKS.items() if q.of(recipe)}
    assert own <= set(named) <= set(QUIRKS)
    for name, step in steps.items():
        a, b = step.get("settings", {}), step.get("released_settings", {})
        if any(a[k] != b[k] for k in a.keys() & b.keys()):
            assert step.get("quirks"), name


def test_what_is_not_brought_back_is_said_with_the_reason(recipe):
    for name, step in steps_of(recipe).items():
        assert (step["as_released"] == "as released") != ("not_brought_back" in step), name
