"""How often does an audit find something where nothing is, and how much does it take to be found?

Compared to: what an audit at a level of 5 % may find in so many repeats (the 99th percentile).
Takes: 265 s with 200 repeats.

Tables of measures are drawn, not files: eight speakers (or as many as a design has), each with a
room, a microphone and habits of its own, and labels that have nothing to do with them. An audit
keeps its level where it finds anything, after its correction, in at most 5 % of the repeats.
"""

from common import arguments, environment, figure, tell
from avkit.evaluation.audit import answers, Labels, LEVEL, question
from avkit.preprocessing.circumstances import GROUPS, WORDS
import numpy as np, pandas as pd
from scipy.stats import binom

NUMBERS = [c for some in GROUPS.values() for c in some if c not in WORDS]


def measures(who, rng):  # the speaker of each clip
    "A table of measures: half of their spread is the speaker's, some have heavy tails"
    S, N, d = who.max() + 1, len(who), len(NUMBERS)
    own = rng.standard_normal((S, d))[who] + rng.standard_normal((N, d))
    own[:, ::3] = np.exp(own[:, ::3])
    words = {w: rng.choice(["one", "two"], S)[who] for w in WORDS}
    return pd.DataFrame(own, columns=NUMBERS).assign(**words)


def balanced(rng):
    "Each of eight speakers has each of four classes three times"
    who = np.repeat(np.arange(8), 12)
    return who, Labels(np.tile(np.arange(4), 24), list("abcd"))


def uneven(rng):
    "Speakers have 4 to 24 clips, and each prefers some of four classes"
    who = np.repeat(np.arange(8), rng.integers(4, 25, 8))
    shares = rng.dirichlet(np.ones(4), 8)
    y = np.array([rng.choice(4, p=shares[s]) for s in who])
    return who, Labels(y, list("abcd"))


def one_each(rng):
    "Each of twelve speakers has one of two classes only"
    who = np.repeat(np.arange(12), 8)
    return who, Labels(rng.permutation(np.arange(12) % 2)[who], list("ab"))


def unknown(rng):
    "Nobody knows the speakers: 96 clips of four classes"
    return np.arange(96), Labels(rng.permutation(np.arange(96) % 4), list("abcd"))


def numbers(rng):
    "Valence and arousal, each speaker around a mean of its own"
    who = np.repeat(np.arange(8), 12)
    y = rng.standard_normal((8, 2))[who] + rng.standard_normal((96, 2))
    return who, Labels(y, ["valence", "arousal"])


DESIGNS = [balanced, uneven, one_each, unknown, numbers]


def found(design, seed, permutations, planted=0.0):
    "The groups that one audit finds; `planted` is added to the length of a class, in deviations"
    rng = np.random.default_rng([seed, DESIGNS.index(design)])
    who, labels = design(rng)
    t = measures(who, rng)
    first = labels.y if labels.classes else labels.y[:, 0]
    t["seconds"] += planted * first
    q = question(labels, who.astype(str), permutations=permutations, seed=seed)
    known = design is not unknown
    rows = answers(t, q, known, desc=None, beside=False)
    own = [r["group"] for r in rows if r.get("p_holm", 1) < LEVEL]
    return [g for g in own if g != "speaker" or design not in (uneven, one_each, numbers)]


def main():
    p = arguments(__doc__)
    p.add_argument("--repeats", type=int, default=200)
    p.add_argument("--permutations", type=int, default=499)
    p.add_argument("--planted", type=float, nargs="*", default=[0.0])
    a = p.parse_args()
    rows, figures = [], []
    for planted in a.planted:
        for design in DESIGNS:
            every = [found(design, i, a.permutations, planted) for i in range(a.repeats)]
            n = sum(map(bool, every))
            seen = sum("duration" in x for x in every)
            rows.append(
                {
                    "design": design.__name__,
                    "planted": planted,
                    "found anything": f"{n} of {a.repeats}",
                    "found duration": f"{seen} of {a.repeats}",
                    "at most, at .05": int(binom.ppf(0.99, a.repeats, LEVEL)),
                }
            )
            name = f"{design.__name__}, planted {planted:g}"
            figures.append(figure(name, n / a.repeats, "share of audits that find something"))
    title = f"{a.repeats} audits of each design, {a.permutations} permutations"
    tell(a, {title: rows}, figures, environment("numpy", "scipy", threads=1))


if __name__ == "__main__":
    main()
