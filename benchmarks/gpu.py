"""All that has to be seen on a machine with a GPU: is it correct, how fast is it, beside what.

It makes its own inputs, random tensors of the papers' sizes, and random weights. Sections come in
the order of their importance, each with a share of the time; tables are written as they grow
(gpu.md and gpu.json in $OUT), so that a kill loses nothing. What fails is told with its traceback
in gpu.json, the rest goes on, and the exit status is 1 at the end.
"""

import avkit  # first: it chooses how NumPy and torch compute  # noqa: F401
import argparse, contextlib, copy, datetime, functools, importlib.util, json, os, platform, signal
import subprocess, sys, tempfile, time, traceback, types, warnings
from pathlib import Path
import numpy as np, pandas as pd, torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
import frozen
from common import cpu, table
from joint_attention import one_by_one, Sequence
from training import shapes, WHERE
from avkit.core import atomic_path
from avkit.datasets.batches import AVData, draws
from avkit.datasets.features import Stream
from avkit.datasets.manifest import Manifest
from avkit.models.fusion import JointCrossAttention
from avkit.store import pack, Store
from avkit.training import learner
from avkit.training.checkpoint import make_model
from avkit.training.configure import configure
from avkit.training.distributed import round_products
from avkit.training.frozen import apply_backbone, frozen_backbone
from avkit.training.inference import forward
from avkit.training.learner import (
    fit, given_streams, loss_of, parts_of, resident, start, train_epoch, training_batch, validate)
from avkit.training.loading import RunData

RECIPES = list(WHERE)
GOALS = dict(joint=20.0, ia=3.0, emotiw2023=300.0, vavl2023=20.0)
STDOUT = 11_500  # characters of tables
BOUNDS = 1e-4, 1e-2  # of the relative errors of loss and gradient in fp32


# What is written


class TimeUp(BaseException):
    "A row took longer than there was time; no library's `except Exception` stops it"


@contextlib.contextmanager
def limited(seconds):
    "Within it a `TimeUp` comes after so many seconds"

    def stop(*_):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    "Rows by section, what failed, and what there was no time for"

    def __init__(self, a):
        self.began, self.a = time.time(), a
        self.folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
        self.where = where(a)
        self.sections, self.failures, self.left_out = {}, [], []

    @property
    def left(self):
        return self.a.seconds - (time.time() - self.began)

    def run(self, name, title, rows, seconds):
        "All rows of a section, [(its name, a function that gives one or several)]"
        self.sections[name] = dict(title=title, rows=[])
        end = time.time() + min(seconds, self.left)
        for label, make in rows:
            now = time.time()
            if now >= end:
                self.left_out.append(f"{name}: {label}")
            else:
                self.row(name, label, make, end - now)
            self.write()
        took = self.a.seconds - self.left
        print(f"{took:6.1f} s  {name}", flush=True)

    def row(self, name, label, make, seconds):
        "One row, guarded"
        t0 = time.time()
        try:
            with limited(seconds):
                got = make()
        except TimeUp:
            self.left_out.append(f"{name}: {label} (stopped after {time.time() - t0:.0f} s)")
            return
        except Exception as e:
            self.fail(name, label, f"{type(e).__name__}: {e}", traceback.format_exc())
            return
        finally:
            clean(self.a)
        for row in got if isinstance(got, list) else [got]:
            self.sections[name]["rows"].append(row)
            if row.get("ok") == "no":
                said = ", ".join(f"{k} {v}" for k, v in row.items() if k != "ok")
                self.fail(name, label, said, "")

    def fail(self, name, label, error, told):
        said = error.strip().splitlines()[0][:300]
        self.failures.append(dict(section=name, row=label, error=said, traceback=told[-4000:]))
        print(f"          {name}, {label}: {said}", flush=True)

    def tables(self):
        "[(title, Markdown)]"
        return [
            f"### {s['title']}\n\n{self.where}\n\n{table(s['rows'])}"
            for s in self.sections.values()
            if s["rows"]
        ]

    def ends(self):
        "What failed and what was left out, as Markdown"
        out = []
        if self.failures:
            lines = [f"- {f['section']}, {f['row']}: {f['error']}" for f in self.failures]
            out.append("### What failed\n\n" + "\n".join(lines))
        if self.left_out:
            lines = [f"- {x}" for x in self.left_out]
            out.append("### What there was no time for\n\n" + "\n".join(lines))
        return out

    def write(self):
        "The files as far as they are known"
        if not self.folder:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        told = dict(
            where=self.where, seconds=time.time() - self.began, sections=self.sections,
            failures=self.failures, left_out=self.left_out)
        with atomic_path(self.folder / "gpu.json") as tmp:
            tmp.write_text(json.dumps(told, indent=1, default=str) + "\n")
        with atomic_path(self.folder / "gpu.md") as tmp:
            tmp.write_text("\n\n".join([*self.tables(), *self.ends()]) + "\n")

    def show(self):
        "The tables on the screen, as many as there is room for"
        room, said = STDOUT, []
        for text in [*self.ends(), *self.tables()]:
            title = text.splitlines()[0]
            said.append(text if len(text) < room else f"{title}: too long for here, see gpu.md")
            room -= len(said[-1]) + 2
        print("\n" + "\n\n".join(said))


