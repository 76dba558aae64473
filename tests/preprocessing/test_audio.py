"""MFCC on real speech, from the file on: decoding, mono, resampling, window, features, against
librosa doing the same."""

import numpy as np, pytest, torch
from scipy.signal import fftconvolve
from avkit.datasets.synth import perform, RATE, VOICES
from avkit.preprocessing.audio import estimate_offset, fit_window, log_mel, mfcc
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


def in_a_room(x, rng, snr):
    "As another microphone hears it, with echoes and noise"
    echoes = rng.standard_normal(4800) * np.exp(-np.arange(4800) / 960)
    echoes[0] = 22
    y = fftconvolve(x, echoes)[: len(x)]
    return y / y.std() + rng.standard_normal(len(y)) * 10 ** (-snr / 20)


@pytest.mark.parametrize("snr", [20, 0])
@pytest.mark.parametrize("offset", [-0.9, -0.013, 0.0, 0.48, 2.5])
def test_the_offset_of_two_microphones(offset, snr):
    rng = np.random.default_rng(round(100 * offset) % 97)
    voice, other = (
        np.asarray(perform(np.zeros(6), VOICES[k], k + 1, key=("o", k), seconds=4.0)[1])
        for k in (1, 2)
    )
    n = round(offset * RATE)
    late = np.pad(voice, (n, 0)) if n > 0 else voice[-n:]
    found, sure = estimate_offset(in_a_room(voice, rng, snr), late, RATE)
    assert abs(found - offset) < 0.002 and sure > 0.5
    assert estimate_offset(in_a_room(voice, rng, snr), other, RATE)[1] < 0.5


def test_offsets_of_real_speech(shared_data):
    files = sorted((shared_data / "ravdess_speech").glob("Actor_0[1-4]/*.flac"))[::29]
    if not files:
        pytest.skip("there is no RAVDESS")
    rng, sounds = np.random.default_rng(0), [decode(p, False, rate=16000).sound for p in files]
    for x, other in zip(sounds, [*sounds[1:], sounds[0]]):
        n = int(rng.integers(1, 14000))
        found, sure = estimate_offset(in_a_room(x, rng, 5), np.pad(x, (n, 0)), 16000)
        assert abs(found - n / 16000) < 0.002 and sure > 0.5
        assert estimate_offset(in_a_room(x, rng, 5), other, 16000)[1] < 0.5
