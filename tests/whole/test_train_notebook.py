"""`nbs/train.ipynb` runs for every paper's recipe, on data of the shapes that the recipe reads."""

import matplotlib, pytest
from avkit.reports import attention
from avkit.reports.stored_clips import StoredClip
from avkit.training import loading
from helpers import OWN, config, draw_small, run_cells, toy

matplotlib.use("agg")


@pytest.mark.parametrize("recipe", OWN)
def test_train_notebook_runs_for_every_recipe(recipe, tmp_path, monkeypatch):
    draw_small(monkeypatch)
    nothing = StoredClip(None, None, None, 16000, 2.0)  # toy data are in no store
    monkeypatch.setattr(loading, "load_data", lambda cfg: toy(recipe))
    monkeypatch.setattr(attention, "stored_clip", lambda *a, **k: nothing)
    own = dict(OWN[recipe], recipe=recipe, data_root="sample", epochs=1, batch_size=4, device="cpu")
    scope = run_cells("train", **own, run_dir=str(tmp_path))
    assert scope["cfg"].hash == config(recipe, tmp_path).hash
    drawn = {p.stem for p in (tmp_path / "figures").glob("*.png")}
    assert {"glance", "attention", "learning_curves"} < drawn
    assert (tmp_path / "record.json").is_file()