# The machine


def is_gpu(a):
    return a.device.startswith("cuda")


def driver():
    "Of the GPU, as nvidia-smi says"
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return "not known"


def where(a):
    "One line: the card, its driver, torch, the date"
    card = f"{cpu()}, 1 thread, tiny sizes" if a.tiny else cpu()
    if is_gpu(a):
        card = f"{torch.cuda.get_device_name()}, driver {driver()}, CUDA {torch.version.cuda}"
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"{card}; Python {platform.python_version()}, torch {torch.__version__}; {day}"


def wait(a):
    if is_gpu(a):
        torch.cuda.synchronize()


def clean(a):
    "Forget what a row has left behind"
    round_products(False)
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if is_gpu(a):
        torch.cuda.empty_cache()


def seconds_of(f, a, repeats=3, warm=1):
    "The shortest of some calls, until the device is done"
    for _ in range(warm):
        f()
    times = []
    for _ in range(repeats):
        wait(a)
        t0 = time.perf_counter()
        f()
        wait(a)
        times.append(time.perf_counter() - t0)
    return min(times)


# Inputs


def settings_of(recipe, a, **more):
    "A `Config` at the paper's size; tiny: at the small one, batches of two"
    size = dict(size="small", batch_size=2) if a.tiny else dict(size="paper")
    fixed = WHERE[recipe] | size | dict(data_root="twin", device=a.device, random_backbone=True)
    return configure(recipe=recipe, **fixed | more)


def inputs(cfg, n, seed=0):
    "Random streams of n clips; where clips differ in length, some steps are padding"
    g, out = torch.Generator().manual_seed(seed), {}
    for k, s in shapes(cfg).items():
        x = torch.randn(n, *s, generator=g)
        if k == "video" and len(s) == 4:
            x = torch.randint(0, 255, (n, *s), dtype=torch.uint8, generator=g)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        if cfg["recipe"] == "vavl2023" and k == "audio":
            length = (torch.rand(n, generator=g) * 0.4 + 0.6) * s[0]
            mask = torch.arange(s[0]) < length[:, None]
        out[k] = Stream(x, mask, k)
    return frozen.corpus(cfg, out, n, cfg["windows"]["steps"])


def training_of(recipe, a, steps, **more):
    "A `Training` on so many batches of random clips"
    cfg = settings_of(recipe, a, **more)
    c = inputs(cfg, cfg["batch_size"] * steps)
    return start(cfg, c, built(cfg, c.data))


@functools.lru_cache(2)
def _built(recipe, mode, size, data):
    return make_model(data.cfg, data.data)


class _Same:
    "Data of any number of clips: the model is the same"

    def __init__(self, cfg, data):
        self.cfg, self.data = cfg, data

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return True


def built(cfg, data):
    "A copy of the recipe's model: to draw 300 million weights takes seconds"
    return copy.deepcopy(_built(cfg["recipe"], cfg["mode"], cfg["size"], _Same(cfg, data)))


# 1. Ceilings


def matrix_rate(kind, a):
    "TFLOP/s of a square matrix product"
    n = 128 if a.tiny else 8192
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    round_products(kind == "tf32")
    x, y = (torch.randn(n, n, device=a.device, dtype=dtype) for _ in range(2))
    many = 2 if kind == "fp32" else 10

    def products():
        for _ in range(many):
            x @ y

    s = seconds_of(products, a) / many
    a.ceiling[kind] = 2 * n**3 / s / 1e12
    return {"what": f"{kind} product of {n} x {n}", "TFLOP/s": a.ceiling[kind], "GB/s": ""}


def bandwidth(a):
    "GB/s of a copy, what is read and what is written together"
    x = torch.empty(1 << (16 if a.tiny else 30), dtype=torch.uint8, device=a.device)
    y = torch.empty_like(x)
    s = seconds_of(lambda: [y.copy_(x) for _ in range(10)], a) / 10
    a.ceiling["GB/s"] = 2 * x.numel() / s / 1e9
    return {"what": f"copy of {x.numel() >> 10} KiB", "TFLOP/s": "", "GB/s": a.ceiling["GB/s"]}


def ceilings(a):
    kinds = [(k, functools.partial(matrix_rate, k, a)) for k in ("fp32", "tf32", "bf16")]
    return [("copy", functools.partial(bandwidth, a)), *kinds]


# 2. Correctness


