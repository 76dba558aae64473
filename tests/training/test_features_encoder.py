"Features of one's own are read by `vector`, or by the encoder that a recipe or an option names."

import json

import pytest
import torch

from avkit.core import AvkitError
from avkit.models.encoders import AUDIO_ENCODERS, READ_FEATURES, LogMelCNN, VectorEncoder
from avkit.models.masks import coarser
from avkit.training.checkpoint import make_model
from avkit.training.configure import configure
from avkit.training.learner import fit
from avkit.training.loading import load_data


def chosen(**encoders):
    return json.dumps(dict(features_encoder=encoders))


def test_vector_reads_them_unless_another_is_named(toy_corpus):
    plain = configure(**toy_corpus)
    data = load_data(plain, verbose=False).data
    model = make_model(plain, data)
    assert isinstance(model.audio, VectorEncoder) and isinstance(model.video, VectorEncoder)
    named = configure(**toy_corpus, options=chosen(audio="logmel_cnn"))
    model = make_model(named, data)
    assert isinstance(model.audio, LogMelCNN) and isinstance(model.video, VectorEncoder)


@pytest.mark.parametrize("name", [n for n in AUDIO_ENCODERS if n in READ_FEATURES])
def test_each_that_reads_features_trains_on_them(name, toy_corpus, tmp_path):
    if name == "audio_cnn":
        pytest.skip("it needs 13 steps, and says so")
    options = dict(features_encoder=dict(audio=name))
    if name == "conformer":
        options["encoder_options"] = dict(conformer=dict(dim=16, layers=1, heads=2, kernel=3))
    cfg = configure(**toy_corpus, modality="audio", epochs=1, run_dir=str(tmp_path / "run"),
                    options=json.dumps(options))
    assert fit(cfg, verbose=False)["metrics"]["test"]["audio"]["accuracy"] >= 0


def test_what_cannot_read_them_is_refused(toy_corpus):
    with pytest.raises(AvkitError, match="segment_cnn.*logmel_cnn"):
        configure(**toy_corpus, options=chosen(audio="segment_cnn"))
    with pytest.raises(AvkitError, match="sound"):
        configure(**toy_corpus, options=chosen(sound="vector"))


def test_it_counts_only_where_there_are_such_features(toy_corpus):
    no_sound = toy_corpus | dict(audio_features=None)
    asked = dict(options=chosen(audio="conformer"))
    assert configure(**no_sound, **asked).hash == configure(**no_sound).hash
    assert configure(**toy_corpus, **asked).hash != configure(**toy_corpus).hash


def test_fewer_steps_are_means_of_those_that_are_valid():
    torch.manual_seed(0)
    x, mask = torch.randn(3, 11, 8), torch.arange(11) < torch.tensor([11, 6, 3])[:, None]
    one = LogMelCNN(8, 2, channels=(2, 2), width=4).eval()
    two = LogMelCNN(8, 2, channels=(2, 2), width=4, pool=2).eval()
    two.load_state_dict(one.state_dict())
    assert torch.equal(two(x, mask), one(*coarser(x, mask, 2)))
    for i, n in enumerate((11, 6, 3)):
        by_hand = [x[i, k:min(k + 2, n)].mean(0) for k in range(0, n, 2)]
        got, there = coarser(x[i:i + 1], mask[i:i + 1], 2)
        torch.testing.assert_close(got[0][there[0]], torch.stack(by_hand))
    alone = torch.cat([two(x[i:i + 1, :n], mask[i:i + 1, :n]) for i, n in enumerate((11, 6, 3))])
    torch.testing.assert_close(two(x, mask), alone)
