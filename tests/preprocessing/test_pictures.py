"""Clips that are pictures: single ones, and folders of numbered ones, alone or beside audio."""

import itertools

import numpy as np
import pytest
from PIL import Image

from avkit.cli import main
from avkit.core import AvkitError
from avkit.datasets.folder import index
from avkit.datasets.verify import verify
from avkit.preprocessing.media import IMAGE_SUFFIXES, read_image, survey
from avkit.preprocessing.prepare import Preparation, prepare, prepare_clip, stream_key
from avkit.preprocessing.writing import write_wav
from avkit.store import Store

PLAIN = Preparation(window=1.0, rate=8000, frames=5, size=16, views=("frame",))
TURNED = 6  # EXIF: the camera was held upright


def gradient(height=24, width=32, step=0):
    "A picture whose left differs from its right, and its top from its bottom"
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7, y * 9, np.full_like(x, step)], -1).astype(np.uint8)


def a_row(root, video, audio=""):
    "A row of the manifest"
    return dict(
        clip="c", video=video, audio=audio, video_sha256="1", audio_sha256="2" * bool(audio)
    )


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_any_picture_is_a_clip_of_one_frame(tmp_path, suffix):
    Image.fromarray(gradient()).save(tmp_path / f"a{suffix.upper()}")
    store, row = Store(tmp_path / "store"), a_row(tmp_path, f"a{suffix.upper()}")
    assert prepare_clip(tmp_path, row, PLAIN, store)["status"] == "done"
    assert store.get(stream_key(row, "video", PLAIN))[0]["frame"].shape == (1, 3, 16, 16)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_pictures_stand_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x112] = TURNED
    upright = Image.fromarray(gradient())
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    seen = read_image(tmp_path / f"a{suffix}").astype(int)
    assert seen.shape == (24, 32, 3)
    assert np.abs(seen - gradient()).mean() < 8
    assert survey(tmp_path / f"a{suffix}")["width"] == 32


def test_pictures_of_other_depths_and_colours(tmp_path):
    grey = gradient()[..., 0]
    kinds = dict(
        grey=Image.fromarray(grey),
        deep=Image.fromarray(grey.astype(np.uint16) * 257),
        clear=Image.fromarray(np.dstack([grey, grey, grey, grey])),
        pair=Image.fromarray(grey).convert("LA"),
        palette=Image.fromarray(grey).convert("P"),
    )
    for name, image in kinds.items():
        image.save(tmp_path / f"{name}.png")
        seen = read_image(tmp_path / f"{name}.png")
        assert (seen == grey[..., None]).all(), name
    Image.fromarray(grey).convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png"))) == {0, 255}
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "fractions.tiff")
    with pytest.raises(AvkitError, match="fractions"):
        read_image(tmp_path / "fractions.tiff")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_half_a_picture_is_refused_by_all(tmp_path, suffix):
    for name in ("sad/ben", "happy/anna"):
        (tmp_path / name).mkdir(parents=True)
        for take in "ab":
            noise = np.random.default_rng(len(name + take) + ord(take)).integers(
                0, 255, (40, 40, 3), np.uint8
            )
            Image.fromarray(noise).save(tmp_path / f"{name}/{take}{suffix}")
    broken = tmp_path / f"sad/ben/a{suffix}"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    m = index(tmp_path)
    lines = prepare(m, PLAIN, Store(tmp_path / "store"), ["video"], n_jobs=1).failures
    assert lines["clip"].tolist() == ["sad/ben/a"] and "picture" in lines.reason.iloc[0]
    assert verify(m, media=True, n_jobs=1).file.tolist() == [f"sad/ben/a{suffix}"]
    assert survey(broken)["problems"] and not survey(tmp_path / f"sad/ben/b{suffix}")["problems"]


def frames_and_tone(root, n=20, rate=10.0, name="f_{:03d}.png", seconds=None, own=0):
    "Pictures that grow brighter, a step each, beside audio that grows louder with them"
    (root / "take").mkdir(parents=True)
    for i in range(n):
        Image.fromarray(gradient(step=6 * i + own)).save(root / "take" / name.format(i + 1))
    t = np.arange(round((seconds or n / rate) * 8000)) / 8000
    write_wav(root / "take.wav", (np.floor(t * rate) / 64 + own / 1000).astype(np.float32), 8000)
    return a_row(root, "take", "take.wav")


@pytest.mark.parametrize("window", [0.5, 1.0, 1.7, 3.0, None])
@pytest.mark.parametrize("rate,n", [(10.0, 20), (5.0, 9), (29.97, 40)])
def test_pictures_meet_their_audio(tmp_path, window, rate, n):
    row = frames_and_tone(tmp_path, n, rate)
    prep = Preparation(window, 8000, 4, 16, views=("frame",), picture_rate=rate)
    store = Store(tmp_path / "store")
    assert prepare_clip(tmp_path, row, prep, store) | dict(faces=0) == dict(
        clip="c", status="done", reason="", faces=0
    )
    frames = store.get(stream_key(row, "video", prep))[0]["frame"]
    sound = store.get(stream_key(row, "audio", prep))[0]["sound"]
    shown = frames[:, 2].float().mean((1, 2)).numpy() / 6
    lasts = len(sound) / 8000
    for i, step in enumerate(shown):  # in the middle of each part of the window
        at = (i + 0.5) / 4 * lasts
        if at < n / rate - 0.01:
            heard = float(sound[round(at * 8000) - 2 : round(at * 8000) + 2].mean()) * 64
            assert abs(heard - step) < 1.01, (at, heard, step)
        else:
            assert step == n - 1  # the last one stands still