def without_chance(model):
    "The model in training, but nothing is dropped"
    for m in model.train().modules():
        if isinstance(m, (torch.nn.modules.dropout._DropoutNd,)) or type(m).__name__ == "DropPath":
            m.p = 0.0
        if isinstance(m, torch.nn.MultiheadAttention):
            m.dropout = 0.0
    return model


def as_type(batch, dtype):
    "The batch with its floats of another type, on the CPU"
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


def loss_and_gradient(cfg, model, batch, task, bf16=False):
    "The sum of a batch's losses, and all gradients in one vector, both float64 on the CPU"
    model.zero_grad()
    aux = cfg["reconstruction"] > 0 or (cfg["modality"] == "av" and cfg["aux_loss"] > 0)
    kind, total = next(model.parameters()).device.type, 0.0
    for part in parts_of(cfg):
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            out = forward(model, batch, aux, **(dict(only=part) if part else {}))
        given = {k: v.bool() for k, v in given_streams(batch).items()}
        loss = loss_of(cfg, out, batch["target"], task, None, given)
        loss.backward()
        total += loss.detach().double().cpu()
    flat = [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    return total, torch.cat(flat)


def relative(x, ref):
    return float((x - ref).norm() / ref.norm().clamp(min=1e-30))


def against_float64(recipe, a):
    """Relative errors of loss and gradient in each precision. Networks differ in how they amplify
    rounding, so fp32 may be off by three times what it is on the CPU"""
    cfg = settings_of(recipe, a, precision="fp32")
    n = 1 if recipe == "ntua2021" and not a.tiny else 2  # of 64 frames each, in float64
    c = inputs(cfg, n)
    model = without_chance(built(cfg, c.data))
    b = training_batch(cfg, c.data, torch.arange(n), draws(n, 0, 0), 0, "cpu")
    task, rows = c.data.task, []
    exact = copy.deepcopy(model).double()
    ref = loss_and_gradient(cfg, exact, as_type(b, torch.float64), task)
    del exact

    def errors(device, bf16=False):
        there = copy.deepcopy(model).to(device)
        if device != "cpu":
            there = there.to(memory_format=torch.channels_last)
        moved = {k: v.to(device) for k, v in as_type(b, torch.float32).items()}
        got = loss_and_gradient(cfg, there, moved, task, bf16)
        return [relative(x, y) for x, y in zip(got, ref)]

    def row(what, found, held=""):
        rows.append({"recipe": recipe, "precision": what, "loss": found[0], "gradient": found[1]}
                    | {"ok": held})

    bounds = BOUNDS
    if is_gpu(a):
        row("fp32 on the CPU", here := errors("cpu"))
        bounds = [max(x, 3 * y) for x, y in zip(BOUNDS, here)]
    for precision in ("fp32", "tf32", "bf16"):
        round_products(precision != "fp32")
        found = errors(a.device, precision == "bf16")
        held = "yes" if all(x <= y for x, y in zip(found, bounds)) else "no"
        row(precision, found, held if precision == "fp32" else "")
    return rows


def correctness(a):
    return [(r, functools.partial(against_float64, r, a)) for r in RECIPES]


def released_outputs(recipe, a):
    "What the model as its authors released it answers, against float64 on the CPU"
    cfg = settings_of(recipe, a, precision="fp32", mode="as_released")
    c = inputs(cfg, 2)
    model = built(cfg, c.data).eval()
    b = training_batch(cfg, c.data, torch.arange(2), draws(2, 0, 0), 0, "cpu")
    with torch.no_grad():
        ref = forward(copy.deepcopy(model).double(), as_type(b, torch.float64))
        moved = {k: v.to(a.device) for k, v in as_type(b, torch.float32).items()}
        got = forward(model.to(a.device), moved).double().cpu()
    error = relative(got, ref)
    return {"recipe": recipe, "quirks": len(cfg["quirks"]), "relative error of the answers": error,
            "ok": "yes" if error < 1e-3 else "no"}


def released(a):
    return [(r, functools.partial(released_outputs, r, a)) for r in RECIPES]


# 3. An epoch waits for nothing


def waits(recipe, a):
    "How often the processor waits for the GPU in an epoch"
    n = 1 if a.tiny else 3
    t = training_of(recipe, a, n)
    t.corpus = resident(t.corpus, t.accelerator.device)
    train_epoch(t, 0)
    wait(a)
    row = {"recipe": recipe, "steps": n * len(parts_of(t.cfg))}
    if not is_gpu(a):
        return row | {"waits": "not tried: no GPU", "where": "", "ok": ""}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            train_epoch(t, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    own = [w for w in seen if "called a synchronizing" in str(w.message)]
    places = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in own})
    held = "no" if len(own) > 1 else "yes"
    return row | {"waits": len(own), "where": ", ".join(places), "ok": held}


def waiting(a):
    return [(r, functools.partial(waits, r, a)) for r in RECIPES]


