"""How fast are the MFCC of many clips, by avkit.preprocessing.audio (batched, torch)?

Compared to: librosa, one clip after the other.
Takes: 15 s with one thread.
"""

import time
from common import arguments, best, environment, figure, tell
import librosa
import numpy as np
import threadpoolctl
import torch
from avkit.preprocessing.audio import mfcc


def main():
    p = arguments(__doc__)
    p.add_argument("--clips", type=int, default=1000, help="how many")
    p.add_argument("--seconds", type=float, default=3.6, help="length of each")
    p.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to try"
    )
    p.add_argument("--repeats", type=int, default=2, help="the shortest of so many rounds counts")
    a = p.parse_args()
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 0.1, (a.clips, round(a.seconds * 22050))).astype(np.float32)
    batch, rows = torch.from_numpy(waves), []
    reference = lambda w: librosa.feature.mfcc(y=w, sr=22050, n_mfcc=10)
    worst = max(
        np.abs(mfcc(batch[i : i + 1])[0].numpy() - r).max() / r.std()
        for i in range(3)
        for r in [reference(waves[i])]
    )
    for n in a.threads:
        torch.set_num_threads(n)
        with threadpoolctl.threadpool_limits(n):
            clock = time.process_time if n == 1 else time.perf_counter
            theirs = best(lambda: [reference(w) for w in waves], a.repeats, clock)
            ours = best(lambda: mfcc(batch), a.repeats, clock)
        rows += [
            dict(
                threads=n,
                what="librosa, one by one",
                seconds=theirs,
                **{"clips / s": a.clips / theirs, "times librosa": 1.0},
            ),
            dict(
                threads=n,
                what="avkit.preprocessing.audio.mfcc",
                seconds=ours,
                **{"clips / s": a.clips / ours, "times librosa": theirs / ours},
            ),
        ]
    title = (
        f"MFCC of {a.clips} clips of {a.seconds} s "
        f"(goal: 2 times librosa; largest difference {worst:.1e} standard deviations)"
    )
    figures = [
        figure(f"MFCC, {r['threads']} thread(s)", r["clips / s"], "clips / s",
               "librosa, one by one", r["times librosa"])
        for r in rows[1::2]
    ]  # fmt: skip
    threads = "/".join(map(str, a.threads))
    packages = "torch", "torchaudio", "librosa", "numpy"
    tell(a, {title: rows}, figures, environment(*packages, threads=threads))


if __name__ == "__main__":
    main()
