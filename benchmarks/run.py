"""All benchmark tables, with the machine's name.

    make benchmarks                               all, in less than 20 minutes on two idle cores
    python benchmarks/run.py --list               what there is
    python benchmarks/run.py --only mfcc faces    some, printed and not kept
    python benchmarks/run.py --again scale        measured once more; the page keeps the others
    python benchmarks/run.py --quick              a look at each, printed and not kept
    python benchmarks/run.py --to FOLDER          README.md and results.json go there

Each table is made by a script of this folder, in a process of its own with a limit of its own, and
printed when it is done. A script that fails is named with its reason, the rest goes on, and the
exit status is 1. A whole run writes results.json, and from it alone the part of README.md between
its marks.
"""

import argparse, ast, json, os, re, resource, signal, subprocess, sys, tempfile, time
from dataclasses import dataclass
from pathlib import Path
from common import machine, ROOT, table
import psutil

HERE = Path(__file__).resolve().parent
BEGIN = "<!-- made by `make benchmarks`: do not edit -->"
END = "<!-- /made by `make benchmarks` -->"
NO_TABLES = {"common", "run", "compare", "small", "talking"}


@dataclass(frozen=True)
class Plan:
    "How a script is run here"

    flags: str = ""
    quick: str = ""  # in place of `flags`, with --quick
    limit: int = 120  # seconds of processor time
    alone: str = ""  # why it is not run here


PLANS = {  # in this order; a script without a plan comes last, with its own defaults
    "methods": Plan("", "--repeats 2", 60),
    "mfcc": Plan("--threads 1", "--clips 20 --threads 1 --repeats 1", 60),
    "joint_attention": Plan("", "--repeats 2", 60),
    "training": Plan("", "--steps 1 --repeats 1", 60),
    "shares": Plan(
        "--recipes demo chumachenko2022 emotiw2023 jca2023 --repeats 2 --rounds 1",
        "--recipes jca2023 --repeats 1 --threads", 180),
    "windows": Plan("", "--repeats 1", 60),
    "import_time": Plan("--rounds 3", "--rounds 1 --modules avkit"),
    "faces": Plan("", "--clips 1 --rounds 1"),
    "prepare": Plan("", "--clips 1 --rounds 1 --processes 1 --many 2", 240),
    "products": Plan("", "--rounds 1 --networks", 180),
    "numerics": Plan("--threads 1", "--threads 1 --clips 16 --epochs 1 --rounds 1"),
    "audit": Plan("--repeats 60", "--repeats 1 --permutations 19", 180),
    "corpora": Plan("--only memory --minutes .5 2", "--only memory --minutes .02 .05", 180),
    "frozen": Plan(
        "--recipes vavl2023 --modality audio --clips 2",
        "--recipes jca2023 --modality audio --clips 1", 180),
    "released": Plan(alone="it takes twenty minutes: `python benchmarks/run.py --again released`"),
    "memory": Plan(
        "--batch 2 --recipes jca2023 vavl2023 chumachenko2022 ntua2021",
        "--size small --batch 2 --recipes jca2023", 500),
    "scale": Plan(
        "--sizes 1000 100000", "--sizes 100 200",
        alone="it takes half an hour: `python benchmarks/run.py --again scale`"),
    "commands": Plan(
        "--sizes 1000 10000 100000", "--sizes 100 200",
        alone="it takes an hour: `python benchmarks/run.py --again commands`"),
    "precision": Plan(
        alone="it trains every recipe twice, in an hour or more: `python benchmarks/precision.py`"),
    "gpu": Plan(alone="it is for a GPU, in eight minutes: `benchmarks/gpu.sh`"),
}  # fmt: skip


def scripts(folder: Path = HERE) -> list[str]:
    "The names of all scripts that print a table, in the order in which they run"
    found = {p.stem for p in folder.glob("*.py")} - NO_TABLES
    return [n for n in PLANS if n in found] + sorted(found - set(PLANS))


def described(path: Path) -> dict[str, str]:
    "What a script's docstring says: question, compared_to, takes"
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    said = {}
    for key, word in ("compared_to", "Compared to"), ("takes", "Takes"):
        m = re.search(rf"^{word}: (.+?)(?=\n\n|\n[A-Z]\w*(?: to)?: |\Z)", doc, re.M | re.S)
        said[key] = " ".join(m[1].split()) if m else ""
    question = " ".join(re.split(r"\n\n|\n(?=Compared to: )", doc)[0].split())
    return dict(question=question) | said


