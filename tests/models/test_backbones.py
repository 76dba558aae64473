"""Frozen backbones: from raw clips to a record, killed and gone on with, looked up; and large
streams that are read when they are asked for."""

import json
from dataclasses import replace
from pathlib import Path
import pytest, torch
from avkit.models import backbones, weights as weights_module
from avkit.training import frozen
from avkit.core import AvkitError
from avkit.datasets.batches import mean_and_deviation, standardise
from avkit.datasets.features import Rows, Stream
from avkit.training.learner import fit
from avkit.training.loading import load_data
from avkit.training.configure import configure
from avkit.store import Store
from helpers import rendered_actors

CLIPS = 6  # three actors, two emotions
SMALL = {
    "preparation": {
        "frames": 4,
        "size": 64,
        "window": 1.0,
        "rate": 16000,
        "detector": "none",
        "views": ["frame"],
    },
    "video_views": ["frame"],
    "audio": "wave",
    "audio_settings": {"seconds": 1.0},
    "audio_backbone": "wav2vec2_tiny",
    "video_backbone": "resnet18_small",
    "video_size": 48,
    "video_encoder": "conformer",
    "standardise": ["audio", "video"],
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("backbones") / "corpus"
    split = rendered_actors(root)
    return dict(
        recipe="vavl2023",
        size="small",
        dataset="ravdess",
        data_root=str(root),
        split=str(split),
        options=json.dumps(SMALL),
        random_backbone=True,
        epochs=1,
        device="cpu",
        n_jobs=1,
    )


def test_a_random_frozen_backbone_is_refused_and_said(settings, tmp_path, monkeypatch):
    from avkit.evaluation.evaluate import evaluate
    from avkit.evaluation.export import card_text
    from avkit.evaluation.runs import open_run
    from avkit.reports.comparison import method_of
    from avkit.reports import records
    from avkit.reports.records import runs_report, slim_record
    from avkit.reports.tables import runs_table
    from avkit.training.grid import combine, run_grid
    from avkit.training.loading import load_data

    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "cache"))
    asked = {k: v for k, v in settings.items() if k != "random_backbone"}
    cure = "give them as audio_weights.*--random_backbone"
    for use in (fit, load_data):
        with pytest.raises(AvkitError, match=cure):
            use(configure(**asked, run_dir=str(tmp_path / "no")))
    assert not (tmp_path / "no").exists()
    lists = {k: [v] for k, v in asked.items() if k != "n_jobs"}
    row = run_grid(combine(to=tmp_path / "grid", **lists), n_jobs=1)
    assert row.status.tolist() == ["failed"] and "no weights" in row.reason[0]
    record = fit(configure(**settings, run_dir=str(tmp_path / "run")), verbose=False)
    assert record["config_hash"] == configure(**asked).hash  # the run is the same: its files say it
    assert method_of(slim_record(record)).endswith(", random backbone")
    monkeypatch.setattr(records, "all_figures", lambda *folders: [])  # test_reports draws them
    runs_report([tmp_path / "run"], tmp_path / "table")
    assert set(runs_table([record]).recipe) == {"vavl2023 (random backbone)"}
    assert "Random backbone: resnet18_small (video)" in (tmp_path / "table/table.md").read_text()
    run = open_run(tmp_path / "run")
    assert "Random backbone: wav2vec2_tiny (audio) is frozen" in card_text(run, {})
    old = json.loads((tmp_path / "run/record.json").read_text())
    del old["config"]["random_backbone"]  # as an earlier avkit wrote it
    (tmp_path / "run/record.json").write_text(json.dumps(old))
    assert evaluate(tmp_path / "run", "av", sides="test", verbose=False)["metrics"]["test"]["av"]


