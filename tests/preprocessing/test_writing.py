"Video and audio files that we write"

import wave

import numpy as np
import pytest
from avkit.core import AvkitError
from avkit.preprocessing.writing import write_video, write_wav


def test_audio_without_its_rate_is_refused_before_a_file_is_made(tmp_path):
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    for rate in (None, 0):
        with pytest.raises(AvkitError, match="clip.mp4: audio was given without its rate"):
            write_video(tmp_path / "clip.mp4", frames, 25, np.zeros(100, np.float32), rate)
    assert not list(tmp_path.iterdir())
    assert write_video(tmp_path / "mute.mp4", frames, 25).is_file()  # no audio, no rate


@pytest.mark.parametrize("shape", [(1000,), (1001, 2), (7, 1), (0,)])
def test_a_wav_is_what_the_standard_library_writes(tmp_path, shape):
    x = np.random.default_rng(0).normal(0, 1, shape)
    with wave.open(str(tmp_path / "theirs.wav"), "wb") as f:
        f.setnchannels(1 if x.ndim == 1 else x.shape[1])
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(np.clip(np.rint(x * 32767), -32768, 32767).astype("<i2").tobytes())
    ours = write_wav(tmp_path / "ours.wav", x, 16000)
    assert ours.read_bytes() == (tmp_path / "theirs.wav").read_bytes()
