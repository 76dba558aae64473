"""Reproducible audio-visual emotion recognition: `configure`, `load_data`, `fit`, `evaluate`, `predict`, `open_run`, `released`."""
from importlib import import_module
from typing import TYPE_CHECKING, Any
from .numerics import set_numerics

__version__ = "0.1.0"
set_numerics()  # before anything imports NumPy or torch: they read the environment as they load

if TYPE_CHECKING:
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.predict import predict as predict
    from .evaluation.runs import open_run as open_run
    from .models import released as released
    from .training.configure import configure as configure
    from .training.learner import fit as fit
    from .training.loading import load_data as load_data

_DOORS = dict(
    configure="training.configure", load_data="training.loading", fit="training.learner",
    evaluate="evaluation.evaluate", predict="evaluation.predict", open_run="evaluation.runs")


def __getattr__(name: str) -> Any:
    "What a script needs, imported when it is first asked for: `import avkit` alone takes no time"
    if name == "released":
        return import_module("avkit.models.released")
    if name not in _DOORS:
        raise AttributeError(f"module 'avkit' has no attribute {name!r}")
    return getattr(import_module(f"avkit.{_DOORS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_DOORS, "released"])
