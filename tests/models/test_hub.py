"""Published networks by name or folder: equal to what their own libraries give, known by their
content, used from a shell. The networks are tiny and random; Whisper base where it is at hand."""

import json, shutil
from dataclasses import replace
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file, save_file
from avkit.cli import main
from avkit.core import AvkitError, file_hash, read_json
from avkit.datasets.features import Source
from avkit.models import hub
from avkit.store import Store
from avkit.training.configure import configure
from avkit.training.frozen import backbone_stream
from helpers import rendered_actors

WIDTH = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
HEARS = dict(
    conv_dim=[16] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, vocab_size=8
)
SEES = dict(image_size=32, patch_size=8)
READS = WIDTH | dict(vocab_size=9, max_position_embeddings=8)
EARS = ("wav2vec2", "hubert", "wavlm")
EYES = ("clip", "dinov2", "siglip")
LAYERS = (None, 0, 1, 2, "mean", "weighted")


def tiny(kind, folder):
    "A network of two layers with random weights, and how its input is made, in a folder"
    import transformers as t

    both = dict(text_config=READS, vision_config=WIDTH | SEES)
    six = {k: v for k, v in WIDTH.items() if k != "intermediate_size"}
    stable = dict(do_stable_layer_norm=True, feat_extract_norm="layer")
    make = dict(
        wav2vec2=lambda: t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WIDTH, **HEARS, **stable)),
        hubert=lambda: t.HubertModel(t.HubertConfig(**WIDTH, **HEARS)),
        wavlm=lambda: t.WavLMModel(t.WavLMConfig(**WIDTH, **HEARS)),
        clip=lambda: t.CLIPModel(t.CLIPConfig(**both, projection_dim=16)),
        siglip=lambda: t.SiglipModel(t.SiglipConfig(**both)),
        dinov2=lambda: t.Dinov2Model(t.Dinov2Config(**six, **SEES, mlp_ratio=2)),
    )
    torch.manual_seed(0)
    make[kind]().save_pretrained(folder)
    if kind in EARS:
        t.Wav2Vec2FeatureExtractor(do_normalize=kind != "wavlm").save_pretrained(folder)
        return folder
    size = dict(height=32, width=32)
    scale = dict(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])
    p = t.CLIPImageProcessor(size=size, crop_size=size, **scale)
    p.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "{kind: its folder}"
    pytest.importorskip("transformers")
    d = tmp_path_factory.mktemp("hub")
    out = {kind: tiny(kind, d / kind) for kind in EARS + EYES}
    return out | dict(whisper=hub.save_small_whisper(d / "whisper"))


def waves(*samples):
    "A source of waveforms, and the waveforms"
    g = torch.Generator().manual_seed(1)
    x = [torch.randn(n, generator=g) for n in samples]
    whole = torch.nn.utils.rnn.pad_sequence(x, batch_first=True)
    real = torch.tensor(samples)

    def make(i, j):
        return dict(x=whole[i:j], real=real[i:j])

    return Source([f"wave {n}" for n in samples], "waves", make, "waves", rate=16000), x


def frames(n=2, side=32):
    "A source of two clips of three frames, and the frames"
    g = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (n, 3, 3, side, side), dtype=torch.uint8, generator=g)

    def make(i, j):
        return dict(x=x[i:j], real=torch.full((j - i,), 3))

    return Source([f"clip {side} {i}" for i in range(n)], "frames", make, "frames"), x


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def asked(states, last, layer):
    "What `layer` means, said again: of a list of states from 0, and what the network ends with"
    after = states[1:]
    if layer is None:
        return last
    if layer == "mean":
        return sum(after) / len(after)
    return torch.cat(after, -1) if layer == "weighted" else states[layer]