def tables_of(text: str) -> list[dict]:
    "The Markdown tables of a text: title (the line before) and rows"
    out, title, block = [], "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([c.strip() for c in line.strip().strip("|").split("|")])
            continue
        if len(block) > 2:
            rows = [dict(zip(block[0], cells)) for cells in block[2:]]
            out.append(dict(title=title, rows=rows))
            title = ""
        block = []
        title = line.strip() or title
    return out


def spent(process: psutil.Process) -> float:
    "Seconds of processor time of a process and all that it started"
    total = 0.0
    try:
        for p in [process, *process.children(recursive=True)]:
            total += sum(p.cpu_times()[:4])  # its own and those of its ended children
    except psutil.Error:
        pass
    return total


def end_of(child: subprocess.Popen, limit: float) -> str:
    "Wait; why it was stopped, or nothing"
    process, began = psutil.Process(child.pid), time.monotonic()
    while True:
        try:
            child.wait(0.2)
            return ""
        except subprocess.TimeoutExpired:
            pass
        waited = time.monotonic() - began
        if spent(process) > limit or waited > 6 * limit:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"it was stopped at its limit, {limit:g} s of processor time"


def reason(status: int, said: str) -> tuple[str, str]:
    "(failed or left out, why) of a script that ended with a status"
    last = (said.strip().splitlines() or ["nothing was said"])[-1][:300]
    last = last.replace(f"{ROOT}/", "")
    if m := re.match(r"ModuleNotFoundError: No module named '([\w.]+)'", last):
        return "left out", f"it needs the package {m[1]}"
    return "failed", f"exit status {status}: {last}"


