"Verify: missing, invalid and unexpected; a repack is the same sound, a changed sample is not."

import hashlib
import shutil
import wave

import numpy as np
import pandas as pd
import pytest

from avkit.datasets import verify as v
from avkit.core import AvkitError
from avkit.datasets import ravdess
from avkit.datasets.manifest import Manifest

pytest.importorskip("av")


def samples(path):
    "(n,channels) int16 and the rate, by another decoder"
    import soundfile

    return soundfile.read(path, dtype="int16", always_2d=True)


def is_stereo(path):
    import soundfile

    return soundfile.info(path).channels == 2


def write_wav(path, x, rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(x.shape[1])
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes(x.astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def real(shared_data):
    if not (shared_data / "ravdess_speech").is_dir():
        pytest.skip("no ravdess_speech/ in the folder of real data")
    return shared_data / "ravdess_speech"


def test_the_real_files_verify(real):
    m = ravdess.index(real)
    t = v.verify(m)
    assert (
        v.verification_summary(t, m)
        == "1200 of 1440 clips found; 240 missing; 0 invalid; 1 unexpected"
    )
    assert set(t[t.status == "missing"].file.str[-2:]) == {"05", "10", "16", "19"}


def test_a_repack_verifies_and_a_changed_sample_does_not(real, tmp_path):
    flacs = [
        real / "Actor_01/03-01-01-01-01-01-01.flac",
        *(p for p in sorted(real.rglob("*.flac")) if is_stereo(p)),
    ][:2]
    for p in flacs:
        write_wav(tmp_path / "a" / f"{p.stem}.wav", *samples(p))
    m = ravdess.index(tmp_path / "a")
    assert (
        v.verification_summary(v.verify(m, media=True), m)
        == "2 of 1440 clips found; 1438 missing; 0 invalid; 0 unexpected"
    )
    for p in flacs:
        x, rate = samples(p)
        x[len(x) // 2, -1] ^= 1
        write_wav(tmp_path / "a" / f"{p.stem}.wav", x, rate)
    t = v.verify(ravdess.index(tmp_path / "a"))
    assert sorted(t[t.status == "invalid"].file) == sorted(f"{p.stem}.wav" for p in flacs)
    assert t[t.status == "invalid"].problem.str.contains("not those of the published file").all()
    x, rate = samples(flacs[0])
    write_wav(
        tmp_path / "a" / f"{flacs[0].stem}.wav", x[:, :1].repeat(2, 1), rate
    )  # mono made stereo is another file
    assert f"{flacs[0].stem}.wav" in set(
        v.verify(ravdess.index(tmp_path / "a")).query("status == 'invalid'").file
    )


def test_the_list_is_what_another_decoder_finds(real):
    known = v.measured_hashes("ravdess")
    for p in [
        *sorted(real.rglob("*.flac"))[::150],
        *(p for p in sorted(real.rglob("*.flac")) if is_stereo(p)),
    ]:
        x, rate = samples(p)
        assert (
            known[p.stem]
            == hashlib.sha256(
                f"s16le {rate} Hz {x.shape[1]} channels\n".encode() + x.astype("<i2").tobytes()
            ).hexdigest()
        )
    assert (
        len(known) == 1200
        and all(len(s) == 64 for s in known.values())
        and {k[3:] for k in known} <= set(ravdess.expected())
    )


def test_measure_writes_the_list(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for a in (1, 2):
        write_wav(
            tmp_path / f"c/Actor_{a:02d}/03-01-05-01-01-01-{a:02d}.wav",
            rng.integers(-99, 99, (480, a)),
            48000,
        )
    write_wav(
        tmp_path / "c/Actor_01/03-02-05-01-01-01-01.wav", rng.integers(-99, 99, (480, 1)), 48000
    )  # a song is not in the manifest
    m = ravdess.index(tmp_path / "c")
    path = v.measure_audio(m, tmp_path / "m/ravdess.csv", n_jobs=1)
    assert (
        path.read_text().splitlines()[0] == "clip,sha256"
        and len(path.read_text().splitlines()) == 3
    )
    monkeypatch.setattr(v, "manifests_dir", lambda: path.parent)
    assert not (v.verify(m, n_jobs=1).status == "invalid").any()
    (tmp_path / "c/Actor_02/03-01-05-01-01-01-02.wav").write_bytes(b"")
    t = v.verify(m, n_jobs=1)
    assert t[t.status == "invalid"].values.tolist() == [
        ["Actor_02/03-01-05-01-01-01-02.wav", "invalid", "empty: the file has zero bytes"]
    ]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    pytest.importorskip("cv2")
    root = tmp_path_factory.mktemp("twin") / "t"
    return ravdess.render(root, actors=1, repeats=1, size=(96, 80), n_jobs=1, progress=False)


def test_the_twin_has_one_broken_file_and_is_not_compared(twin):
    m = ravdess.index(twin)
    assert (
        v.verification_summary(v.verify(m, n_jobs=1), m)
        == "7 clips found (rendered); 0 missing; 0 invalid; 0 unexpected"
    )
    t = v.verify(m, media=True, n_jobs=1)
    assert (
        len(t) == 1
        and t.status[0] == "invalid"
        and "truncated" in t.problem[0]
        and not t.problem.str.contains(str(twin)).any()
    )
    with pytest.raises(AvkitError, match="rendered by avkit"):
        v.measure_audio(m)


def test_lost_files_and_lost_streams(twin, tmp_path):
    root = shutil.copytree(twin, tmp_path / "t")
    m = ravdess.index(root)
    first, second = (root / p for p in m.clips.video[:2])
    first.unlink()
    shutil.copyfile(next(root.rglob("02-*.mp4")), second)  # has no sound
    t = v.verify(m, media=True, n_jobs=1).set_index("file")
    assert t.status[m.clips.video[0]] == "missing" and "no sound" in t.problem[m.clips.video[1]]


def test_pictures_of_crops_are_decoded(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    (tmp_path / "crops/a").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8)).save(
            tmp_path / f"crops/a/{i:05d}.jpg"
        )
    clips = pd.DataFrame(
        [
            dict(
                clip="a",
                label="",
                speaker="",
                audio="",
                video="",
                audio_sha256="",
                video_sha256="",
                crops="crops/a",
            )
        ]
    )
    m = Manifest("affwild2", tmp_path, clips, [])
    assert not len(v.verify(m, media=True, n_jobs=1))
    whole = (tmp_path / "crops/a/00001.jpg").read_bytes()
    (tmp_path / "crops/a/00001.jpg").write_bytes(whole[: len(whole) // 2])
    t = v.verify(m, media=True, n_jobs=1)
    assert t.values.tolist() == [
        ["crops/a", "invalid", "1 of 3 pictures cannot be decoded: 00001.jpg"]
    ]