@pytest.mark.parametrize("kind", EARS)
@torch.no_grad()
def test_networks_that_hear_give_what_transformers_gives(folders, kind, tmp_path):
    import transformers as t

    net = t.AutoModel.from_pretrained(folders[kind]).eval()
    made = t.AutoFeatureExtractor.from_pretrained(folders[kind])
    source, clips = waves(8000, 12345)
    for layer in LAYERS:
        stream, note = backbone_stream(
            Store(tmp_path), source, f"hf:{kind}", folders[kind], layer=layer
        )
        for i, wave in enumerate(clips):
            given = made(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values
            out = net(given, output_hidden_states=True)
            want = asked(out.hidden_states, out.last_hidden_state, layer)[0]
            close(stream.x[i][stream.mask[i]], want)
        assert (note["rate"], note["layer"]) == (50, str(layer or "last") if layer != 0 else "0")
        assert (stream.layers, note["dim"]) == ((2, 64) if layer == "weighted" else (1, 32))


@pytest.mark.parametrize("kind", EYES)
@torch.no_grad()
def test_networks_that_see_give_what_transformers_gives(folders, kind, tmp_path):
    import transformers as t

    whole = t.AutoModel.from_pretrained(folders[kind]).eval()
    net = getattr(whole, "vision_model", whole)
    made = t.AutoImageProcessor.from_pretrained(folders[kind])
    source, clips = frames()
    for layer in LAYERS:
        stream, _ = backbone_stream(
            Store(tmp_path), source, f"hf:{kind}", folders[kind], layer=layer
        )
        for i, clip in enumerate(clips):
            given = made(images=list(clip), return_tensors="pt").pixel_values
            out = net(pixel_values=given, output_hidden_states=True)
            places = [h[:, -16:].mean(1) for h in out.hidden_states]  # 32 / 8 pixels a side
            close(stream.x[i], asked(places, out.pooler_output, layer))


def test_frames_are_scaled_to_the_size_of_the_network_as_a_whole(folders, tmp_path):
    source, clips = frames(1, side=50)
    stream, _ = backbone_stream(Store(tmp_path), source, "hf:clip", folders["clip"])
    size = dict(size=(32, 32), mode="bicubic", antialias=True)
    small = torch.nn.functional.interpolate(clips[0] / 255, **size).clamp(0, 1)
    t = hub.hub_backbone("hf:clip", folders["clip"])
    with torch.no_grad():
        close(stream.x[0], t(small))


def short_whisper(folder, positions):
    "transformers' own encoder, its table of positions cut"
    import transformers as t
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    whole = t.WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval()
    config = t.WhisperConfig.from_pretrained(
        folder, max_source_positions=positions, dtype="float32"
    )
    net = WhisperEncoder(config).eval()
    cut = {"embed_positions.weight": whole.embed_positions.weight[:positions]}
    net.load_state_dict(whole.state_dict() | cut)
    return whole, net


@torch.no_grad()
def compare_whisper(folder, samples, tmp_path, layers, padded_layers):
    "Both ways of running Whisper, with transformers' own"
    import transformers as t

    source, (wave,) = waves(samples)
    steps = -(-samples // 320)
    whole, short = short_whisper(folder, steps)
    made = t.WhisperFeatureExtractor.from_pretrained(folder)
    own = torch.nn.functional.pad(wave, (0, steps * 320 - samples)).numpy()
    ways = (False, short, dict(padding=False), layers), (True, whole, {}, padded_layers)
    for pad, net, how, layers in ways:
        x = wave.numpy() if pad else own
        given = made(x, sampling_rate=16000, return_tensors="pt", **how).input_features
        out = net(given, output_hidden_states=True)
        for layer in layers:
            stream, note = backbone_stream(
                Store(tmp_path), source, "hf:whisper", folder, layer=layer, pad=pad
            )
            want = asked(out.hidden_states, out.last_hidden_state, layer)
            close(stream.x[0], want[0, :steps])
            assert note["rate"] == 50 and note.get("padded", False) == pad


def test_whisper_with_and_without_padding_gives_what_transformers_gives(folders, tmp_path):
    compare_whisper(folders["whisper"], 10000, tmp_path, LAYERS, LAYERS)


def test_the_real_whisper_gives_what_transformers_gives(shared_data, tmp_path):
    pytest.importorskip("transformers")
    folder = shared_data / "models/whisper-base-encoder"
    if not folder.is_dir():
        pytest.skip("the encoder of Whisper base is not at hand below the real data")
    compare_whisper(folder, 16000, tmp_path, (None, 3), (None,))  # 30 s, whatever is heard
    note = hub.hub_note(Store(tmp_path), "hf:openai/whisper-base", folder, layer=3)
    assert note["weights"] == file_hash(folder / "model.safetensors")
    assert (note["licence"], note["dim"], note["rate"]) == ("MIT License", 512, 50)
    assert str(shared_data) not in json.dumps(note)


def test_states_are_known_by_content_not_by_folder(folders, tmp_path, monkeypatch):
    store, (source, _) = Store(tmp_path / "store"), waves(8000)
    first, note = backbone_stream(store, source, "hf:hubert", folders["hubert"], layer=1)
    shutil.copytree(folders["hubert"], tmp_path / "copy")
    again, other = backbone_stream(store, source, "hf:hubert", folders["hubert"], layer=2)
    assert again.key != first.key and not torch.equal(again.x, first.x)
    config = read_json(tmp_path / "copy/config.json")
    monkeypatch.setattr(hub, "_BUILD", {})  # from here on nothing is built
    copied, there = backbone_stream(store, source, f"hf:{tmp_path}/copy", layer="1")
    assert copied.key == first.key and torch.equal(copied.x, first.x)
    assert there["source"] == "copy" and there["network"] == note["network"] != other["network"]
    config["layer_norm_eps"] = 0.1
    (tmp_path / "copy/config.json").write_text(json.dumps(config))
    assert hub.find_network(f"hf:{tmp_path}/copy").setup["layer_norm_eps"] == 0.1
    with pytest.raises(KeyError):  # other states: it wants to be built
        backbone_stream(store, source, f"hf:{tmp_path}/copy", layer=1)


def same_states(folder, like):
    x = torch.randn(1, 4000)
    a, b = (hub.hub_backbone("hf:x", f) for f in (folder, like))
    with torch.no_grad():
        close(a(x), b(x))


def test_weights_in_shards_in_a_pickle_and_under_older_names(folders, tmp_path):
    state = load_file(folders["wavlm"] / "model.safetensors")
    small = [f for f in folders["wavlm"].iterdir() if f.name != "model.safetensors"]
    shards, pickled = tmp_path / "shards", tmp_path / "pickled"
    for folder in (shards, pickled):
        folder.mkdir()
        for f in small:
            shutil.copy(f, folder)
    names = {k: f"model-{i % 2}.safetensors" for i, k in enumerate(sorted(state))}
    for file in set(names.values()):
        save_file({k: v for k, v in state.items() if names[k] == file}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=names)))
    older = {
        k.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for k, v in state.items()
        if k != "masked_spec_embed"
    }
    assert older.keys() != state.keys()
    torch.save({f"wavlm.{k}": v for k, v in older.items()}, pickled / "pytorch_model.bin")
    for folder in (shards, pickled):
        same_states(folder, folders["wavlm"])


