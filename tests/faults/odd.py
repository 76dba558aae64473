"""Odd inputs: each file and each setting that avkit reads, with something wrong in it.

    python tests/faults/odd.py [--inputs 500] [--seed 0] [--only record,card] [--out odd.json]

A run, its card, its report, tables, lists, annotations and archives are made once. Then, each in a
process of its own, one of them is made odd (another type, a field that is missing, huge, nested or
NaN, another encoding, half a file) and read by the command or the function that reads it. What
comes of it is a sentence, or it was harmless; a traceback, a crash or a hang does not hold.
"""

import argparse, contextlib, io, json, os, random, resource, shutil, signal, sys, tarfile
import tempfile, time, traceback, zipfile
from collections import Counter
from pathlib import Path

import avkit  # noqa: F401 first, since it decides on numerics
import numpy as np, pandas as pd, torch

from avkit.cli import main
from avkit.core import AvkitError

SECONDS, MEMORY = 120, 8 << 30  # of one input, before it is a hang, or has swollen

ODD = [None, True, False, 0, -1, 3, 10**30, 1e308, -0.5, float("nan"), float("inf"), "", "x", "1",
       "../x", "/", "\x00", "é\u202e\U0001f600", "$x_{$", "a" * 20000, "%s%n{}", [], {}, [[]],
       [None], [1, "x"], ["x"], {"a": {"b": [1]}}, {"": None}, {"x": 1}, [[1, 2], [3]],
       json.loads("[" * 90 + "]" * 90)]  # fmt: skip
TEXTS = ["", " ", "x", "-1", "nan", "inf", "1e999", "0", "9" * 400, "\x00", "é\u202e\U0001f600",
         "a" * 20000, "=1+1", '"', "'", ",", "[", "{}", "[]", "null", "None", "True", "../..", "/",
         "$x_{$", "%s", "a\nb", "1,2", "x=", "{\"x\": 1}", "\ud800", "1:2:3", "{speaker",
         "("]  # fmt: skip
NAMES = ["$x_{$", "prediction", "target", "condition", "split", "<img src=x onerror=alert(1)>",
         "=cmd|' /C calc'!A0", "+1", "@SUM(1)", "a\nb", "\\frac{", "50%", "R&D", "a|b", "`c`",
         "\u202egnp", "e" * 120, "\U0001f600", "clip", "fold", "None", "nan", ".", "time", "_x",
         "-"]  # fmt: skip


# ---- valid files


