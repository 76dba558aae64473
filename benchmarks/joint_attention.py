"""How fast is joint cross-attention (jca2023), forward and backward, in one batch?

Compared to: the same weights in a Python loop over the samples, as the released code does it.
Takes: 7 s.
"""

import time
from common import arguments, best, environment, figure, tell
import torch
from avkit.models.fusion import JointCrossAttention


class Sequence:  # what the block wants to know of an encoder
    dim = mid_dim = 512


def one_by_one(m, audio, video):
    "The same weights, a sample at a time (papers.md, jca2023, defect 6)"
    out = []
    for a, v in zip(audio, video):
        xa, xv = m.encoder1(a), m.encoder2(v)
        j = torch.cat([xa, xv], 1)  # (L,256)
        both = []
        for x, affine, W, W_c, W_h in (
            (xa, m.affine_a, m.W_a, m.W_ca, m.W_ha),
            (xv, m.affine_v, m.W_v, m.W_cv, m.W_hv),
        ):
            c = torch.tanh(x.t() @ affine(j.t()).t() / j.shape[1] ** 0.5)
            both.append(W_h(torch.relu(W_c(c) + W(x.t()))).t() + x)
        out.append(torch.cat(both, 1))
    return torch.stack(out)


def main():
    p = arguments(__doc__)
    p.add_argument("--batch", type=int, nargs="+", default=[96], help="stretches")
    p.add_argument("--device", default="cpu", help="cpu, cuda")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--repeats", type=int, default=20, help="the shortest of so many rounds counts")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    m, rows = JointCrossAttention(Sequence(), Sequence()).to(a.device), []
    on_gpu = a.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for n in a.batch:
        audio, video = (torch.randn(n, 8, 512, device=a.device) for _ in range(2))
        mask = torch.ones(n, 8, dtype=torch.bool, device=a.device)
        batched = lambda: torch.cat([x for x, _ in m.head_inputs(audio, mask, video, mask)], -1)
        loop = lambda: one_by_one(m, audio, video)
        gap = (batched() - loop()).abs().max().item()

        def step(f):
            m.zero_grad()
            f().square().mean().backward()
            wait()

        times = {}
        for k, f in (("batched", batched), ("one by one", loop)):
            step(f)
            times[k] = best(lambda: step(f), a.repeats, clock)
        rows += [
            dict(
                batch=n,
                what=k,
                ms=1e3 * t,
                **{"times one by one": times["one by one"] / t, "largest difference": gap},
            )
            for k, t in times.items()
        ]
    name = torch.cuda.get_device_name() if on_gpu else "CPU, processor time"
    title = (
        f"Joint cross-attention on {name}, 8 sub-sequences, forward and backward "
        "(goal: 1.5 times on a CPU, 20 on a GPU)"
    )
    figures = [
        figure(f"batch of {r['batch']}", r["ms"], "ms", "one by one", r["times one by one"])
        for r in rows[::2]
    ]
    tell(a, {title: rows}, figures, environment("torch", threads=a.threads))


if __name__ == "__main__":
    main()