# 4. Killed and resumed


def learnable(cfg, n_train, n_validation, seed=0):
    "Windows of features that tell their labels, with a manifest: what `fit` wants"
    n, g = n_train + n_validation, torch.Generator().manual_seed(seed)
    w = cfg["windows"]
    target = torch.rand(n, w["steps"], 2, generator=g) * 2 - 1
    streams = {}
    for k, s in shapes(cfg).items():
        x = torch.randn(n, *s, generator=g)
        if len(s) == 2 and s[0] == w["steps"]:
            x += target @ torch.randn(2, s[-1], generator=g) / 10  # faint: CCC stays below 1
        streams[k] = Stream(x, torch.ones(x.shape[:2], dtype=torch.bool), k)
    clips = [f"{i}" for i in range(n)]
    split = np.array(["train"] * n_train + ["validation"] * n_validation)
    names = ["valence", "arousal"]
    each = w["length"] // w["steps"]
    data = AVData(
        target=target, clips=clips, split=split, classes=names, task="regression", **streams,
        steps=torch.ones(n, w["steps"], dtype=torch.bool),
        numbers=np.tile(np.arange(w["length"]), (n, 1)),
        frames={c: np.repeat(t.numpy(), each, 0) for c, t in zip(clips, target)})
    rows = pd.DataFrame(dict(
        clip=clips, label="", speaker=clips, audio="", video="", audio_sha256=clips,
        video_sha256=clips, split=split, valence=0.0, arousal=0.0))
    m = Manifest(
        "affwild2", "nowhere", rows, [], task="regression", level="frame", targets=names,
        split=dict(name="gpu", fold=0, speaker_independent=True, note=""))
    none = pd.DataFrame(columns=["clip", "reason"])
    return RunData(data, m, none, stats=dict(target=(torch.zeros(2), torch.ones(2))))


EPOCHS = 4  # of a run that is killed