def test_what_is_wrong_with_a_folder_is_said(folders, tmp_path, monkeypatch):
    state = load_file(folders["hubert"] / "model.safetensors")
    for lacks, word in (
        ("config.json", "no config.json"),
        ("model.safetensors", "neither model.safetensors"),
        ("preprocessor_config.json", "AutoFeatureExtractor"),
        ("encoder.layers.1.final_layer_norm.bias", "1 weight is missing"),
    ):
        folder = tmp_path / lacks
        shutil.copytree(folders["hubert"], folder)
        if lacks in state:
            rest = {k: v for k, v in state.items() if k != lacks}
            save_file(rest, folder / "model.safetensors")
        else:
            (folder / lacks).unlink()
        with pytest.raises(AvkitError, match=word):
            hub.hub_backbone(f"hf:{folder}")
    shutil.copytree(folders["hubert"], tmp_path / "deeper")
    config = read_json(tmp_path / "deeper/config.json") | dict(num_hidden_layers=1)
    (tmp_path / "deeper/config.json").write_text(json.dumps(config))
    with pytest.raises(AvkitError, match="16 weights have no place in this model: encoder.layers"):
        hub.hub_backbone(f"hf:{tmp_path}/deeper")
    shutil.copytree(folders["hubert"], tmp_path / "lost")
    state["encoder.layer_norm.bias"][3] = torch.nan
    save_file(state, tmp_path / "lost/model.safetensors")
    with pytest.raises(AvkitError, match="1 weight holds NaN: encoder.layer_norm.bias"):
        hub.hub_backbone(f"hf:{tmp_path}/lost")
    with pytest.raises(AvkitError, match="does not exist"):
        hub.hub_backbone("hf:x", tmp_path / "nowhere")

    def offline(*a, **kw):
        raise OSError("no route to the hub")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(AvkitError, match="is no folder here.*no route.*give the folder"):
        hub.hub_backbone("hf:someone/something")


