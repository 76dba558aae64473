"""What does avkit add to `import torch`? Processor time of fresh processes, the median of some.

Compared to: `import torch` alone.
Takes: 50 s.
"""

import subprocess, sys
from statistics import median
from common import arguments, environment, figure, tell

CODE = "import time; t = time.process_time(); {}; print(time.process_time() - t)"


def seconds(statement):
    "How long a statement takes in a fresh process"
    return float(
        subprocess.run(
            [sys.executable, "-c", CODE.format(statement)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )


def main():
    p = arguments(__doc__)
    p.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    p.add_argument(
        "--modules",
        nargs="+",
        default=[
            "avkit",
            "avkit.preprocessing.audio",
            "avkit.preprocessing.faces",
            "avkit.models.model",
            "avkit.training.learner",
            "avkit.preprocessing.prepare",
        ],
    )
    a = p.parse_args()
    seconds("import torch")  # the files are in memory from here on
    statements = {"torch": "import torch"} | {m: f"import torch, {m}" for m in a.modules}
    rounds = [{k: seconds(s) for k, s in statements.items()} for _ in range(a.rounds)]
    rows = [
        {
            "import": k if k == "torch" else f"torch, {k}",
            "seconds": median(r[k] for r in rounds),
            "added to torch": median(r[k] - r["torch"] for r in rounds),
        }
        for k in statements
    ]
    alone = rows[0]["seconds"]
    figures = [
        figure(r["import"], r["seconds"], "s", "import torch", alone / r["seconds"])
        for r in rows[1:]
    ]
    title = f"Median of {a.rounds} fresh processes (goal: less than 1 s added)"
    tell(a, {title: rows}, figures, environment("torch", threads="any"))


if __name__ == "__main__":
    main()
