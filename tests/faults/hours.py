"""Sound of many hours becomes a clip and a track in memory that does not grow with it.

python tests/faults/hours.py --hours 0.1 1 12 --out hours.json
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import lies
import mutants

GROWTH = 60  # MB that twelve hours may take more than a few minutes


def trial(hours, folder, rate=8000):
    "{fault, hours, mb, s, ended} of a FLAC of silence"
    path = folder / f"{hours:g}_hours.flac"
    made = mutants.in_child(lies._long_flac(rate, round(hours * 3600)), path, hang=3600)
    assert made[:2] == ("end", None), made
    found = mutants.in_child(mutants.look, path, "big.flac", folder / f"store_{hours:g}", hang=3600)
    end, told, mb, seconds = found
    ended = [line[0] for line in told] if isinstance(told, list) else [end, told]
    return dict(hours=hours, mb=round(mb), s=round(seconds), ended=ended)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--hours", type=float, nargs="+", default=[0.1, 1, 12], help="of sound")
    p.add_argument("--out", type=Path, help="a JSON file of what was measured")
    a = p.parse_args(argv)
    mutants.warm()
    with tempfile.TemporaryDirectory() as folder:
        found = [trial(h, Path(folder)) for h in a.hours]
    least = min(t["mb"] for t in found)
    bad = [t for t in found if t["ended"] != ["done", "done"] or t["mb"] > least + GROWTH]
    rows = [dict(fault=f"hours of sound, to {max(a.hours):g}", tried=len(found),
                 held=len(found) - len(bad), **{"not": len(bad)})]  # fmt: skip
    print(mutants.table(rows))
    for t in found:
        print(json.dumps(t), file=sys.stderr)
    if a.out:
        told = dict(rows=rows, measured=found, did_not_hold=bad)
        a.out.write_text(json.dumps(told, indent=1) + "\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