def voices(root, classes=("calm", "angry"), name="voices", seed=0):
    "Twelve clips of three people, and their features"
    from avkit.preprocessing.writing import write_wav

    rng, rows = np.random.default_rng(seed), []
    for i in range(12):
        speaker, label = f"p{i % 3 + 3 * seed}", classes[i // 3 % len(classes)]
        path = root / name / label.replace("/", "_") / f"{speaker}_{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, (rng.standard_normal(4000) * 0.1).astype(np.float32), 8000)
        clip = f"{path.parent.name}/{path.stem}"
        rows.append((clip, label, speaker, i % 2 + rng.normal(), rng.normal()))
    return pd.DataFrame(rows, columns=["name", "label", "speaker", "a", "b"])


def flags(root, run, *more):
    return ["train", "--dataset=folder", f"--data_root={root}/voices", "--modality=audio",
            "--layout=class", "--pattern={speaker}_{take}", "--recipe=demo", "--epochs=1",
            "--split=kfold3", "--n_jobs=1", "--batch_size=4", "--device=cpu", f"--run_dir={run}",
            *more]  # fmt: skip


def ok(*argv):
    status = main(list(map(str, argv)))
    if status:
        raise SystemExit(f"status {status} of {' '.join(map(str, argv))}")


def export(run, card):
    "A card, without graphs, which take long"
    from avkit.evaluation import export as ex

    ex.to_graphs = lambda *a: {}
    return ex.export_card(run, card)


def make_tables(root):
    "Clips, and lists and tables about them"
    from avkit.datasets.folder import index
    from avkit.datasets.manifest import write_manifest

    t = voices(root)
    voices(root, ("calm", "anger"), "others", 1)
    t[["name", "a", "b"]].to_csv(root / "features.csv", index=False)
    t[["name", "a", "b"]].to_json(root / "features.jsonl", orient="records", lines=True)
    table = t.assign(file=t.name + ".wav", arousal=t.a)[["file", "label", "speaker", "arousal"]]
    table.to_csv(root / "labels.csv", index=False)
    table.to_json(root / "labels.json", orient="records")
    table.to_csv(root / "labels.tsv", index=False, sep="\t")
    table.to_parquet(root / "labels.parquet")
    split = t.assign(clip=t.name, split=["train", "validation", "test"] * 4)
    split[["clip", "split"]].to_csv(root / "split.csv", index=False)
    (root / "answers.json").write_text(json.dumps(dict(layout="class", label="label")))
    (root / "meanings.csv").write_text("class,meaning\ncalm,calm\nangry,anger\nanger,anger\n")
    m = index(root / "voices", layout="class", pattern="{speaker}_{take}")
    write_manifest(m, root / "manifest.csv")


def make_others(root):
    "Facts of data sets, a copy of one, joints, files of a submission"
    from avkit.datasets.manifest import manifests_dir

    (root / "facts").mkdir()
    for p in manifests_dir().iterdir():
        shutil.copy(p, root / "facts" / p.name)
    (root / "ravdess").mkdir()
    for i in range(1, 9):
        (root / f"ravdess/03-01-0{i}-01-01-01-01.wav").write_bytes(b"x" * i)
    joints = dict(people=[dict(pose_keypoints_2d=[1.0] * 75)])
    (root / "joints.json").write_text(json.dumps(joints))
    (root / "submission").mkdir()
    (root / "submission/1.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 5)
    names = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
    (root / "submission/2.txt").write_text(names + "3\n" * 5)


def make_run(root):
    "A run, its report and its card; and weights of others"
    ok(*flags(root, root / "run"))
    ok("report", root / "run", "--to", root / "report")
    export(root / "run", root / "card")
    make_weights(root)


def make_films(root):
    "Two recordings with labels over time, in each form that is read"
    from avkit.datasets.intervals import write_intervals
    from avkit.preprocessing.writing import write_wav

    rows = [
        dict(start=0.1 + i / 4, end=0.3 + i / 4, label=("calm", "angry")[i % 2]) for i in range(4)
    ]
    for i, ending in enumerate(("eaf", "TextGrid", "srt", "vtt", "txt")):
        film = root / f"films-{ending}"
        film.mkdir()
        for j in range(2):
            write_wav(film / f"f{j}.wav", np.ones(12000, np.float32) * 0.1, 8000)
            write_intervals(
                film / f"f{j}.{ending}", pd.DataFrame(rows).assign(tier="emotion", speaker="")
            )
    trace = root / "traces"
    trace.mkdir()
    write_wav(trace / "f0.wav", np.ones(12000, np.float32) * 0.1, 8000)
    lines = [f"{i / 10},{i / 20},{-i / 20}" for i in range(15)]
    (trace / "f0.csv").write_text("time,valence,arousal\n" + "\n".join(lines) + "\n")


def make_weights(root):
    "A folder as transformers saves it, its weights in a part, and a checkpoint as torch does"
    from safetensors.torch import load_file
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    small = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=[16], conv_kernel=[10], conv_stride=[5], num_feat_extract_layers=1,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)  # fmt: skip
    Wav2Vec2Model(small).save_pretrained(root / "hf")
    Wav2Vec2FeatureExtractor().save_pretrained(root / "hf")
    (root / "hf/model.safetensors").rename(root / "hf/part.safetensors")
    weights = dict.fromkeys(load_file(root / "hf/part.safetensors"), "part.safetensors")
    index = dict(metadata={}, weight_map=weights)
    (root / "hf/model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(dict(state_dict={"module.classifier_1.0.weight": torch.ones(8, 4)}), root / "net.pt")
    (root / "opts1.json").write_text(json.dumps(dict(num_heads=1)))


# ---- what makes them odd


def paths_of(x, here=()):
    "The place of each value in nested JSON"
    yield here
    items = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ()
    for k, v in items:
        yield from paths_of(v, (*here, k))


def replaced(x, path, f):
    "The same JSON with f(value) at a place; f may raise KeyError to leave it out"
    if not path:
        return f(x)
    k, *rest = path
    y = x.copy()
    try:
        y[k] = replaced(x[k], tuple(rest), f)
    except KeyError:
        del y[k]
    return y


def odd_value(rng, x):
    "Nested JSON with one value in it replaced, or left out; and what was done, in words"
    every = [p for p in paths_of(x) if p]
    depth = rng.choice(sorted({len(p) for p in every}))  # each depth as often as any other
    path = rng.choice([p for p in every if len(p) == depth])
    value = rng.choice([*ODD, KeyError])

    def f(old):
        if value is KeyError:
            raise KeyError
        return value

    said = "left out" if value is KeyError else repr(value)[:40]
    return replaced(x, path, f), f"{'.'.join(map(str, path))}: {said}"


def odd_bytes(rng, data):
    "A file's bytes, spoilt as a whole; and how"
    n = len(data)
    how = dict(
        empty=b"", cut=data[: rng.randrange(1, max(2, n))], zeros=bytes(n), null=b"null",
        number=b"3", list=b"[]", object=b"{}", text=b'"x"', deep=b"[" * 200000, tail=data + b"}",
        utf16=data.decode("utf-8", "replace").encode("utf-16"), latin=b"\xe9\xff" + data,
        bom=b"\xef\xbb\xbf" + data, nul=data[: n // 2] + b"\0" + data[n // 2 :],
        twice=data + data, lines=data.replace(b"\n", b"\r"), deeper=b'{"a":' * 100000,
        digits=b"9" * 10000)  # fmt: skip
    name = rng.choice(list(how))
    return how[name], name


def odd_json(rng, path):
    if rng.random() < 0.15:
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
        return said
    x, said = odd_value(rng, json.loads(path.read_text()))
    text = json.dumps(x)
    if rng.random() < 0.1:
        text, said = text.replace('{"', '{"a": 1, "a": [], "', 1), said + ", keys twice"
    path.write_text(text)
    return said


def odd_table(rng, path, sep=","):
    "A CSV with one cell, column or row that is odd"
    if rng.random() < 0.15:
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
        return said
    rows = [line.split(sep) for line in path.read_text().splitlines()]
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    what = rng.choice(["cell"] * 5 + ["column", "header", "long", "short", "lost", "twice", "head"])
    text = rng.choice(TEXTS)
    if what == "cell":
        rows[i][j] = text
    elif what == "column":
        for r in rows[1:]:
            r[j] = text
    elif what == "header":
        rows[0][j] = text
    elif what == "long":
        rows[i] += [text] * 3
    elif what == "short":
        rows[i] = rows[i][:j]
    elif what == "lost":
        rows = [r[:j] + r[j + 1 :] for r in rows]
    elif what == "twice":
        rows = [[*r, r[j]] for r in rows]
    else:
        rows = rows[:1]
    lines = "\n".join(sep.join(r) for r in rows) + "\n"
    path.write_bytes(lines.encode("utf-8", "surrogatepass"))
    return f"{what} {rows[0][j] if j < len(rows[0]) else j}, line {i + 1}: {text[:30]!r}"


def as_toml(x):
    "A value as TOML writes it"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in x.items()) + "}"
    if isinstance(x, list):
        return "[" + ", ".join(map(as_toml, x)) + "]"
    if x is None:
        return '"none"'
    if isinstance(x, float) and not np.isfinite(x):
        return str(x)
    return json.dumps(x)


def odd_toml(rng, path):
    import tomllib

    if rng.random() < 0.15:
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
        return said
    x, said = odd_value(rng, tomllib.loads(path.read_text()))
    text = "\n".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in x.items()).replace("\\u0000", "")
    path.write_text(text.replace('"\\ud', '"'))
    return said


def odd_text(rng, path):
    "A text in which one line, or the whole, is odd"
    if rng.random() < 0.3:
        data, said = odd_bytes(rng, path.read_bytes())
    else:
        lines = path.read_text().splitlines()
        i, text = rng.randrange(len(lines)), rng.choice(TEXTS)
        said = f"line {i + 1}: {text[:30]!r}"
        if rng.random() < 0.5 and any(c.isdigit() for c in lines[i]):
            digits = [j for j, c in enumerate(lines[i]) if c.isdigit()]
            j = rng.choice(digits)
            lines[i] = lines[i][:j] + text + lines[i][j + 1 :]
        else:
            lines[i] = text
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    return said


def odd_tensors(rng, path):
    "A safetensors file with odd facts in its head, odd tensors, or spoilt as a whole"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as f:
        tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}
    kind = rng.random()
    name = rng.choice(list(tensors))
    if kind < 0.5 and "avkit" in meta:
        x, said = odd_value(rng, json.loads(meta["avkit"]))
        meta["avkit"] = json.dumps(x)
    elif kind < 0.6:
        meta, said = rng.choice([({}, "no facts"), ({"avkit": "[]"}, "facts []"),
                                 ({"avkit": "{"}, "half facts"), ({"avkit": "3"}, "facts 3"),
                                 ({"avkit": "[" * 100000}, "deep facts")])  # fmt: skip
    elif kind < 0.9:
        odd = dict(
            nan=lambda t: t * float("nan"), bool=lambda t: t.bool(), long=lambda t: t.long(),
            half=lambda t: t.half(), empty=lambda t: torch.zeros(0),
            scalar=lambda t: torch.ones(()),
            flat=lambda t: t.reshape(-1), wide=lambda t: torch.cat([t.reshape(-1)] * 3),
            deep=lambda t: t[None, None], complex=lambda t: t.to(torch.complex64))  # fmt: skip
        how = rng.choice([*odd, "lost", "renamed", "all lost"])
        said = f"{name}: {how}"
        if how in odd:
            tensors[name] = odd[how](tensors[name]).contiguous()
        elif how == "lost":
            del tensors[name]
        elif how == "renamed":
            tensors["optimizer.x." + name] = tensors.pop(name)
        else:
            tensors = dict(x=torch.ones(1))
    else:
        data = path.read_bytes()
        how = rng.choice(["cut", "head", "huge", "empty", "flip"])
        said = how
        if how == "cut":
            data = data[: rng.randrange(len(data))]
        elif how == "head":
            data = data[:8] + b"{" * 50 + data[58:]
        elif how == "huge":
            data = (2**62).to_bytes(8, "little") + data[8:]
        elif how == "empty":
            data = b""
        else:
            data = data[:20] + bytes([data[20] ^ 1]) + data[21:]
        path.write_bytes(data)
        return said
    save_file(tensors, path, metadata={k: str(v) for k, v in meta.items()})
    return said