def test_a_name_of_the_hub_has_a_revision(folders, tmp_path, monkeypatch):
    import huggingface_hub

    got = []
    snapshot = tmp_path / "snapshots/0123abcd"
    shutil.copytree(folders["hubert"], snapshot)

    def fetch(owner, revision=None, allow_patterns=None):
        got.append((owner, revision))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    note = hub.hub_note(Store(tmp_path), "hf:someone/hubert@main")
    assert got == [("someone/hubert", "main")]
    assert (note["revision"], note["source"]) == ("0123abcd", "hf:someone/hubert@main")


def test_networks_of_timm_and_torchvision_with_a_file(tmp_path):
    import timm, torchvision

    torch.manual_seed(0)
    vit = timm.create_model("test_vit").eval()
    small = torchvision.models.get_model("mobilenet_v3_small", weights=None).eval()
    x = torch.rand(2, 3, 64, 64)
    for name, net in (("timm:test_vit", vit), ("torchvision:mobilenet_v3_small", small)):
        torch.save(dict(state_dict=net.state_dict()), tmp_path / "w.pt")
        t = hub.hub_backbone(name, tmp_path / "w.pt")
        with torch.no_grad():
            given = t.scaled(x)
            if name.startswith("timm"):
                net.reset_classifier(0)
            else:
                net.classifier[-1] = torch.nn.Identity()
            close(t(x), net(given))
        note = hub.hub_note(Store(tmp_path), name, tmp_path / "w.pt")
        assert (note["weights"], note["source"]) == (file_hash(tmp_path / "w.pt"), "w.pt")
    with pytest.raises(AvkitError, match="do not show their layers"):
        hub.hub_backbone("torchvision:mobilenet_v3_small", tmp_path / "w.pt", layer=1)


