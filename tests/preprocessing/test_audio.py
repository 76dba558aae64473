"""MFCC on real speech, from the file on: decoding, mono, resampling, window, features, against
librosa doing the same."""

import numpy as np, pytest, torch
from avkit.preprocessing.audio import fit_window, log_mel, mfcc
from avkit.preprocessing.media import decode

librosa = pytest.importorskip("librosa", reason="librosa is the reference: pip install librosa")


@pytest.fixture(scope="module")
def speech(shared_data):
    "Every 80th clip of real speech, and whatever is stereo among the first actors"
    files = sorted((shared_data / "ravdess_speech").rglob("*.flac"))[::80]
    if not files:
        pytest.skip("no ravdess_speech/ in the real data")
    return files


def reference(sound):
    return librosa.feature.mfcc(y=sound, sr=22050, n_mfcc=10)


def test_mfcc_equals_librosa_on_real_speech(speech):
    sounds = np.stack(
        [fit_window(decode(f, video=False, rate=22050).sound, 22050, 3.6) for f in speech]
    )
    ours, theirs = mfcc(torch.from_numpy(sounds)).numpy(), np.stack([reference(s) for s in sounds])
    assert ours.shape == (len(speech), 10, 156)
    assert (
        np.abs(ours - theirs).max((0, 2)) < 0.01 * theirs.std((0, 2))
    ).all()  # the worst value, not the mean


def test_file_to_mfcc_equals_librosa_load(speech):
    ours, theirs = [], []
    for f in speech:
        a, b = decode(f, video=False, rate=22050).sound, librosa.load(f, sr=22050)[0]
        n = min(len(a), len(b))
        ours.append(mfcc(torch.from_numpy(a[:n])[None])[0].numpy())
        theirs.append(reference(b[:n]))
    ours, theirs = np.concatenate(ours, 1), np.concatenate(theirs, 1)
    assert (np.sqrt(((ours - theirs) ** 2).mean(1)) < 0.01 * theirs.std(1)).all()


def test_a_clip_does_not_depend_on_its_batch():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(11, 30000, generator=g) * torch.logspace(-4, 0, 11)[:, None]
    for f in (mfcc, log_mel):
        whole = f(x)
        for i in (0, 3, 10):
            assert torch.allclose(whole[i], f(x[i : i + 1])[0], atol=1e-2)