# ---- who reads them


def opened(run):
    "All that a run or a card tells by itself"
    from avkit.evaluation.runs import check_backbones, open_run

    r = open_run(run)
    told = [r.trained.classes, r.name, r.classes, r.task, r.level, r.streams, repr(r)]
    told.append(r.preparation)
    if not r.card:
        told += [r.side, r.condition, r.predictions]
    check_backbones(r)
    return told


def predicted(w, run):
    wav = next((w / "voices").rglob("*.wav"))
    return main(["predict", str(wav), "--run", str(run), "--to", str(w / "p")])


READS_RUN = dict(
    opened=lambda w: opened(w / "run"),
    report=lambda w: main(["report", str(w / "run"), "--to", str(w / "r")]),
    leaderboard=lambda w: main(["leaderboard", str(w / "run"), "--to", str(w / "l")]),
    evaluate=lambda w: main(["evaluate", f"--run={w}/run", "--conditions=audio", "--n_jobs=1",
                             "--device=cpu"]),
    train=lambda w: main(flags(w, w / "run")),
    export=lambda w: export(w / "run", w / "c"),
    predict=lambda w: predicted(w, w / "run"),
    grid=lambda w: main(["grid", *flags(w, "")[1:-1], f"--to={w}/g"]),
    ceilings=lambda w: main(["ceilings", str(w / "run"), "--to", str(w / "r")]),
    submission=lambda w: main(["submission", f"--run={w}/run", f"--to={w}/s"]),
)  # fmt: skip
OFTEN = ["opened"] * 3 + ["report"] * 2 + [*READS_RUN]


