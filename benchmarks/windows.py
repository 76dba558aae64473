"""What do jca2023's windows cost, where a sub-sequence ends at every frame of a video? Windows and
memory, the time to read them all, and the runs of frozen backbones that they need.

Compared to: sub-sequences that end at every 4th, 8th, 32nd frame.
Takes: 15 s.
"""

import time, tracemalloc
from common import arguments, environment, figure, tell
import numpy as np
import torch
from avkit.datasets.features import frame_blocks, Picked
from avkit.datasets.windows import JCA2023, step_ends, Windows
from avkit.models.backbones import build_backbone

INPUTS = {  # one sub-sequence
    "i3d": (1, 8, 3, 224, 224),
    "r2plus1d_18": (1, 8, 3, 112, 112),
    "mel_resnet18": (1, 64, 107),
}


def windows(n, spec):
    "A row of the table: all windows of a video of n frames, made and read"
    tracemalloc.start()
    t0 = time.process_time()
    ends = step_ends(n, spec)
    blocks = frame_blocks(np.zeros(len(ends), int), ends, 32)
    made, held = time.process_time() - t0, tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    places = len(np.unique(ends[ends >= 0]))
    x = Picked(torch.zeros(blocks.frames.size, 512), torch.from_numpy(blocks.index))
    t0 = time.process_time()
    for i in torch.randperm(len(x)).split(96):
        x[i]
    read = time.process_time() - t0
    return dict(hop=spec.hop, windows=len(ends), sub_sequences=places, made_s=round(made, 3),
                read_s=round(read, 3), lists_MB=round(held / 1e6, 2),
                table_MB=round(places * 512 * 4 / 1e6, 1))  # fmt: skip


def backbone(name, repeats):
    "A row of the table: one sub-sequence through a frozen backbone"
    b, x = build_backbone(name, say=False).eval(), torch.rand(INPUTS[name])
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            t0 = time.process_time()
            b(x)
            times.append(time.process_time() - t0)
    return dict(backbone=name, ms=round(1000 * min(times[1:])))


def main():
    p = arguments(__doc__)
    p.add_argument("--frames", type=int, default=9000, help="of a video: 5 minutes at 30 a second")
    p.add_argument("--repeats", type=int, default=3)
    a = p.parse_args()
    torch.set_num_threads(1)
    windows(256, JCA2023)  # the first time it is slow
    hops = [Windows(256, h, 4, 8, each_frame=True) for h in (32, 8, 4)]
    cut = [windows(a.frames, spec) for spec in [*hops, JCA2023]]
    seen = [backbone(name, a.repeats) for name in INPUTS]
    tables = {f"A video of {a.frames} frames": cut, "One sub-sequence, processor time": seen}
    every, sparse = cut[-1]["table_MB"], cut[0]["table_MB"]
    figures = [figure("features, hop 1", every, "MB", "hop 32", sparse / every)]
    figures += [figure(r["backbone"], r["ms"], "ms a sub-sequence") for r in seen]
    tell(a, tables, figures, environment("torch", threads=1))


if __name__ == "__main__":
    main()