def test_raw_clips_through_backbones_to_a_record(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "cache"))
    torch.manual_seed(1)
    t = backbones.build_backbone("resnet18_small")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in t.net.state_dict().items()}},
        tmp_path / "w.pth",
    )
    settings = settings | dict(video_weights=str(tmp_path / "w.pth"))

    put, stored = Store.put, []

    def killed(self, key, tensors, meta=None):
        if meta and "weights" in meta:
            stored.append(key)
            if len(stored) == CLIPS + 2:
                raise KeyboardInterrupt
        return put(self, key, tensors, meta)

    monkeypatch.setattr(Store, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        load_data(configure(**settings), verbose=False)
    r = fit(configure(**settings, run_dir=str(tmp_path / "run")))
    assert len(stored) == 1 + 2 * CLIPS and len(set(stored)) == 2 * CLIPS, (
        "each clip goes through each backbone once; the killed one again"
    )
    assert {k: v for k, v in r["backbones"]["audio"].items() if k != "network"} == dict(
        name="wav2vec2_tiny", weights="random", source="random"
    ) and len(r["backbones"]["video"]["weights"]) == 64

    monkeypatch.setattr(frozen, "frozen_backbone", None)  # a second run builds no backbone
    again = load_data(configure(**settings), verbose=False).data
    monkeypatch.undo()
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "fresh"))
    straight = load_data(configure(**settings), verbose=False).data
    for s in ("audio", "video"):
        a, b = getattr(again, s), getattr(straight, s)
        assert (
            torch.equal(a.x, b.x)
            and torch.equal(a.mask, b.mask)
            and a.x.shape[-1] == {"audio": 64, "video": 128}[s]
        )

    with pytest.raises(AvkitError, match="Cannot read the weights /nowhere"):
        load_data(configure(**settings | dict(video_weights="/nowhere/w.pth")), verbose=False)
    wrong = settings | dict(options=json.dumps(SMALL | {"video_backbone": "wav2vec2_tiny"}))
    with pytest.raises(AvkitError, match="takes wave"):
        load_data(configure(**wrong), verbose=False)


def weights_file(path, backbone):
    "Weights of a `light` backbone, drawn anew"
    state = {f"module.{k}": v for k, v in backbone().state_dict().items()}
    torch.save({"state_dict": state}, path)
    return str(path)


def test_the_record_says_where_each_trained_backbone_began(tmp_path):
    "ntua2021: files for face and context, none for the body; the model stands without them"
    from avkit.core import file_hash
    from avkit.models.backbones import LightNet
    from avkit.training.checkpoint import load_model
    from helpers import config, toy

    face, context = (weights_file(tmp_path / f, LightNet) for f in ("face.pth", "places.pth"))
    mel = weights_file(tmp_path / "mel.pth", lambda: LightNet(1))
    cfg = config(
        "ntua2021",
        tmp_path / "run",
        video_weights=f"face={face},context={context}",
        options=json.dumps({"encoder_options": {"mel_pictures": {"weights": mel}}}),
    )
    r = fit(cfg, toy("ntua2021"), verbose=False)
    note = lambda f: dict(name="light", weights=file_hash(f), source=f.rsplit("/", 1)[1])
    assert r["backbones"] == {
        "video.trunks.face": note(face),
        "video.trunks.body": dict(name="light", weights="random", source="random"),
        "video.trunks.context": note(context),
        "audio.trunks.mel": note(mel),
    }
    assert r["files"] == {
        "video_weights.face": file_hash(face),
        "video_weights.context": file_hash(context),
        "encoder_options.mel_pictures": file_hash(mel),
    }
    for f in (face, context, mel):
        Path(f).unlink()
    assert sum(p.numel() for p in load_model(tmp_path / "run")[0].parameters()) == r["parameters"]


def test_a_frozen_backbone_for_each_view(monkeypatch):
    from avkit.training import loading

    got = []
    monkeypatch.setattr(
        loading,
        "backbone_stream",
        lambda store, source, name, weights, *_: (got.append(weights), dict()),
    )
    for w in (None, "a.pt", "face=a.pt,context=b.pt", "face=a.pt,body=a.pt,context=a.pt"):
        loading._encoded(
            configure(
                recipe="ntua2021",
                video_weights=w,
                device="cpu",
                random_backbone=True,
                options='{"video_backbone": "resnet18"}',
            ),
            "video",
            None,
            None,
            {},
        )
    a, b = (str(Path.cwd() / n) for n in ("a.pt", "b.pt"))
    assert got == [None, a, dict(face=a, body=None, context=b), a]


def test_a_named_source_of_a_trained_backbone(monkeypatch):
    from avkit.models.backbones import build_backbone, load_weights, backbones_of

    other = build_backbone("resnet18").net.state_dict()
    monkeypatch.setattr(weights_module, "_fetch", lambda weights, name: (other, {}))
    t = build_backbone("resnet18")
    load_weights(t, "published")
    assert backbones_of(t) == {
        "": dict(
            name="resnet18",
            weights=weights_module.weights_hash(None, "torchvision:resnet18", "resnet18", other),
            source="torchvision:resnet18",
        )
    }