def record(rng, w):
    return odd_json(rng, w / "run/record.json"), READS_RUN[rng.choice(OFTEN)]


def best(rng, w):
    which = rng.choice(["opened", "evaluate", "predict", "export", "opened"])
    return odd_tensors(rng, w / "run/checkpoints/best.safetensors"), READS_RUN[which]


def last(rng, w):
    "The checkpoint of a run that goes on, or that others begin with"
    said = odd_tensors(rng, w / "run/checkpoints/last.safetensors")
    (w / "run/record.json").unlink()
    more = rng.choice(["--resume", f"--init={w}/run/checkpoints/last.safetensors"])
    run = w / "run" if more == "--resume" else w / "new"
    return said, lambda w: main(flags(w, run, more, "--epochs=2"))


def started(rng, w):
    said = odd_json(rng, w / "run/started.json")
    (w / "run/record.json").unlink()
    return said, lambda w: main(flags(w, w / "run", "--resume"))


def card(rng, w):
    "A card whose hashes are right, or missing, and whose content is odd"
    which = rng.choice(["config.json"] * 3 + ["hashes.json", "model.safetensors"])
    path = w / "card" / which
    said = odd_tensors(rng, path) if path.suffix == ".safetensors" else odd_json(rng, path)
    if which != "hashes.json":
        if rng.random() < 0.3:
            (w / "card/hashes.json").unlink()
        else:
            from avkit.evaluation.export import _write_hashes

            _write_hashes(w / "card")
    use = rng.choice([lambda w: opened(w / "card"), lambda w: predicted(w, w / "card"),
                      lambda w: main(flags(w, w / "new", f"--init={w}/card"))])  # fmt: skip
    return f"{which}: {said}", use


def run_tables(rng, w):
    which = rng.choice(["predictions.csv", "predictions.csv", "clips.csv", "history.csv"])
    use = rng.choice(["opened", "report", "leaderboard", "evaluate"])
    return f"{which}: {odd_table(rng, w / 'run' / which)}", READS_RUN[use]


def report(rng, w):
    from avkit.reports.index import remake

    which = rng.choice(["records.json", "records.json", "params.json"])
    said = odd_json(rng, w / "report" / which)
    use = rng.choice([lambda w: main(["leaderboard", str(w / "report"), "--to", str(w / "l")]),
                      lambda w: remake(w / "report", w / "r"),
                      lambda w: main(["report", f"{w}/run", "--to", f"{w}/report"])])  # fmt: skip
    return f"{which}: {said}", use


def settings(rng, w):
    "A setting of another type, from Python"
    from avkit.training.configure import configure
    from avkit.training.learner import fit
    from avkit.training.settings import DECLARED

    name, value = rng.choice(list(DECLARED)), rng.choice([*ODD, *TEXTS])
    usual = dict(dataset="folder", data_root=str(w / "voices"), modality="audio", layout="class",
                 split="kfold3", epochs=1, n_jobs=1, batch_size=4,
                 device="cpu", run_dir=str(w / "new"))  # fmt: skip

    def use(w):
        cfg = configure(**usual | {name: value})
        return fit(cfg, verbose=False) if 0 < cfg["epochs"] < 4 else cfg

    return f"{name}={value!r:.60}", use


def options(rng, w):
    "An option of the recipe of another type"
    from avkit.training.configure import configure
    from avkit.training.learner import fit
    from avkit.training.settings import COMMON

    names = [*COMMON, "preparation", *(f"preparation.{k}" for k in ("rate", "window", "size")),
             "head.hidden", "head.dropout", "audio_settings.n_mfcc", "windows.length",
             "encoder_options.audio_cnn.width", "focal.alpha", "backbone_options.x",
             "fusion_options.ca.heads"]  # fmt: skip
    name, value = rng.choice(names), rng.choice(ODD)
    form = rng.choice(["mapping", "json", "pairs"])
    usual = dict(dataset="folder", data_root=str(w / "voices"), modality="audio", layout="class",
                 split="kfold3", epochs=1, n_jobs=1, batch_size=4,
                 device="cpu", run_dir=str(w / "new"))  # fmt: skip

    def use(w):
        given = {name: value}
        if form == "json":
            given = json.dumps(given)
        if form == "pairs":
            given = f"{name}={value}"
        cfg = configure(**usual, options=given)
        return fit(cfg, verbose=False) if 0 < cfg["epochs"] < 4 else cfg

    return f"{form} {name}: {value!r:.60}", use


def command_line(rng, w):
    from avkit.training.settings import FLAGS

    command = rng.choice(["train", "train", "grid", "prepare", "index"])
    name, text = rng.choice(FLAGS), rng.choice(TEXTS)
    if name in ("epochs", "threads") and text.startswith("9"):
        text = "-9"
    mine = flags(w, w / "new")[1:]
    if command == "index":
        mine = mine[:2]
    if command == "prepare":
        mine = mine[:3]
    if command == "grid":
        mine = [*mine[:-1], f"--to={w}/g"]
    return f"{command} --{name}={text[:40]!r}", lambda w: main([command, *mine, f"--{name}={text}"])