def test_the_head_of_a_file_is_left_out_under_any_prefix(tmp_path):
    "A norm of timm's ConvNeXt stands in its head too, and is kept"
    import timm

    net = timm.create_model("test_convnext").eval()
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    t = hub.hub_backbone("timm:test_convnext", tmp_path / "w.pt")
    x = torch.rand(1, 3, t.size, t.size)
    net.reset_classifier(0)
    mean, std = (torch.tensor(net.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        close(t(x), net((x - mean) / std))
        maps = net.forward_intermediates((x - mean) / std, intermediates_only=True)
        second = hub.hub_backbone("timm:test_convnext", tmp_path / "w.pt", layer=2)
        close(second(x), maps[1].mean((2, 3)))


def test_without_transformers_the_cure_is_said(folders, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AvkitError, match=r"pip install 'avkit\[transformers\]'"):
        hub.find_network(f"hf:{folders['hubert']}")


def test_networks_of_torchaudio_with_a_file(tmp_path, monkeypatch):
    from torchaudio import pipelines

    b = pipelines.HUBERT_LARGE
    width = dict(encoder_embed_dim=32, encoder_num_layers=2, encoder_num_heads=2)
    size = dict(encoder_ff_interm_features=64, encoder_pos_conv_kernel=16)
    small = replace(b, _params=b._params | width | size | dict(encoder_pos_conv_groups=2))
    monkeypatch.setattr(pipelines, "HUBERT_LARGE", small)
    from torchaudio.models import wav2vec2_model

    torch.manual_seed(0)
    net = wav2vec2_model(**small._params).eval()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    source, (wave,) = waves(8000)
    normal = torch.nn.functional.layer_norm(wave[None], (8000,))
    with torch.no_grad():
        states = net.extract_features(normal)[0]
        for layer, want in ((None, net(normal)[0]), (1, states[0]), ("mean", sum(states) / 2)):
            stream, note = backbone_stream(
                Store(tmp_path), source, "torchaudio:HUBERT_LARGE", tmp_path / "w.pt", layer=layer
            )
            close(stream.x[0], want[0])
    assert note["rate"] == 50


def test_published_weights_are_what_a_name_without_weights_means(tmp_path, monkeypatch):
    import timm
    from avkit.models import weights

    net = timm.create_model("test_vit")
    monkeypatch.setattr(weights, "_fetch", lambda place, name: (net.state_dict(), {}))
    source, _ = frames(1, side=40)
    stream, note = backbone_stream(Store(tmp_path), source, "timm:test_vit")
    assert note["source"] == "timm:test_vit" and len(note["weights"]) == 64
    assert stream.x.shape == (1, 3, note["dim"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips") / "corpus"
    return root, rendered_actors(root)


def test_from_a_folder_to_a_prediction_in_a_shell(folders, corpus, tmp_path, monkeypatch, capsys):
    "Whisper hears with all its layers, CLIP sees; the run is told without the folders' places"
    monkeypatch.setenv("AVKIT_HOME", str(tmp_path / "cache"))
    root, split = corpus
    views = '{"preparation": {"frames": 4, "size": 48, "window": 1.0, "detector": "none"}}'
    words = f"train --recipe demo --dataset ravdess --data_root {root} --split {split} --epochs 1"
    words += f" --audio_backbone hf:{folders['whisper']} --audio_layer weighted"
    words += f" --video_backbone hf:openai/clip --video_weights {folders['clip']}"
    words += f" --device cpu --n_jobs 1 --run_dir {tmp_path / 'run'}"
    assert main([*words.split(), "--options", views]) == 0
    record = read_json(tmp_path / "run/record.json")
    audio, video = (record["backbones"][s] for s in ("audio", "video"))
    assert (audio["name"], audio["layer"], audio["side_by_side"]) == ("hf:whisper", "weighted", 2)
    assert (video["name"], video["source"]) == ("hf:openai/clip", "clip")
    assert record["files"]["audio_weights"] == audio["weights"]
    assert record["recipe"]["video_encoder"] == "vector"
    from avkit.training.checkpoint import load_model

    mix = load_model(tmp_path / "run")[0].audio.weight
    assert len(mix) == 2 and mix.abs().max() > 0, "the share of each layer was learned"
    clip = next(Path(root).rglob("*.mp4"))
    asked = f"predict {clip} --run {tmp_path / 'run'} --to {tmp_path / 'seen'}"
    assert main([*asked.split(), "--device", "cpu"]) == 0
    assert list((tmp_path / "seen").glob("*.csv"))
    shutil.copytree(folders["whisper"], tmp_path / "changed")
    state = load_file(tmp_path / "changed/model.safetensors")
    state["encoder.conv1.bias"] += 1
    save_file(state, tmp_path / "changed/model.safetensors")
    settings = record["config"] | dict(audio_weights=str(tmp_path / "changed"))
    from avkit.evaluation.runs import check_backbones, RunFacts

    run = RunFacts(tmp_path / "run", record, configure(**settings))
    with pytest.raises(AvkitError, match="other weights of the audio backbone hf:whisper"):
        check_backbones(run)