def test_a_named_source_without_a_network(monkeypatch):
    import timm

    def offline(*a, **kw):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(AvkitError, match="could not be fetched.*give the file"):
        backbones.build_backbone("vit_tiny", "published", say=False)


def test_a_named_source_is_fetched_and_hashed_once(tmp_path, monkeypatch):
    net, fetched, store = (
        backbones.build_backbone("resnet18_small", say=False).net,
        [],
        Store(tmp_path),
    )

    def fetch(weights, name):
        fetched.append(weights)
        return net.state_dict(), dict(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))

    monkeypatch.setattr(weights_module, "_fetch", fetch)
    one, two = (
        weights_module.weights_hash(store, "timm:some.tag", "resnet18_small") for _ in range(2)
    )
    assert one == two and len(one) == 64 and fetched == ["timm:some.tag"]
    t = backbones.build_backbone("resnet18_small", "timm:some.tag")
    assert t.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3]) and torch.equal(
        t.net.conv1.weight, net.conv1.weight
    )


def test_one_network_out_of_a_file_of_two():
    "TSAV's files (jca2023) hold the audio's and the video's network"
    mine, other = (
        backbones.build_backbone(k, say=False).net.state_dict()
        for k in ("mel_resnet18_small", "wav2vec2_tiny")
    )
    file = {f"module.audio_model.resnet.{k}": v for k, v in mine.items()} | {
        f"module.video_model.r2plus1d.{k}": v for k, v in other.items()
    }
    file |= {"module.audio_model.resnet.fc.1.weight": torch.ones(17, 128)}
    net = backbones.build_backbone("mel_resnet18_small", say=False).net
    assert weights_module.fit_weights(net, file, "tsav.pth") == [] and torch.equal(
        net.conv1.weight, mine["conv1.weight"]
    )


def test_large_streams_are_scaled_alike():
    torch.manual_seed(0)
    x, mask = torch.randn(90, 5, 3) * 4 + 2, torch.rand(90, 5) < 0.7
    whole, lazy = Stream(x, mask, "x"), Stream(Rows(x, torch.arange(90)), mask, "x")
    stats, idx = mean_and_deviation(whole, torch.arange(80)), torch.tensor([85, 3])
    for a, b in zip(stats, mean_and_deviation(lazy, torch.arange(80))):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.equal(standardise(lazy, *stats).x[idx], standardise(whole, *stats).x[idx])
    assert not standardise(whole, *stats).x[~mask].any()


def test_a_file_of_a_head_alone_is_refused_with_its_name():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    before = net[0].weight.clone()
    heads = {"module.fc.weight": torch.ones(7, 2), "module.fc.bias": torch.ones(7)}
    for state in ({k.removeprefix("module."): v for k, v in heads.items()}, {}):
        for optional in ((), ("",)):  # also where all may be missing: the network stays as drawn
            with pytest.raises(AvkitError, match="head.pt has no weight of this network"):
                weights_module.fit_weights(net, state, "head.pt", optional=optional)
    assert torch.equal(net[0].weight, before)


@pytest.fixture
def own(monkeypatch):
    "A way to register a backbone of one's own, whose constructor gives it its weights"
    from avkit.models import backbones

    def register(value, name="mine"):
        def make(**options):
            net = backbones.LightNet()
            with torch.no_grad():
                for p in net.parameters():
                    p.fill_(value)
            return net

        spec = backbones.BackboneSpec(make, "frames", 64, 40, channels_last=False)
        monkeypatch.setitem(backbones.BACKBONES, name, spec)

    return register


def frames_of(n=2):
    from avkit.datasets.features import Source

    x = torch.randint(0, 255, (n, 3, 3, 40, 40), dtype=torch.uint8)
    keys = [f"{i}" for i in range(n)]

    def make(i, j):
        return dict(x=x[i:j], real=torch.full((j - i,), 3))

    return Source(keys, "all", make, "frames")