def other_flags(rng, w):
    "Flags of commands besides settings"
    text = rng.choice(TEXTS)
    run = f"--run={w}/run"
    argv = rng.choice([
        ["evaluate", run, f"--conditions={text}"], ["evaluate", run, f"--sides={text}"],
        ["evaluate", run, f"--hints={text}"], ["evaluate", f"--run={text}"],
        ["predict", text, run], ["predict", f"{w}/voices", f"--run={text}"],
        ["report", text, f"--to={w}/r"], ["report", f"{w}/run", f"--to={w}/r", f"--title={text}"],
        ["leaderboard", f"{w}/run", f"--to={w}/l", f"--conditions={text}"],
        ["leaderboard", f"{w}/run", f"--to={w}/l", f"--title={text}"],
        ["leaderboard", f"{w}/run", f"--to={w}/l", f"--reported={text}"],
        ["submission", f"--check={text}"], ["submission", f"--check={w}/submission",
                                            f"--list={text}"],
        ["probe", text], ["probe", f"{w}/labels.csv", "--frame", text, f"{w}/x.png"],
        ["scenes", f"--to={w}/sc", "--n=1", "--labels", text], ["audit", run, f"--split={text}"],
        ["export", f"--run={text}", f"--to={w}/c"], ["new", "fusion", f"-{text}"], [text],
        ["env", text],
        ["download", f"--dataset={text}", f"--data_root={w}/d"],
        ["evaluate", run, "--dataset=folder", f"--data_root={w}/voices", f"--labels={text}"],
        ["evaluate", f"--released={w}/net.pt", "--recipe=chumachenko2022", "--dataset=folder",
         f"--data_root={w}/voices", f"--hints={text}"]])  # fmt: skip
    return " ".join(argv).replace(str(w), "")[:90], lambda w: main(argv)


def parameters(rng, w):
    "A parameter of a run notebook"
    from avkit.core import guard
    from avkit.training.configure import configure
    from avkit.training.settings import Settings

    import typing

    hints = typing.get_type_hints(Settings)
    name, value = rng.choice([*hints, "fusoin"]), rng.choice([*ODD, *TEXTS])

    def use(w):
        given = guard(dict(dataset="synth", data_root="sample") | {name: value}, hints)
        return configure(**given) if given.get("modality") != "auto" else None

    return f"{name}={value!r:.60}", use


def facts(rng, w):
    "The facts of a data set"
    from avkit.datasets import download, manifest, registry

    names = ["ravdess", "crema_d", "folder", "vgaf", "affwild2", "synth"]
    name = rng.choice([n for n in names if (w / f"facts/{n}.toml").is_file()])
    said = odd_toml(rng, w / f"facts/{name}.toml")

    def use(w):
        manifest.manifests_dir = lambda: w / "facts"
        registry.manifests_dir = lambda: w / "facts"
        root = w / ("voices" if name == "folder" else "ravdess")
        manifest.unit_of(name)
        manifest.labels_frames(name)
        manifest.label_ends(name, ["valence"])
        with contextlib.suppress(AvkitError):
            for e in download.entries(name):
                download._expand(e, root)
        status = main(["index", f"--dataset={name}", f"--data_root={root}"])
        return status or main(["verify", f"--dataset={name}", f"--data_root={root}"])

    return f"{name}: {said}", use


def manifest_table(rng, w):
    from avkit.datasets.manifest import describe, read_manifest
    from avkit.datasets.splits import apply_split

    said = odd_table(rng, w / "manifest.csv")

    def use(w):
        m = read_manifest(w / "manifest.csv", w / "voices")
        told = describe(m), m.data_hash
        return told, apply_split(m, "kfold3").split_hash

    return said, use


def own_labels(rng, w):
    "A table of one's own labels"
    ending = rng.choice(["csv", "csv", "json", "tsv", "parquet"])
    path = w / f"labels.{ending}"
    if ending == "json":
        said = odd_json(rng, path)
    elif ending == "parquet":
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    else:
        said = odd_table(rng, path, "\t" if ending == "tsv" else ",")
    label = rng.choice(["label", "arousal"])
    more = rng.choice([[], [f"--label={label}"], ["--scale=arousal:-5:5", "--label=arousal"]])
    argv = ["index", "--dataset=folder", f"--data_root={w}/voices", f"--annotations={path}", *more]
    return f"{ending}: {said}", lambda w: main(argv)


def answers(rng, w):
    said = odd_json(rng, w / "answers.json")
    argv = ["index", "--dataset=folder", f"--data_root={w}/voices", f"--answers={w}/answers.json"]
    return said, lambda w: main(argv)


def split_list(rng, w):
    from avkit.training.configure import configure
    from avkit.training.loading import split_manifest

    said = odd_table(rng, w / "split.csv")
    return said, lambda w: split_manifest(configure(
        dataset="folder", data_root=str(w / "voices"), modality="audio", layout="class",
        pattern="{speaker}_{take}", split=str(w / "split.csv")))  # fmt: skip


def own_features(rng, w):
    "Features of one's own"
    ending = rng.choice(["csv", "jsonl", "npz", "safetensors", "npy", "arff"])
    path = w / f"features.{ending}"
    t = pd.read_csv(w / "features.csv")
    if ending == "npz":
        np.savez(path, **{n: t[["a", "b"]].to_numpy()[i] for i, n in enumerate(t.name)})
    if ending == "npy":
        np.save(path, t[["a", "b"]].to_numpy())
    if ending == "safetensors":
        from safetensors.torch import save_file

        save_file({n: torch.ones(2) for n in t.name}, path)
    if ending == "arff":
        rows = "\n".join(",".join(map(str, r)) for r in t.values)
        path.write_text("@relation x\n@attribute name string\n@attribute a numeric\n"
                        f"@attribute b numeric\n@data\n{rows}\n")  # fmt: skip
    if ending == "csv":
        said = odd_table(rng, path)
    elif ending in ("jsonl", "arff"):
        said = odd_text(rng, path)
    elif ending == "safetensors":
        said = odd_tensors(rng, path)
    else:
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    argv = ["index", "--dataset=folder", f"--data_root={w}/voices", "--layout=class"]
    use = rng.choice([[*argv, f"--audio_features={path}"],
                      flags(w, w / "new", f"--audio_features={path}")])  # fmt: skip
    return f"{ending}: {said}", lambda w: main(use)