def test_a_stream_that_comes_later_has_the_same_window(tmp_path):
    row = frames_and_tone(tmp_path)
    prep = Preparation(0.7, 8000, 4, 16, views=("frame",), picture_rate=10.0)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    prepare_clip(tmp_path, row, prep, one)
    for s in ("audio", "video"):
        prepare_clip(tmp_path, row, prep, two, [s])
        key, name = stream_key(row, s, prep), dict(audio="sound", video="frame")[s]
        assert (one.get(key)[0][name] == two.get(key)[0][name]).all()


def test_the_rate_is_asked_for_only_where_it_counts(tmp_path):
    row, store = frames_and_tone(tmp_path), Store(tmp_path / "store")
    line = prepare_clip(tmp_path, row, PLAIN, store)
    assert line["status"] == "failed" and "picture_rate; 10 would" in line["reason"]
    for s in ("audio", "video"):
        assert prepare_clip(tmp_path, row, PLAIN, store, [s])["status"] == "done"
    line = prepare_clip(tmp_path, row, PLAIN, store)  # both are stored by now
    assert line["status"] == "failed" and "picture_rate" in line["reason"]


def test_a_rate_that_does_not_fit_is_told(tmp_path):
    row, store = frames_and_tone(tmp_path, seconds=4.0), Store(tmp_path / "store")
    prep = Preparation(1.0, 8000, 4, 16, views=("frame",), picture_rate=10.0)
    told = prepare_clip(tmp_path, row, prep, store)["reason"]
    assert "last 2.00 s at their rate, its audio 4.00 s" in told


def test_one_picture_stands_still_beside_its_audio(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg")
    write_wav(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 24000).astype(np.float32), 8000)
    row, store = a_row(tmp_path, "a.jpg", "a.wav"), Store(tmp_path / "store")
    assert prepare_clip(tmp_path, row, PLAIN, store)["status"] == "done"
    sound = store.get(stream_key(row, "audio", PLAIN))[0]["sound"]
    assert len(sound) == 8000 and abs(float(sound.mean())) < 1e-3  # the middle second of three


def test_missing_numbers_keep_their_time(tmp_path):
    row = frames_and_tone(tmp_path)
    for i in (5, 6, 7, 8, 9):
        (tmp_path / f"take/f_{i:03d}.png").unlink()
    prep = Preparation(2.0, 8000, 4, 16, views=("frame",), picture_rate=10.0)
    store = Store(tmp_path / "store")
    prepare_clip(tmp_path, row, prep, store)
    shown = store.get(stream_key(row, "video", prep))[0]["frame"][:, 2].float().mean((1, 2)) / 6
    assert shown.tolist() == [2, 3, 12, 17]  # at .25, .75, 1.25, 1.75 s; 3: the last before the gap


@pytest.mark.parametrize("more", [dict(start=0.5), dict(end=1.0), dict(offset=0.2)])
def test_pieces_of_pictures_are_refused(tmp_path, more):
    row = frames_and_tone(tmp_path)
    Image.fromarray(gradient()).save(tmp_path / "a.jpg")
    for video in ("take", "a.jpg"):
        prep = Preparation(1.0, 8000, 4, 16, views=("frame",), picture_rate=10.0)
        line = prepare_clip(
            tmp_path, row | more | dict(video=video), prep, Store(tmp_path / "store")
        )
        assert line["status"] == "failed" and "are for films" in line["reason"]


def test_a_row_of_before_has_its_key(tmp_path):
    row = dict(video="a.mp4", audio="a.mp4", video_sha256="51f0", audio_sha256="51f0")
    keys = [stream_key(row, s, Preparation())[:16] for s in ("audio", "video")]
    assert keys == ["d8993f7cad9c06a1", "5c42cdb1c8275a48"]  # as stores of others have them
    paced = Preparation(picture_rate=10.0)
    assert [stream_key(row, s, paced)[:16] for s in ("audio", "video")] != keys


def own_folder(root, frames):
    "Six people in two classes, as single pictures or as folders of them beside audio"
    people = ["anna", "ben", "carla", "dan", "eva", "finn"]
    for own, (speaker, label) in enumerate(itertools.product(people, ["happy", "sad"])):
        folder = root / label / speaker
        folder.mkdir(parents=True)
        if frames:
            frames_and_tone(folder, 10, 5.0, own=own)
        else:
            Image.fromarray(gradient(step=20 * own)).save(folder / "take.jpg")


@pytest.mark.parametrize("frames", [False, True])
def test_pictures_train(tmp_path, frames, capsys):
    root = tmp_path / "data"
    own_folder(root, frames)
    flags = ["--modality", "av" if frames else "video", "--epochs", "1", "--detector", "none"]
    flags += ["--picture_rate", "5"] if frames else []
    where = ["--dataset", "folder", "--data_root", str(root), "--n_jobs", "1", "--device", "cpu"]
    assert not main(["verify", "--dataset", "folder", "--data_root", str(root), "--media"])
    assert not main(["train", *where, *flags, "--run_dir", str(tmp_path / "run")])
    assert (tmp_path / "run/record.json").is_file()
    assert "12 done" in capsys.readouterr().out