def resumable(a, run_dir, **more):
    "A short run of jca2023 on learnable windows"
    cfg = settings_of("jca2023", a, run_dir=str(run_dir), epochs=EPOCHS, **more)
    many = 8 if a.tiny else 384
    return cfg, learnable(cfg, many, many // 2)


def child(a):
    "A process that kills itself once two epochs are written"
    keep = learner.keep

    def killed(t, run_dir):
        keep(t, run_dir)
        if len(t.history) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    learner.keep = killed
    exact()
    fit(*resumable(a, a.child), verbose=False)


def exact():
    "Where a GPU may add up in any order it takes one"
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def resume(a):
    "Is a run that was killed and resumed the same as one that was not?"
    folder = Path(tempfile.mkdtemp())
    try:
        exact()
        whole = fit(*resumable(a, folder / "whole"), verbose=False)
        ask = [sys.executable, __file__, "--device", a.device, "--child", str(folder / "killed")]
        died = subprocess.run(ask + ["--tiny"] * a.tiny, capture_output=True, text=True)
        if died.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the child ended with {died.returncode}: {died.stderr[-500:]}")
        again = fit(*resumable(a, folder / "killed", resume=True), verbose=False)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
    files = [(folder / d / "history.csv").read_bytes() for d in ("whole", "killed")]
    same = files[0] == files[1] and whole["metrics"] == again["metrics"]
    tables = [pd.read_csv(folder / d / "history.csv") for d in ("whole", "killed")]
    gap = float((tables[0] - tables[1]).abs().to_numpy().max())
    return {"recipe": "jca2023", "killed after epoch": 2, "epochs": EPOCHS,
            "equal to the last bit": same, "largest difference": gap,
            "ok": "yes" if gap < 1e-4 else "no"}


# 5. Speed


class Bytes(TorchDispatchMode):
    "Counts what operations read and write, each by itself"

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if not op.is_view:
            flat, _ = torch.utils._pytree.tree_flatten((args, kwargs, out))
            self.total += sum(x.nbytes for x in flat if torch.is_tensor(x))
        return out


MODES = {  # how a step is computed: settings, what is done to the model
    "fp32": (dict(precision="fp32"), ""),
    "tf32": (dict(precision="tf32"), ""),
    "bf16": (dict(precision="bf16"), ""),
    "bf16, channels first": (dict(precision="bf16"), "first"),
    "bf16, recompute": (dict(precision="bf16", recompute=True), ""),
    "bf16, compiled": (dict(precision="bf16", compile=True), ""),
    "bf16, CUDA graphs": (dict(precision="bf16"), "graphs"),
}


@contextlib.contextmanager
def with_graphs(t, on):
    "Within it the model's kernels are replayed from CUDA graphs"
    step = learner.train_step
    if on:
        t.model.compile(mode="reduce-overhead")

        def marked(*args):
            torch.compiler.cudagraph_mark_step_begin()
            return step(*args)

        learner.train_step = marked
    try:
        yield
    finally:
        learner.train_step = step


def work_of(t, steps, a):
    "TFLOP and GB of a step, by counting; the same for all modes of a recipe"
    key = t.cfg["recipe"], t.cfg["precision"]
    if key not in a.work:
        with FlopCounterMode(display=False) as flops:
            train_epoch(t, 0)
        with Bytes() as count:
            train_epoch(t, 0)
        a.work[key] = flops.get_total_flops() / steps / 1e12, count.total / steps / 1e9
    return a.work[key]


def speed_row(recipe, mode, a):
    "Of a training step at the recipe's own batch, clips on the device"
    settings, how = MODES[mode]
    steps = 2 if a.tiny else 4
    t = training_of(recipe, a, steps, **settings)
    if how == "first":
        t.model.to(memory_format=torch.contiguous_format)
    t.corpus = resident(t.corpus, t.accelerator.device)
    if "compile" not in settings and how != "graphs":
        work_of(t, steps, a)
    if is_gpu(a):
        torch.cuda.reset_peak_memory_stats()
    with with_graphs(t, how == "graphs"):
        s = seconds_of(lambda: train_epoch(t, 0), a, 1 if a.tiny else 4, 1 if a.tiny else 2) / steps
    kind = settings["precision"]
    tflop, gb = a.work.get((recipe, kind), (float("nan"),) * 2)
    first = a.times.setdefault(recipe, s)
    return {
        "recipe": recipe, "mode": mode, "batch": t.cfg["batch_size"], "ms / step": 1e3 * s,
        "clips / s": t.cfg["batch_size"] / s, "times fp32": first / s,
        "GB at most": torch.cuda.max_memory_allocated() / 1e9 if is_gpu(a) else "",
        "TFLOP/s": tflop / s, "% of matrix rate": share(tflop / s, a.ceiling.get(kind)),
        "% of bandwidth": share(gb / s, a.ceiling.get("GB/s"))}


def share(x, of):
    return 100 * x / of if of else ""


def speed(a):
    some = ["fp32", "tf32", "bf16"] if not a.tiny else ["fp32", "bf16"]
    return [(f"{r}, {m}", functools.partial(speed_row, r, m, a)) for r in RECIPES for m in some]


def compiled_speed(a):
    pairs = [(r, "bf16, compiled") for r in ("chumachenko2022", "jca2023")]
    if not a.tiny:
        pairs += [(r, "bf16, CUDA graphs") for r in ("jca2023", "vavl2023")]
        pairs += [("chumachenko2022", "bf16, channels first"), ("ntua2021", "bf16, channels first")]
        pairs += [(r, "bf16, recompute") for r in ("ntua2021", "emotiw2023")]
        pairs += [(r, "bf16, compiled") for r in ("vavl2023", "ntua2021", "emotiw2023")]
    if a.tiny:
        pairs = [("ntua2021", "bf16, recompute"), ("jca2023", "bf16, compiled")]
    return [(f"{r}, {m}", functools.partial(speed_row, r, m, a)) for r, m in pairs]


def compiled_against_eager(recipe, a):
    "Relative differences of loss and gradient, fp32"
    cfg = settings_of(recipe, a, precision="fp32")
    c = inputs(cfg, 2)
    model = without_chance(built(cfg, c.data)).to(a.device)
    b = training_batch(cfg, c.data, torch.arange(2), draws(2, 0, 0), 0, a.device)
    plain = loss_and_gradient(cfg, copy.deepcopy(model), b, c.data.task)
    model.compile()
    got = loss_and_gradient(cfg, model, b, c.data.task)
    errors = [relative(x, y) for x, y in zip(got, plain)]
    return {"recipe": recipe, "loss": errors[0], "gradient": errors[1],
            "ok": "yes" if errors[0] < 1e-4 and errors[1] < 1e-2 else "no"}


def compiled(a):
    some = ["jca2023"] if a.tiny else ["jca2023", "chumachenko2022", "vavl2023"]
    return [(r, functools.partial(compiled_against_eager, r, a)) for r in some]


# 6. Ratios


def joint(a):
    "Joint cross-attention: all clips at once, against one after the other as released"
    torch.manual_seed(0)
    m = JointCrossAttention(Sequence(), Sequence()).to(a.device)
    n = 4 if a.tiny else 96
    audio, video = (torch.randn(n, 8, 512, device=a.device) for _ in range(2))
    mask = torch.ones(n, 8, dtype=torch.bool, device=a.device)

    def batched():
        return torch.cat([x for x, _ in m.head_inputs(audio, mask, video, mask)], -1)

    def loop():
        return one_by_one(m, audio, video)

    def step(f):
        m.zero_grad()
        f().square().mean().backward()

    gap = (batched() - loop()).abs().max().item()
    fast, slow = (seconds_of(functools.partial(step, f), a, 10) for f in (batched, loop))
    return ratio(f"joint attention, {n} windows", "all at once", fast, "one by one, as released",
                 slow, GOALS["joint"], f"largest difference {gap:.1e}")


def ratio(what, ours, fast, theirs, slow, goal, note=""):
    return {"what": what, "ours": ours, "ms": 1e3 * fast, "beside": theirs, "their ms": 1e3 * slow,
            "times": slow / fast, "goal": goal, "note": note}


class Files(torch.utils.data.Dataset):
    "Clips as chumachenko2022's code reads them: frames of a file, turned as pictures, one by one"

    def __init__(self, folder, n, shape, degrees):
        rng = np.random.default_rng(0)
        self.paths, self.degrees, frames = [], degrees, (shape[0], *shape[2:], 3)
        for i in range(n):
            self.paths.append(folder / f"{i}.npy")
            np.save(self.paths[-1], rng.integers(0, 255, frames, dtype=np.uint8))
            np.save(folder / f"{i}.sound.npy", rng.standard_normal(79380).astype(np.float32))

    def __len__(self):
        return len(self.paths)

    def heard(self, path):
        wave = torch.from_numpy(np.load(path.with_suffix(".sound.npy")))
        if not importlib.util.find_spec("torchaudio"):
            return wave[:1560].view(10, 156)  # without it nothing is computed here
        from avkit.preprocessing.audio import mfcc  # heavy: only where it can be

        return mfcc(wave[None])[0, :, :156]

    def __getitem__(self, i):
        from PIL import Image  # in the processes that read

        rng = np.random.default_rng()
        flip, angle = rng.random() < 0.5, rng.uniform(-self.degrees, self.degrees)
        seen = []
        for frame in np.load(self.paths[i]):
            picture = Image.fromarray(frame)
            if flip:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            turned = np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR))
            seen.append(torch.from_numpy(turned.copy()).permute(2, 0, 1).float() / 255)
        return self.heard(self.paths[i]), torch.stack(seen), i % 8