def over_time(rng, w):
    "Labels over time beside films, in each form"
    ending = rng.choice(["eaf", "TextGrid", "srt", "vtt", "txt", "csv"])
    folder = w / ("traces" if ending == "csv" else f"films-{ending}")
    path = folder / f"f0.{ending}"
    said = odd_table(rng, path) if ending == "csv" else odd_text(rng, path)
    more = rng.choice([[], ["--tier=emotion"]]) if ending != "csv" else ["--lag=0.1"]
    argv = ["index", "--dataset=folder", f"--data_root={folder}", *more]
    return f"{ending}: {said}", lambda w: main(argv)


def joints(rng, w):
    from avkit.preprocessing.tracks import person_box

    return odd_json(rng, w / "joints.json"), lambda w: person_box(w / "joints.json")


def submission(rng, w):
    which = rng.choice(["1.txt", "2.txt"])
    said = odd_text(rng, w / "submission" / which)
    return f"{which}: {said}", lambda w: main(["submission", f"--check={w}/submission"])


def meanings(rng, w):
    said = odd_table(rng, w / "meanings.csv")
    return said, lambda w: main(["evaluate", f"--run={w}/run", "--dataset=folder", "--n_jobs=1",
                                 f"--data_root={w}/others", "--split=kfold3", "--device=cpu",
                                 f"--labels={w}/meanings.csv"])  # fmt: skip


def published(rng, w):
    path = w / "facts/reported.csv"
    said = odd_table(rng, path)
    argv = ["leaderboard", f"{w}/run", f"--to={w}/l", f"--reported={path}"]
    return said, lambda w: main(argv)


def kept(rng, w):
    "What avkit keeps for itself: stored clips, packs, hashes, answers"
    files = [p for p in sorted((w / "home").rglob("*")) if p.is_file() and p.suffix in
             (".safetensors", ".json", ".npy")]  # fmt: skip
    path = rng.choice(files)
    if path.suffix == ".json":
        said = odd_json(rng, path)
    elif path.suffix == ".safetensors":
        said = odd_store(rng, path)
    else:
        data, said = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    return f"{path.relative_to(w)}: {said}", lambda w: main(flags(w, w / "new"))


def odd_store(rng, path):
    "A file of the store with an odd head"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as f:
        tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}
    name = rng.choice([*meta, "tensors"])
    if name == "tensors" or rng.random() < 0.3:
        return odd_tensors(rng, path)
    x, said = odd_value(rng, json.loads(meta[name])) if meta[name] != "{}" else ([], "[]")
    meta[name] = rng.choice([json.dumps(x), "{", "[]", "3", "null", "[" * 100000])
    save_file(tensors, path, metadata=meta)
    return f"{name}: {said}"


def hub(rng, w):
    "A folder as transformers saves it"
    from avkit.models.hub import folder_hash, licence_of

    which = rng.choice(["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
    said = odd_json(rng, w / "hf" / which)

    def use(w):
        folder_hash(w / "hf")
        licence_of(w / "hf")
        return main(flags(w, w / "new", f"--audio_backbone=hf:{w}/hf"))

    return f"{which}: {said}", use


def checkpoint_files(rng, w):
    "What an author's code saved"
    from avkit.models.released import load, RELEASED

    recipe = rng.choice(list(RELEASED))
    if rng.random() < 0.3:
        said = odd_json(rng, w / "opts1.json")
    elif rng.random() < 0.5:
        data, said = odd_bytes(rng, (w / "net.pt").read_bytes())
        (w / "net.pt").write_bytes(data)
    else:
        name = "module.classifier_1.0.weight"
        value = rng.choice([*ODD[:30], torch.ones(()), torch.ones(8, 4).bool(), torch.ones(0, 4)])
        x = rng.choice([dict(state_dict={name: value}), {name: value}, value, [value],
                        dict(state_dict=value), dict(state_dict={3: value})])  # fmt: skip
        torch.save(x, w / "net.pt")
        said = repr(x)[:60]
    return f"{recipe}: {said}", lambda w: load(recipe, w / "net.pt")


def archives(rng, w):
    "Archives with odd members"
    from avkit.datasets.download import unpack

    path = w / rng.choice(["x.zip", "x.tar", "x.tar.gz"])
    members = rng.sample(range(len(MEMBERS)), rng.choice([1, 1, 2]))
    said = f"{path.name}: {[MEMBERS[i][0][:30] for i in members]} {members}"
    write_archive(path, [MEMBERS[i] for i in members])
    if rng.random() < 0.3:
        data, how = odd_bytes(rng, path.read_bytes())
        path.write_bytes(data)
        said += f", {how}"

    def use(w):
        before = {p for p in w.rglob("*")}
        unpack(path, w / "unpacked")
        after = {p for p in w.rglob("*")} - before - {w / "unpacked"}
        assert all((w / "unpacked") in p.parents for p in after), after
        assert not any(p.is_symlink() or not (p.is_file() or p.is_dir()) for p in after)

    return said, use


MEMBERS = [(n, {}) for n in ["a.txt", "../x", "/etc/x", "a/../../x", "a" * 300, "C:\\x", "a\\..\\x",
                             "con", ".", "", "a/", "\u202ea", "a\nb", "-rf", "a.txt", "é",
                             "./a.txt",
                             "a.txt/b", "/".join("d" * 200)]]  # fmt: skip
MEMBERS += [("b", dict(type=t, linkname=n)) for t in (tarfile.SYMTYPE, tarfile.LNKTYPE)
            for n in ("/etc/passwd", "../..", "a.txt", "b", "")]  # fmt: skip
MEMBERS += [("c", dict(type=t)) for t in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
                                          tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE,
                                          b"Z")]  # fmt: skip
MEMBERS += [("d", dict(size=-1)), ("d", dict(size=10**15)), ("d", dict(mode=0)),
            ("d", dict(mtime=-1)), ("d", dict(mtime=10**11)), ("d", dict(uid=-5)),
            ("d", dict(pax={"size": "-1"})), ("d", dict(pax={"size": "x"})),
            ("d", dict(pax={"path": "../p"})), ("d", dict(pax={"path": "/p"})),
            ("d", dict(pax={"mtime": "nan"})), ("d", dict(pax={"mtime": "1e999"})),
            ("d", dict(pax={"GNU.sparse.size": "99999999999999"})),
            ("d", dict(pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                            "GNU.sparse.realsize": "x"})),
            ("d", dict(pax={"GNU.sparse.map": "0,1,x"})), ("d", dict(pax={"uid": "x"})),
            ("d", dict(pax={"linkpath": "/etc"})),
            ("d", dict(pax={"hdrcharset": "BINARY"}))]  # fmt: skip