def run(
    path: Path,  # the script
    flags: list[str],
    limit: float,  # seconds of processor time
) -> dict:
    "What came of a script: state, why, tables, figures, seconds of processor time"
    env = os.environ | dict(PYTHONPATH=str(ROOT), AVKIT_PROGRESS="0", OMP_NUM_THREADS="1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as tmp:
        out, text, errors = (Path(tmp) / n for n in ("out.json", "text", "errors"))
        source = path.read_text(encoding="utf-8")
        if "--out" in source or "arguments(" in source:
            flags = [*flags, "--out", str(out)]
        with text.open("w") as o, errors.open("w") as e:
            child = subprocess.Popen(
                [sys.executable, path, *flags],
                env=env, cwd=ROOT, stdout=o, stderr=e, start_new_session=True)  # fmt: skip
            try:
                stopped = end_of(child, limit)
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        printed, said = text.read_text(), errors.read_text()
        found = json.loads(out.read_text()) if out.exists() else {}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = found if isinstance(found, dict) else {}
    if "tables" not in found:
        found |= dict(tables=tables_of(printed))
    state, why = ("failed", stopped) if stopped else ("done", "")
    if child.returncode and not stopped:
        state, why = reason(child.returncode, said)
    elif not stopped and not found["tables"]:
        state, why = "failed", "it printed no table"
    keep = {k: found.get(k, []) for k in ("tables", "figures", "notes")}
    more = dict(environment=found.get("environment", ""), seconds=round(seconds, 1))
    return dict(state=state, why=why) | keep | more


def section(name: str, r: dict) -> str:
    "A script's part of the page"
    parts = [f"### {name}", r["question"]]
    if r["compared_to"]:
        parts.append(f"Compared to: {r['compared_to']}")
    if r["state"] != "done":
        parts.append(f"**{r['state']}**: {r['why']}")
    parts += r["notes"]
    for t in r["tables"]:
        parts += [t["title"], table(t["rows"])]
    if r["environment"]:
        again = f"; measured again, {r['again']}" if "again" in r else ""
        told = f"{r['environment']}; {r['command']}, {r['seconds']:g} s of processor time{again}"
        parts.append(told)
    return "\n\n".join(p for p in parts if p)


def contents(results: dict) -> str:
    "The table of contents: what was run, what came of it"
    rows = [
        {
            "table": f"[{name}](#{name})",
            "compared to": r["compared_to"],
            "processor time, s": r["seconds"],
            "state": r["state"] + (f": {r['why']}" if r["why"] else ""),
        }
        for name, r in results["scripts"].items()
    ]
    return table(rows)


def glance(results: dict) -> str:
    "Every figure that has something to be compared to"
    rows = [
        {
            "table": name,
            "what": f["name"],
            "value": f["value"],
            "unit": f["unit"],
            "compared to": f["compared_to"],
            "times as good": f["ratio"],
        }
        for name, r in results["scripts"].items()
        for f in r["figures"]
        if f["ratio"] is not None
    ]
    return table(rows) if rows else ""


def machine_line(results: dict) -> str:
    "The machine's name, when, at which commit, and how busy"
    m = results["machine"]
    changed = " with changes" if m["changed"] else ""
    line = (
        f"{m['processor']}, {m['cores']} cores, {m['memory_GB']} GB, {m['system']}; "
        f"Python {m['python']}, torch {m['torch']}; {m['date']}, commit {m['commit']}{changed}; "
        f"load {m['load']} at the start"
    )
    if "seconds" in results:
        line += f"; {results['seconds']:.0f} s of processor time in {results['waited']:.0f} s"
    return line


def page(results: dict) -> str:
    "The part of README.md between its marks"
    lost = ", ".join(n for n in results["asked"] if n not in results["scripts"])
    parts = [machine_line(results), f"The run was stopped before: {lost}." if lost else ""]
    parts += [contents(results), "### At a glance", glance(results)]
    parts += [section(n, r) for n, r in results["scripts"].items()]
    return "\n\n".join([BEGIN, *(p for p in parts if p), END])


def write(results: dict, folder: Path) -> None:
    "results.json, and its page in README.md (between the marks of one that is there)"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    readme = folder / "README.md"
    old = readme.read_text(encoding="utf-8") if readme.exists() else f"{BEGIN}{END}\n"
    head, tail = old.partition(BEGIN)[0], old.partition(END)[2]
    readme.write_text(head + page(results) + tail, encoding="utf-8")


def listing() -> str:
    "What there is, how it is run, and how long that may take"
    rows = []
    for name in scripts():
        plan, said = PLANS.get(name, Plan()), described(HERE / f"{name}.py")
        at_most = "" if plan.alone else f"{plan.limit} s"
        rows.append({"table": name, "question": said["question"], "takes": said["takes"],
                     "at most": at_most, "flags": plan.flags})  # fmt: skip
    return table(rows)


def one(name: str, a: argparse.Namespace) -> dict:
    "The result of one script, with what its docstring says"
    plan, path = PLANS.get(name, Plan()), HERE / f"{name}.py"
    flags = plan.quick if a.quick else plan.flags
    said = described(path) | dict(command=f"`benchmarks/{name}.py {flags}`".replace(" `", "`"))
    if plan.alone and not ((a.only or a.again) and name != "gpu"):
        lost = dict(tables=[], figures=[], notes=[], environment="", seconds=0)
        return said | dict(state="left out", why=plan.alone) | lost
    return said | run(path, flags.split(), 24 * 3600 if plan.alone else plan.limit)


def earlier(folder: Path, here: dict) -> tuple[dict, float]:
    "The results of a run on this machine, and the seconds it took"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if any(results["machine"][k] != here[k] for k in ("processor", "cores", "torch")):
        sys.exit("the page is of another machine: make it whole, without --again")
    return results, results["waited"]


def kept_results(folder: Path, here: dict) -> dict[str, dict]:
    "What a page of this machine has of scripts that a whole run leaves out"
    path = folder / "results.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if any(old.get("machine", {}).get(k) != here[k] for k in ("processor", "cores", "torch")):
        return {}
    return {n: r for n, r in old["scripts"].items() if "again" in r and PLANS.get(n, Plan()).alone}


def main(argv: list[str] | None = None) -> int:
    "Run what is asked for; the exit status is 1 when a script failed"
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", nargs="+", metavar="NAME", choices=scripts(), help="these scripts")
    p.add_argument("--again", nargs="+", metavar="NAME", choices=scripts(), help="of the page")
    p.add_argument("--list", action="store_true", help="what there is")
    p.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    p.add_argument("--to", type=Path, metavar="FOLDER", help="where README.md and results.json go")
    a = p.parse_args(argv)
    if a.list:
        print(listing())
        return 0
    to = a.to or (None if a.only or a.quick else HERE)
    names, began = a.again or a.only or scripts(), time.monotonic()
    results, waited = dict(machine=machine(), asked=names, scripts={}), 0.0
    before = kept_results(to or HERE, results["machine"])
    if a.again:
        results, waited = earlier(to or HERE, results["machine"])
    print(machine_line(results), flush=True)
    for name in names:
        r = results["scripts"][name] = one(name, a)
        if r["state"] == "left out" and name in before:
            r = results["scripts"][name] = before[name]
        if a.again:
            r["again"] = "{date}, commit {commit}".format_map(machine())
        print(f"\n{section(name, r)}", flush=True)
        results["seconds"] = round(sum(r["seconds"] for r in results["scripts"].values()), 1)
        results["waited"] = round(waited + time.monotonic() - began, 1)
        if to:  # after each, so that a run that is stopped has made the page of what it did
            write(results, to)
    print(f"\n{machine_line(results)}\n\n{contents(results)}")
    return int(any(r["state"] == "failed" for r in results["scripts"].values()))


if __name__ == "__main__":
    sys.exit(main())