def released_epoch(model, optimizer, loader, device):
    "An epoch of chumachenko2022 as its released code goes about it"
    for audio, video, target in loader:
        audio, video, target = (x.to(device) for x in (audio.transpose(1, 2), video, target))
        u = torch.randint(0, 100, (len(audio),), device=device) / 100
        heard = torch.cat([audio, audio * u[:, None, None], torch.zeros_like(audio), audio])
        dimmed = video * (1 - u).view(-1, 1, 1, 1, 1)
        seen = torch.cat([video, dimmed, video, torch.zeros_like(video)])
        target = target.repeat(4)
        out = model(heard, seen)
        loss = torch.nn.functional.cross_entropy(out, target)
        loss.item()
        for k in (1, 5):
            out.topk(min(k, out.shape[1]))[1].eq(target[:, None]).any(1).float().mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def released_seconds(cfg, c, workers, a):
    "An epoch of the released loop"
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch comes
    model = built(cfg, c.data).to(a.device)
    optimizer = torch.optim.SGD(
        model.parameters(), cfg["lr"], cfg["momentum"], cfg["dampening"], cfg["weight_decay"])
    files = Files(Path(tempfile.mkdtemp()), len(c.data), shapes(cfg)["video"], 10)
    loader = torch.utils.data.DataLoader(
        files, cfg["batch_size"], shuffle=True, num_workers=workers, pin_memory=is_gpu(a),
        persistent_workers=workers > 0)
    return seconds_of(lambda: released_epoch(model, optimizer, loader, a.device), a, 1)