def write_archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, odd in members:
                info = zipfile.ZipInfo(name or "x")
                if odd.get("type") == tarfile.SYMTYPE:
                    info.create_system, info.external_attr = 3, (0o120777) << 16
                z.writestr(info, odd.get("linkname", "data"))
        return
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as t:
        for name, odd in members:
            info = tarfile.TarInfo(name)
            info.size = 4
            info.pax_headers = odd.get("pax", {})
            for k, v in odd.items():
                if k not in ("pax", "size"):
                    setattr(info, k, v)
            if "size" in odd:  # a number that no header would hold otherwise
                info.size = odd["size"] if odd["size"] > 0 else 0
                raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
                if odd["size"] < 0:
                    raw[124:136] = b"\xff" * 12
                raw[148:156] = b" " * 8
                raw[148:156] = b"%06o\0 " % sum(raw[:512])
                t.fileobj.write(bytes(raw) + b"data".ljust(512, b"\0"))
                t.offset += 1024
                continue
            with contextlib.suppress(ValueError, UnicodeError):
                t.addfile(
                    info, io.BytesIO(b"data") if not info.issym() and not info.islnk() else None
                )


def notes(rng, w):
    "The note of a part that was downloaded, the part itself, the file that stands for another"
    from avkit.datasets import download as d

    desk = w / ".part"
    desk.mkdir()
    note, part = desk / "a.bin.part.json", desk / "a.bin.part"
    note.write_text(json.dumps(dict(url="x", tag='"v1"')))
    kind = rng.choice(["note", "note", "folder", "link", "pointer"])
    part.write_bytes(b"x" * 10)
    said = kind
    if kind == "note":
        said = odd_json(rng, note)
    if kind == "folder":
        part.unlink()
        part.mkdir()
    if kind == "link":
        part.unlink()
        part.symlink_to(w / "labels.csv")
    if kind == "pointer":
        path = w / "pointer"
        path.write_text("version https://git-lfs.github.com/spec/v1\n"
                        f"oid sha256:{'0' * 64}\nsize 12\n")  # fmt: skip
        said = odd_text(rng, path)
        return said, lambda w: d._pointer_in(path)

    def use(w):
        before = (w / "labels.csv").read_bytes()
        try:
            return d.fetch("http://127.0.0.1:9/a.bin", w / "a.bin", tries=1, wait=0, bar=False)
        finally:
            assert (w / "labels.csv").read_bytes() == before

    return said, use


def names(rng, w):
    "Classes and speakers with odd names, from files to a report"
    classes = rng.sample([n for n in NAMES if n != "."], 2)
    shutil.rmtree(w / "voices")
    voices(w, classes)

    def use(w):
        status = main(flags(w, w / "new"))
        return status or main(["report", f"{w}/new", f"--to={w}/r"])

    return repr(classes)[:80], use


SURFACES = [record, best, last, started, card, run_tables, report, settings, options, command_line,
            other_flags, parameters, facts, manifest_table, own_labels, answers, split_list,
            own_features, over_time, joints, submission, meanings, published, kept, hub,
            checkpoint_files, archives, notes, names]  # fmt: skip
MORE = dict(record=4, card=2, settings=3, options=3, command_line=3, facts=2, own_labels=2,
            own_features=2, best=2, report=2, archives=2)  # fmt: skip


# ---- each in a process of its own