def test_features_are_keyed_by_the_weights_content(own, tmp_path, capsys):
    "Other weights under one name, a file replaced within its time and size; one content, two paths"
    import os, shutil
    from safetensors.torch import save_file
    from avkit.models.backbones import build_backbone
    from avkit.store import Store
    from avkit.training.frozen import backbone_stream

    store, source = Store(tmp_path / "store"), frames_of()

    def made(name, weights=None):
        stream, note = backbone_stream(store, source, name, weights)
        return stream.key, stream.x.clone(), note

    own(0.01)
    first = made("mine")
    own(0.02)
    second = made("mine")
    assert first[0] != second[0] and not torch.equal(first[1], second[1])
    own(0.01)
    assert made("mine")[0] == first[0]
    for note in (first[2], second[2]):
        assert note["weights"] != "random" and note["source"] == "its own constructor"
    assert "random" not in capsys.readouterr().out
    for n, value in (("a", 0.1), ("b", 0.2)):
        net = build_backbone("light", say=False).net
        save_file({k: torch.full_like(v, value) for k, v in net.state_dict().items()}, tmp_path / n)
        os.rename(tmp_path / n, tmp_path / f"{n}.safetensors")
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    (tmp_path / "else").mkdir()
    copied = shutil.copy(a, tmp_path / "else/c.safetensors")
    one = made("light", a)
    assert made("light", copied)[0] == one[0] and made("light", b)[0] != one[0]
    stat = a.stat()
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(b, a)  # the same size, the same time
    assert a.stat().st_size == stat.st_size and a.stat().st_mtime_ns == stat.st_mtime_ns
    again = made("light", a)
    assert again[0] != one[0] and not torch.equal(again[1], one[1])
    assert again[2]["weights"] != one[2]["weights"]


def test_runs_that_begin_together_share_the_work(tmp_path, monkeypatch):
    "What another process has stored meanwhile is not computed again, wherever either began"
    import os
    from avkit.models.backbones import build_backbone

    net, store, source = build_backbone("light", say=False), Store(tmp_path), frames_of(8)
    keys, done = list("abcdefgh"), []
    once = frozen.apply_backbone
    monkeypatch.setattr(frozen, "apply_backbone", lambda *a: done.append(1) or once(*a))

    def run(process, rows):
        monkeypatch.setattr(os, "getpid", lambda: process)
        frozen._run(net, rows, range(8), keys, store, "cpu", None, {})

    def interrupted(i, j):
        "After the first row the other process does all of its own"
        if not done:
            done.append(0)
            run(3, source)
        return source.make(i, j)

    run(2, replace(source, make=interrupted))
    assert len(done) - 1 <= 8 + 1 and all(store.has(k) for k in keys)
    alone = Store(tmp_path / "alone")
    frozen._run(net, source, range(8), keys, alone, "cpu", None, {})
    for k in keys:
        assert torch.equal(store.get(k)[0]["x"], alone.get(k)[0]["x"])


def test_random_is_never_said_of_weights_that_were_loaded():
    import copy
    from avkit.models.backbones import backbones_of, build_backbone
    from avkit.models.weights import restoring

    def whole():
        torch.manual_seed(0)
        return torch.nn.ModuleDict(dict(face=build_backbone("light", say=False)))

    def source(m):
        return backbones_of(m)["face"]["source"]

    m, theirs = whole(), whole()
    assert source(m) == "random"
    with restoring():  # what a run does with its own weights
        m.load_state_dict(theirs.state_dict())
    assert source(m) == "random"
    m["face"].net.load_state_dict(theirs["face"].net.state_dict())
    assert source(m) == "loaded by hand" and source(copy.deepcopy(m)) == "loaded by hand"
    by_parent = whole()
    by_parent.load_state_dict(theirs.state_dict())
    assert source(by_parent) == "loaded by hand"
    assert len(backbones_of(by_parent)["face"]["weights"]) == 64


def test_a_run_with_an_own_backbone_is_predicted_or_says_why_not(own, tmp_path):
    from avkit.evaluation.runs import check_backbones, RunFacts
    from avkit.models import backbones
    from avkit.store import Store
    from avkit.training.configure import configure
    from avkit.training.frozen import backbone_note

    own(0.01)
    cfg = configure(modality="video", options=dict(video_backbone="mine"))
    note = backbone_note(Store(), "mine")
    run = RunFacts(tmp_path, dict(name="looks", backbones=dict(video=note)), cfg)
    check_backbones(run)
    own(0.02)
    with pytest.raises(AvkitError, match="other weights of the video backbone mine"):
        check_backbones(run)
    del backbones.BACKBONES["mine"]
    with pytest.raises(AvkitError, match="registered by the script that trained it"):
        check_backbones(run)
    own(0.02)  # for the fixture to take away