def end_to_end(a):
    "chumachenko2022, `ia`: an epoch against a plain re-statement of the released loop"
    cfg = settings_of("chumachenko2022", a, precision="fp32")
    c = inputs(cfg, cfg["batch_size"] * (1 if a.tiny else 8))
    workers, rows = 0 if a.tiny else min(16, os.cpu_count() or 1), []
    slow = released_seconds(cfg, c, workers, a)
    note = "" if importlib.util.find_spec("torchaudio") else "without MFCC"
    for mode in ("fp32", "tf32", "bf16"):
        t = training_of("chumachenko2022", a, len(c.data) // cfg["batch_size"], precision=mode)
        t.corpus = resident(t.corpus, t.accelerator.device)
        fast = seconds_of(lambda: train_epoch(t, 0), a, 1 if a.tiny else 2)
        rows.append(ratio(f"chumachenko2022, an epoch of {len(c.data)} clips", mode, fast,
                          f"as released, {workers} readers", slow, GOALS["ia"], note))
    return rows


def frozen_ratio(recipe, modality, frames, a):
    "An epoch with the frozen backbones' outputs from the store against running them in every step"
    args = types.SimpleNamespace(
        clips=16, batch=None, frames=frames, device=a.device, precision=None,
        repeats=1)
    frozen.clock = time.perf_counter
    slow, once, fast = frozen.case(recipe, modality, args)
    each = args.clips / 1e3
    return ratio(slow["recipe"], "from the store", fast["ms / clip"] * each, slow["what"],
                 slow["ms / clip"] * each, GOALS[recipe],
                 f"once {once['ms / clip']:.3g} ms a clip")


def ratios(a):
    rows = [("joint attention", functools.partial(joint, a)),
            ("ia end to end", functools.partial(end_to_end, a))]
    hears = "av" if importlib.util.find_spec("torchaudio") else "video"
    cases = [("emotiw2023", "video", 5), ("emotiw2023", "video", 75), ("vavl2023", hears, 30)]
    if a.tiny:
        return rows
    return rows + [
        (f"{r}, {m}, {n} frames", functools.partial(frozen_ratio, r, m, n, a)) for r, m, n in cases]


# 7. Frozen backbones


def whisper(a):
    "An encoder of Whisper's (base), by configuration"
    import transformers

    config = transformers.WhisperConfig(
        d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048,
        decoder_layers=1, decoder_attention_heads=8, decoder_ffn_dim=64, num_mel_bins=80)
    if a.tiny:
        config.d_model, config.encoder_layers, config.encoder_ffn_dim = 32, 1, 64
    net = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
    return net.requires_grad_(False).to(a.device)


def wav2vec2(a):
    "wav2vec2-large's first 12 layers: avkit's, or transformers' where torchaudio is not there"
    if importlib.util.find_spec("torchaudio"):
        return frozen_backbone("wav2vec2_tiny" if a.tiny else "wav2vec2_large_robust_12",
                               device=a.device)
    import transformers

    small = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    large = dict(hidden_size=1024, num_hidden_layers=12, num_attention_heads=16,
                 intermediate_size=4096)
    config = transformers.Wav2Vec2Config(
        do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True,
        **small if a.tiny else large)
    net = transformers.Wav2Vec2Model(config).eval().requires_grad_(False).to(a.device)
    return lambda x: net(x).last_hidden_state


def backbone_row(name, a):
    "Clips a second, alone on the device in half precision, and with the way there and back"
    items, per_clip, unit, make = BACKBONE_ITEMS[name]
    n = 2 if a.tiny else items
    net, x = make(a), torch.empty(0)
    shape, size = (3, 224, 224), n
    if name == "Whisper base, 30 s":
        x = torch.randn(n, 80, 3000)
    elif name.startswith("wav2vec2"):
        x = torch.randn(n, 80000 if not a.tiny else 8000)
    else:
        x = torch.rand(size, *shape)
    half = torch.float16 if is_gpu(a) else torch.bfloat16
    there = x.to(a.device)

    @torch.inference_mode()
    def alone():
        with torch.autocast(a.device.partition(":")[0], half):
            net(there)

    with FlopCounterMode(display=False) as flops:
        alone()
    s = seconds_of(alone, a, 1 if a.tiny else 5)
    both = ""
    if hasattr(net, "takes"):
        frames = (x * 255).byte() if x.ndim == 4 else x
        both = n / per_clip / seconds_of(lambda: apply_backbone(net, frames, a.device), a, 1)
    rate = flops.get_total_flops() / s / 1e12
    return {"backbone": name, "a clip is": f"{per_clip} {unit}" if per_clip > 1 else unit,
            "clips / s": n / per_clip / s, "with the way there and back": both, "TFLOP/s": rate,
            "% of matrix rate": share(rate, a.ceiling.get("bf16"))}


def of_frames(name, tiny, a):
    return frozen_backbone(tiny if a.tiny else name, device=a.device)


BACKBONE_ITEMS = {  # at once, in a clip, of what, how it is made
    "ViT-L/14": (
        192, 5, "frames", functools.partial(of_frames, "vit_large_patch14_clip_224", "vit_tiny")),
    "EfficientNet-B2": (
        192, 30, "frames", functools.partial(of_frames, "efficientnet_b2", "efficientnet_b2")),
    "wav2vec2-large, 12 layers": (8, 1, "5 s", wav2vec2),
    "Whisper base, 30 s": (32, 1, "30 s", whisper),
}


def backbones(a):
    return [(k, functools.partial(backbone_row, k, a)) for k in BACKBONE_ITEMS]


# 8. From the store, and on the device


def from_store(recipe, a):
    "An epoch of clips that are memory-mapped, read into memory, and on the device"
    cfg = settings_of(recipe, a)
    n = cfg["batch_size"] * (1 if a.tiny else 16 if recipe == "chumachenko2022" else 12)
    made, store, rows = inputs(cfg, n), Store(tempfile.mkdtemp()), []
    mapped = copy.copy(made.data)
    for k, s in made.data.streams.items():
        got = pack(store, f"{k} of gpu", n, lambda i, j, s=s: dict(x=s.x[i:j], real=s.mask[i:j]),
                   "", 64)
        setattr(mapped, k, Stream(got["x"], got["real"], k))
    t = start(cfg, RunData(mapped, None, None))
    cases = {"from the store, by pinned memory": t.corpus, "from memory, by pinned memory": made,
             "on the device": resident(made, t.accelerator.device)}
    for what, c in cases.items():
        t.corpus = c
        s = seconds_of(lambda: train_epoch(t, 0), a, 1 if a.tiny else 2)
        rows.append({"recipe": recipe, "clips": n, "clips lie": what, "s / epoch": s,
                     "clips / s": n / s})
    return rows


def loading(a):
    return [(r, functools.partial(from_store, r, a)) for r in ("vavl2023", "chumachenko2022")]


# 9. Scores


def scores_of(precision, seed, a):
    "jca2023 on learnable windows, all its epochs: the best CCC on validation, and the seconds"
    epochs = dict(epochs=2) if a.tiny else {}
    cfg = settings_of("jca2023", a, precision=precision, seed=seed, **epochs)
    c = learnable(cfg, 4 if a.tiny else 960, 4 if a.tiny else 480)
    t = start(cfg, c)
    t.corpus = resident(t.corpus, t.accelerator.device)
    t0 = time.perf_counter()
    for epoch in range(cfg["epochs"]):
        t.history.append(train_epoch(t, epoch) | validate(t))
    wait(a)
    return t.best["validation_ccc"], time.perf_counter() - t0


def scores_row(a):
    seeds = range(1, 3 if a.tiny else 6)
    got = {p: [scores_of(p, s, a) for s in seeds] for p in ("fp32", "bf16")}
    rows = []
    for p, each in got.items():
        ccc = np.array([x for x, _ in each])
        gap = ccc - np.array([x for x, _ in got["fp32"]])
        rows.append({
            "recipe": "jca2023", "precision": p, "seeds": len(ccc), "CCC": ccc.mean(),
            "deviation": ccc.std(ddof=1), "less fp32": gap.mean(),
            "its deviation": gap.std(ddof=1), "s a run": min(s for _, s in each)})
    return rows


def scores(a):
    return [("jca2023", functools.partial(scores_row, a))]


# All of it

SECTIONS = {  # title, rows, seconds at most
    "ceilings": ("The device's ceilings", ceilings, 20),
    "correctness": (
        "Correctness: relative errors against float64 on the CPU, a training step of a clip or two",
        correctness, 90),
    "waiting": ("An epoch: how often the processor waits for the GPU", waiting, 50),
    "speed": ("A training step at the recipe's size and batch", speed, 100),
    "ratios": ("Beside what it replaces, in the same run", ratios, 90),
    "resume": (
        "Killed and resumed, against not interrupted", lambda a: [("jca2023", lambda: resume(a))],
        45),
    "released": ("Models as released: answers against float64 on the CPU", released, 40),
    "backbones": ("Frozen backbones, random weights, half precision", backbones, 40),
    "loading": ("An epoch by where the clips lie", loading, 40),
    "compiled": ("torch.compile against eager, fp32", compiled, 60),
    "compiled speed": ("The same step, compiled, or in less memory", compiled_speed, 120),
    "scores": ("Trained to the end: jca2023 on features that tell the labels", scores, 60),
}


def parsed():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda", help="cuda, cpu (default: cuda)")
    p.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs")
    p.add_argument("--seconds", type=float, default=445, help="for all of it (default: 445)")
    p.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION",
                   help=f"of {', '.join(SECTIONS)}")
    p.add_argument("--child", help=argparse.SUPPRESS)
    a = p.parse_args()
    a.ceiling, a.work, a.times = {}, {}, {}
    return a


def check(a):
    "Refuse a machine that this is not for"
    need = "torchvision", "timm", "transformers", "accelerate", "safetensors", "pandas", "sklearn"
    lost = [p for p in (*need, "seaborn", "tensorboard") if not importlib.util.find_spec(p)]
    if lost:
        sys.exit(f"gpu.sh: {sys.executable} lacks {', '.join(lost)}")
    if is_gpu(a) and not torch.cuda.is_available():
        sys.exit("gpu.sh: torch sees no GPU here; to see that it runs: --device cpu --tiny")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        sys.exit(f"gpu.sh: torch {torch.__version__} is too old, 2.10 or newer is needed")


def main():
    a = parsed()
    check(a)
    if a.tiny:  # a compiler of C++ takes a minute a model
        torch.set_num_threads(1)
        compile_module = torch.nn.Module.compile
        torch.nn.Module.compile = lambda m, **_: compile_module(m, backend="aot_eager")
    if a.child:
        return child(a)
    report = Report(a)
    for name, (title, rows, seconds) in SECTIONS.items():
        if not a.only or name in a.only:
            report.run(name, title, rows(a), seconds)
    report.write()
    report.show()
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())