def judged(use, folder):
    "sentence, harmless or traceback, and what was said"
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = use(folder)
    except AvkitError as e:
        return "sentence", str(e)
    except SystemExit as e:  # of argparse
        return ("sentence" if e.code in (0, 2) else "traceback"), err.getvalue()[-300:]
    except BaseException as e:
        lines = traceback.format_exc()
        return "traceback", f"{type(e).__name__}: {e}"[:200] + where(e) + "\n" + lines[-1500:]
    said = err.getvalue()
    if "Traceback" in said:
        return "traceback", said[-1500:]
    status = status if isinstance(status, int) else 0
    if status == 2 and "avkit: " not in said:
        return "traceback", "status 2 without a word: " + said[-300:]
    return ("sentence" if status == 2 else "harmless"), said[-300:]


def where(e):
    "The last place of avkit's own in an error"
    frames = traceback.extract_tb(e.__traceback__)
    mine = [f for f in frames if "/avkit/" in f.filename]
    return f" [{Path(mine[-1].filename).name}:{mine[-1].lineno} {mine[-1].name}]" if mine else ""


def in_fork(f, *args):
    "What f(*args) returns, of another process that may crash or hang"
    r, w = os.pipe()
    sys.stdout.flush()
    if not (pid := os.fork()):
        os.close(r)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            told = json.dumps(f(*args))
        except BaseException:
            told = json.dumps(["broken", traceback.format_exc()[-1200:]])
        with os.fdopen(w, "w") as out:
            out.write(told)
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as told:
        text = told.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        hung = os.WTERMSIG(status) == signal.SIGALRM
        return ["hang" if hung else "crash", f"signal {os.WTERMSIG(status)}"]
    return json.loads(text) if text else ["crash", f"status {status}"]


def one(surface, seed, base, work):
    "One odd input: made, read, judged"
    rng = random.Random(seed)
    os.chdir(work)
    said, use = surface(rng, work)
    end, told = judged(use, work)
    return [end, told, said]


def surfaces(n, seed, only=()):
    "Which surface each input is of"
    pool = [s for s in SURFACES for _ in range(MORE.get(s.__name__, 1))]
    if only:
        return [s for s in SURFACES if s.__name__ in only for _ in range(n)][: n * len(only)]
    order = pool * (n // len(pool) + 1)
    random.Random(seed).shuffle(order)
    return order[:n]


MAKERS = (make_tables, make_others, make_films, make_run)


def make_all(base, makers):
    for make in makers:
        make(base)


def base_at(top, makers=MAKERS):
    "The valid files, made once"
    base = top / "base"
    os.environ.update(AVKIT_HOME=str(base / "home"), AVKIT_PROGRESS="0", HF_HUB_OFFLINE="1")
    if not base.is_dir():
        base.mkdir(parents=True)
        made = in_fork(judged, lambda f: make_all(f, makers), base)
        if made[0] != "harmless":
            shutil.rmtree(base)
            raise SystemExit(f"the valid files cannot be made: {made}")
    return base


def preload():
    "What takes seconds to import, once and not in each fork"
    import avkit.datasets.folder, avkit.evaluation.annotate, avkit.evaluation.export
    import avkit.reports.index, avkit.training.learner, sklearn.metrics  # noqa: F401
    import torch.utils.tensorboard

    torch.set_num_threads(1)


def run(n, seed, top, only=(), say=print, first=0, makers=MAKERS):
    "[(surface, seed, what was odd, end, what was said)] of n odd inputs"
    preload()
    base, work, out = base_at(top, makers), top / "work", []
    for i, surface in enumerate(surfaces(n, seed, only)):
        if i < first:
            continue
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        os.environ["AVKIT_HOME"] = str(work / "home")
        began = time.time()
        got = in_fork(one, surface, f"{seed}-{i}", base, work)
        end, told, odd = got if len(got) == 3 else (*got, f"input {i}")
        out.append(dict(surface=surface.__name__, number=i, odd=odd, end=end, said=told,
                        seconds=round(time.time() - began, 1)))  # fmt: skip
        say(f"{i:>4} {end:<9} {surface.__name__:<14} {odd[:70]!r} {told[:160]!r}")
    return out


def held(found):
    return [f for f in found if f["end"] in ("sentence", "harmless")]


def row(found):
    "The line of the table"
    ends = Counter(f["end"] for f in found)
    bad = [f for f in found if f["end"] not in ("sentence", "harmless")]
    told = ", ".join(f"{n} {k}" for k, n in sorted(ends.items()))
    return dict(fault=f"odd inputs ({told})", tried=len(found), held=len(found) - len(bad),
                not_held=bad)  # fmt: skip


def write(found, out):
    r = row(found)
    line = dict(fault=r["fault"], tried=r["tried"], held=r["held"], **{"not": len(r["not_held"])})
    if out:
        Path(out).write_text(json.dumps(dict(rows=[line], did_not_hold=r["not_held"]), indent=1))
    print(f"| {line['fault']} | {line['tried']} | {line['held']} | {line['not']} |")
    return len(r["not_held"])


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--inputs", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--first", type=int, default=0, help="the number of the first that is tried")
    p.add_argument("--only", help="some of " + ", ".join(s.__name__ for s in SURFACES))
    p.add_argument("--work", help="a folder to work in, which stays (default: a temporary one)")
    p.add_argument("--out", help="a JSON file for what came of it")
    p.add_argument("--quiet", action="store_true", help="only the line of the table")
    a = p.parse_args()
    import transformers  # noqa: F401 once, too

    with tempfile.TemporaryDirectory() as temporary:
        found = run(a.inputs, a.seed, Path(a.work or temporary).resolve(), (a.only or "").split(",")
                    if a.only else (), (lambda *_: None) if a.quiet else print,
                    a.first)  # fmt: skip
        sys.exit(min(1, write(found, a.out)))
