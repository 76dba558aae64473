"""Files as the authors' code writes them: every layout loads, outputs are those of a plain
computation, wrong files are told apart."""

import json
import math
import os
import pathlib
import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from avkit.core import AvkitError
from avkit.models.conformer import RelativeAttention, sinusoids
from avkit.models.model import build_model, count_parameters
from avkit.training.configure import configure
from avkit.models.released import VAVL_FILES, load
from avkit.models.weights import read_file, undrawn
from author_files import (ConfigParser, random_state, save_emotiw, save_ntua, shapes,
    vavl_folder)  # fmt: skip


def trained_here(recipe, model, n_out, modality="av", widths=None, **settings):
    "The model that the recipe trains, with the weights of a released one"
    cfg = configure(recipe=recipe, size="paper", modality=modality, **settings)
    size = dict(modality=modality, n_out=n_out) | (widths or {})
    with undrawn():
        mine = build_model(cfg.recipe | size)
    mine.load_state_dict(model.model.state_dict())
    return mine.eval()


def yes(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


Z = torch.zeros
CALLS = dict(
    jca2023=[
        ("video not given", dict(audio=Z(2, 8, 512))),
        (
            r"video is \(1, 8, 512\), and \(B,8,512\) with B=2",
            dict(audio=Z(2, 8, 512), video=Z(1, 8, 512)),
        ),
        (r"audio is \(2, 7, 512\)", dict(audio=Z(2, 7, 512), video=Z(2, 7, 512))),
        (r"video is \(2, 4, 512\)", dict(audio=Z(2, 8, 512), video=Z(2, 4, 512))),
        (r"audio is \(2, 8, 256\)", dict(audio=Z(2, 8, 256), video=Z(2, 8, 512))),
        (r"audio is \(8, 512\)", dict(audio=Z(8, 512), video=Z(8, 512))),
        (
            "audio is a Tensor of torch.float64",
            dict(audio=Z(2, 8, 512).double(), video=Z(2, 8, 512)),
        ),
        ("audio is a ndarray of float32", dict(audio=Z(2, 8, 512).numpy(), video=Z(2, 8, 512))),
    ],
    chumachenko2022=[
        ("audio not given", dict(video=Z(1, 3, 3, 224, 224))),
        (r"audio is \(1, 156, 10\)", dict(audio=Z(1, 156, 10), video=Z(1, 3, 3, 224, 224))),
        (
            r"video is \(1, 3, 3, 224, 224\), and .*B=2",
            dict(audio=Z(2, 10, 156), video=Z(1, 3, 3, 224, 224)),
        ),
        (r"\(B,F,3,224,224\) with B=1", dict(audio=Z(1, 10, 156), video=Z(1, 3, 15, 224, 224))),
        (r"video is \(15, 3", dict(audio=Z(1, 10, 156), video=Z(15, 3, 224, 224))),
        (r"3, 200, 224", dict(audio=Z(1, 10, 156), video=Z(1, 3, 3, 200, 224))),
        (
            "video is a Tensor of torch.uint8",
            dict(audio=Z(1, 10, 156), video=Z(1, 3, 3, 224, 224, dtype=torch.uint8)),
        ),
    ],
    emotiw2023=[
        *(
            (
                f"{S} pictures for {T} segments",
                dict(audio=Z(1, T, 1, 106, 106), video=Z(1, S, 1024)),
            )
            for T, S in ((5, 7), (5, 3), (5, 15), (1, 75))
        ),
        (
            r"video is \(1, 0, 1024\): there is nothing",
            dict(audio=Z(1, 5, 1, 106, 106), video=Z(1, 0, 1024)),
        ),
        (r"\(B,T,1,H,W\)", dict(audio=Z(1, 5, 106, 106), video=Z(1, 5, 1024))),
        (r"\(B,S,1024\) with B=1", dict(audio=Z(1, 5, 1, 106, 106), video=Z(1, 5, 768))),
    ],
    ntua2021=[
        ("context not given", dict(face=Z(1, 2, 3, 112, 112), body=Z(1, 2, 3, 112, 112))),
        (
            r"face is \(2, 3, 112, 112\)",
            dict.fromkeys(("face", "body", "context"), Z(2, 3, 112, 112)),
        ),
        ("face, body, context not given", dict(audio=Z(1, 2, 3, 64, 64))),
        (
            "body .* T=2",
            dict(face=Z(1, 2, 3, 64, 64), body=Z(1, 3, 3, 64, 64), context=Z(1, 2, 3, 64, 64)),
        ),
    ],
    vavl2023=[
        (r"video is \(1, 4, 1408\), .* B=2", dict(audio=Z(2, 6, 1024), video=Z(1, 4, 1408))),
        (r"audio is \(2, 1024, 6\)", dict(audio=Z(2, 1024, 6))),
        (
            r"audio_mask is \(2, 5\), and a Tensor \(2, 6\) of torch.bool",
            dict(audio=Z(2, 6, 1024), audio_mask=Z(2, 5).bool()),
        ),
    ],
)


def refuses(recipe, model):
    "Where the released code crashes, there are no numbers here, and the error says which stream"
    for match, streams in [*CALLS[recipe], ("Unknown stream 'sound'", dict(sound=Z(1)))]:
        with pytest.raises(AvkitError, match=match), torch.no_grad():
            model(**streams)


def test_the_released_example(shared_data):
    "jca2023: the released module's own outputs, with a NumPy scalar in the file"
    from safetensors.torch import load_file

    d = shared_data / "released_example/jca2023-cam_256"
    model, x, y = (
        load("jca2023", d / "checkpoint.pt"),
        load_file(d / "inputs.safetensors"),
        load_file(d / "outputs.safetensors"),
    )
    assert not model.training and count_parameters(model) == 181_889
    f = model.model.fusion
    f.keep_maps = True
    with torch.no_grad():
        out, joint = (
            model(audio=x["audio"], video=x["video"]),
            torch.cat(
                [
                    p
                    for p, _ in f.head_inputs(
                        x["audio"], yes(x["audio"]), x["video"], yes(x["video"])
                    )
                ],
                -1,
            ),
        )
    for got, name in ((out, "out"), (joint, "joint")):
        assert (got - y[name]).abs().max() < 1e-5, name
    for got, name in ((f.maps["audio -> joint"], "corr_a"), (f.maps["video -> joint"], "corr_v")):
        assert (got - y[name].abs()).abs().max() < 1e-5, name


@pytest.mark.parametrize("width", [256, 640])
def test_jca_is_the_authors_loop(shared_data, tmp_path, width):
    "Batched, against one clip at a time in the paper's formulas; 640: raw and attended video"
    state = random_state(shapes(shared_data, f"jca2023-cam_{width}", "net"))
    torch.save(
        dict(net=state, best_Val_acc=np.float64(0.5), best_Val_acc_epoch=3), tmp_path / "c.pt"
    )
    model, a, v = load("jca2023", tmp_path / "c.pt"), torch.randn(3, 8, 512), torch.randn(3, 8, 512)
    assert count_parameters(model) == {256: 181_889, 640: 231_041}[width]
    for i in range(3):
        X = [
            F.linear(x[i], state[f"encoder{k}.weight"], state[f"encoder{k}.bias"]).T
            for k, x in ((1, a), (2, v))
        ]  # (128,8)
        J, att = torch.cat(X), []
        for x, n in zip(X, "av"):
            c = torch.tanh(x @ (state[f"affine_{n}.weight"] @ J.T) / 16)
            h = F.relu(x @ state[f"W_{n}.weight"].T + c @ state[f"W_c{n}.weight"].T)
            att.append((h @ state[f"W_h{n}.weight"].T + x).T)
        if width == 640:
            att[0] = v[i]
        z = F.linear(torch.cat(att, 1), state["regressor.0.weight"], state["regressor.0.bias"])
        z = F.linear(z, state["regressor.2.weight"], state["regressor.2.bias"])
        with torch.no_grad():
            assert torch.allclose(model(audio=a[i : i + 1], video=v[i : i + 1])[0], z, atol=1e-5)
    here = trained_here(
        "jca2023",
        model,
        1,
        widths=dict(audio_dim=512, video_dim=512),
        quirks=["raw_visual"] if width == 640 else None,
    )
    with torch.no_grad():
        assert torch.equal(here(a, v, step_mask=yes(a)), model(audio=a, video=v))


@pytest.mark.parametrize(
    "case,fusion", [("ia_h1", "ia"), ("ia_h1_cpu", "ia"), ("it_h1", "it"), ("lt_h1", "lt")]
)
def test_chumachenko(shared_data, tmp_path, case, fusion):
    state = random_state(shapes(shared_data, f"chumachenko2022-{case}", "state_dict"))
    torch.save(
        dict(
            epoch=3,
            arch="multimodalcnn",
            state_dict=OrderedDict(state),
            optimizer={},
            best_prec1=80.0,
        ),
        tmp_path / "c.pth",
    )
    heads = {h: load("chumachenko2022", tmp_path / "c.pth", num_heads=h) for h in (1, 4)}
    x = dict(audio=torch.randn(1, 10, 156), video=torch.rand(1, 3, 3, 224, 224))
    with torch.no_grad():
        out = {h: m(**x) for h, m in heads.items()}
    assert out[1].shape == (1, 8) and (out[1] - out[4]).abs().max() > 1e-6
    key = next(k for k in state if k.endswith("audio_model.conv1d_0.0.weight"))
    assert torch.equal(heads[1].model.audio.conv1d_0[0].weight, state[key])
    described = load("chumachenko2022", tmp_path / "c.pth", mode="as_described")
    with torch.no_grad():
        gap = (described(**x) - out[1]).abs().max()
    assert (gap > 1e-6) == (fusion != "ia")  # the missing residual
    here = trained_here(
        "chumachenko2022",
        heads[1],
        8,
        widths=dict(audio_dim=10),
        fusion=fusion,
        quirks="no_attention_residual,unnormalised_crops",
    )
    with torch.no_grad():
        assert torch.equal(here(x["audio"].transpose(1, 2), x["video"]), out[1])


def plain_block(x, s):
    "emotiw2023's transformer block on one clip (T,1024)"
    n, d = x.shape
    pe = torch.tensor(
        [
            [
                math.sin(p / 10000 ** (2 * (i // 2) / d))
                if i % 2 == 0
                else math.cos(p / 10000 ** (2 * (i // 2) / d))
                for i in range(d)
            ]
            for p in range(n)
        ]
    )
    x = x + pe
    norm = lambda z, k: F.layer_norm(
        z, (d,), s[f"encoder.{k}.weight"], s[f"encoder.{k}.bias"], 1e-6
    )
    q, k, v = F.linear(
        norm(x, "norm1"), s["encoder.attn.in_proj_weight"], s["encoder.attn.in_proj_bias"]
    ).chunk(3, -1)
    x = x + F.linear(
        (q @ k.T / math.sqrt(d)).softmax(-1) @ v,
        s["encoder.attn.out_proj.weight"],
        s["encoder.attn.out_proj.bias"],
    )
    h = F.relu(F.linear(norm(x, "norm2"), s["encoder.ff.net.0.weight"], s["encoder.ff.net.0.bias"]))
    return x + F.linear(h, s["encoder.ff.net.3.weight"], s["encoder.ff.net.3.bias"])


def plain_cnn(x, s):
    for i in range(1, 5):
        for j in (0, 2, 4):
            x = F.relu(
                F.conv2d(x, s[f"backbone.cnn{i}.{j}.weight"], s[f"backbone.cnn{i}.{j}.bias"])
            )
        x = F.max_pool2d(x, 2)
    return F.adaptive_avg_pool2d(x, (1, 2)).flatten(1)


@pytest.mark.parametrize("head", ["avg", "flatten"])
def test_emotiw_audio(shared_data, tmp_path, head):
    state = random_state(shapes(shared_data, f"emotiw2023-audio_{head}", "model_state_dict"))
    save_emotiw(tmp_path / "c.pt", state)
    model, x = load("emotiw2023", tmp_path / "c.pt"), torch.randn(1, 5, 1, 110, 120)
    s = {k.removeprefix("feat."): v for k, v in state.items()}
    z = plain_block(plain_cnn(x[0], s), s)
    want = F.linear(
        z.flatten() if head == "flatten" else z.mean(0), s["head.weight"], s["head.bias"]
    )
    with torch.no_grad():
        assert torch.allclose(model(audio=x)[0], want, atol=1e-4)
    here = trained_here(
        "emotiw2023", model, 3, "audio", variants="flatten" if head == "flatten" else None
    )
    assert (
        count_parameters(here)
        == count_parameters(model)
        == (16_215_107 if head == "flatten" else 16_202_819)
    )


@pytest.mark.parametrize("head", ["avg_5", "flatten_5"])
def test_emotiw_fusion(shared_data, tmp_path, head):
    full = shapes(shared_data, f"emotiw2023-fusion_{head}", "model_state_dict")
    state = random_state({k: v for k, v in full.items() if not k.startswith("video_backbone.")})
    save_emotiw(tmp_path / "c.pt", state)
    model, a, v = (
        load("emotiw2023", tmp_path / "c.pt"),
        torch.randn(1, 5, 1, 106, 106),
        torch.randn(1, 5, 1024),
    )
    s = {k.removeprefix("audio_feat."): t for k, t in state.items()}
    x = plain_block(plain_cnn(a[0], s), s)
    W, b = s["cross.in_proj_weight"].split(1024), s["cross.in_proj_bias"].split(1024)
    q, k, w = F.linear(x, W[0], b[0]), F.linear(v[0], W[1], b[1]), F.linear(v[0], W[2], b[2])
    y = F.linear(
        (q @ k.T / 32).softmax(-1) @ w, s["cross.out_proj.weight"], s["cross.out_proj.bias"]
    )
    z = torch.cat([x, y, v[0]], -1)
    want = F.linear(
        z.flatten() if head.startswith("flatten") else z.mean(0), s["head.weight"], s["head.bias"]
    )
    with torch.no_grad():
        out = model(audio=a, video=v)
        assert torch.allclose(out[0], want, atol=1e-4)
        assert torch.allclose(
            model(audio=a, video=v.repeat_interleave(15, 1))[0], want, atol=1e-4
        )  # 75 frames in groups of 15
        here = trained_here(
            "emotiw2023",
            model,
            3,
            widths=dict(video_dim=1024),
            variants=["frozen", "flatten"] if head == "flatten_5" else "frozen",
        )
        assert torch.equal(here(a, v), out) and count_parameters(here) == (
            20_444_227 if head == "flatten_5" else 20_407_363
        )
    with pytest.raises(AvkitError, match="holds no ViT"):
        model(audio=a, video=torch.zeros(1, 5, 3, 28, 28))


def test_emotiw_with_a_vit(shared_data, tmp_path):
    "Frames through the file's ViT, which is timm's own, are its features"
    timm = pytest.importorskip("timm")
    state = random_state(shapes(shared_data, "emotiw2023-fusion_avg_5_tinyvit", "model_state_dict"))
    save_emotiw(tmp_path / "c.pt", state)
    vit = timm.create_model(
        "vit_large_patch14_clip_224", img_size=28, depth=1, mlp_ratio=1.0, num_classes=0
    ).eval()
    vit.load_state_dict(
        {
            k.removeprefix("video_backbone.vit."): v
            for k, v in state.items()
            if k.startswith("video_backbone.vit.")
        }
    )
    model, a, x = (
        load("emotiw2023", tmp_path / "c.pt"),
        torch.randn(1, 5, 1, 106, 106),
        torch.randn(1, 5, 3, 28, 28),
    )
    with torch.no_grad():
        out = model(audio=a, video=vit(x[0])[None])
        assert torch.allclose(model(audio=a, video=x), out, atol=1e-5)
        assert torch.allclose(model(audio=a, video=x.repeat_interleave(15, 1)), out, atol=1e-5)
    for wrong in (torch.zeros(1, 5, 3, 30, 28), torch.zeros(1, 5, 1, 28, 28)):
        with pytest.raises(AvkitError, match=r"and \(B,S,3,28,28\) with B=1 is expected"):
            model(audio=a, video=wrong)


@pytest.mark.parametrize("flatten", [False, True])
def test_emotiw_video(tmp_path, flatten):
    "Pictures alone: five of them, or 75 in groups of 15 where they are flattened, as features"
    state = {
        "head.weight": torch.randn(3, 5120 if flatten else 1024) / 50,
        "head.bias": torch.randn(3),
    }
    torch.save(dict(model_state_dict=state), tmp_path / "c.pt")
    for steps in (5, 75):
        v = torch.randn(2, steps, 1024)
        z = v.unflatten(1, (5, -1)).mean(2).flatten(1) if flatten else v.mean(1)
        with torch.no_grad():
            assert torch.allclose(
                load("emotiw2023", tmp_path / "c.pt")(video=v),
                F.linear(z, state["head.weight"], state["head.bias"]),
                atol=1e-5,
            )
    if flatten:
        with pytest.raises(AvkitError, match="video has 3 steps, and .* reads 5 side by side"):
            load("emotiw2023", tmp_path / "c.pt")(video=v[:, :3])


def plain_resnet18(x, s):
    "ntua2021's face stream: a ResNet's children by number"
    bn = lambda x, k: F.batch_norm(
        x, s[f"{k}.running_mean"], s[f"{k}.running_var"], s[f"{k}.weight"], s[f"{k}.bias"]
    )
    x = F.max_pool2d(
        F.relu(bn(F.conv2d(x, s["face_model.0.weight"], stride=2, padding=3), "face_model.1")),
        3,
        2,
        1,
    )
    for i in range(4, 8):
        for b in (f"face_model.{i}.0", f"face_model.{i}.1"):
            step = 2 if i > 4 and b.endswith("0") else 1
            y = F.relu(bn(F.conv2d(x, s[f"{b}.conv1.weight"], stride=step, padding=1), f"{b}.bn1"))
            y = bn(F.conv2d(y, s[f"{b}.conv2.weight"], padding=1), f"{b}.bn2")
            if f"{b}.downsample.0.weight" in s:
                x = bn(F.conv2d(x, s[f"{b}.downsample.0.weight"], stride=step), f"{b}.downsample.1")
            x = F.relu(x + y)
    return x.mean((2, 3))


@pytest.mark.parametrize("case", ["face_expr", "face_va", "aural_expr", "face_body_context_expr"])
def test_ntua(shared_data, tmp_path, case):
    state = random_state(shapes(shared_data, f"ntua2021-{case}", "state_dict"))
    save_ntua(tmp_path / "c.pth", state)
    model = load("ntua2021", tmp_path / "c.pth")  # the config is not executed
    streams = (
        dict(audio=["audio"], face=["face"])[("audio" if case.startswith("aural") else "face")]
        if "body" not in case
        else ["face", "body", "context"]
    )
    torch.manual_seed(0)  # whatever ran before
    x = {k: torch.randn(1, 2, 3, 112, 112) for k in streams}
    with torch.no_grad():
        out = model(**x)
    assert out.shape == (1, 2, 2 if case.endswith("va") else 7)
    assert count_parameters(model) == (
        79_179_463 if "body" in case else 15_386_183 if "expr" in case else 15_381_058
    )
    if case == "aural_expr":
        with pytest.raises(AvkitError, match=r"audio is \(2, 3, 112, 112\)"):
            model(audio=x["audio"][0])
    if case == "face_expr":
        lstm = torch.nn.LSTM(512, 512, batch_first=True, bidirectional=True)
        lstm.load_state_dict(
            {k.removeprefix("rnn."): v for k, v in state.items() if k.startswith("rnn.")}
        )
        with torch.no_grad():
            f = plain_resnet18(x["face"][0], state)[None]
            assert torch.allclose(
                out, F.linear(lstm(f)[0], state["fc.weight"], state["fc.bias"]), atol=1e-5
            )
    if "body" in case:
        here = trained_here("ntua2021", model, 7, "video", quirks="resnet18_face")
        y = torch.cat(
            [
                t * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
                + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
                for t in x.values()
            ],
            2,
        )
        with torch.no_grad():
            assert torch.allclose(
                here(video=y, step_mask=yes(y)), out, atol=1e-5
            )  # the kit normalises itself
        with pytest.raises(AvkitError, match="context not given"):
            model(face=x["face"], body=x["body"])


def plain_rnn(x, s, layers):
    "Gates written out, on one clip (T,F), both ways, layer on layer: an LSTM has four, a GRU three"
    for l in range(layers):
        out = []
        for side, turn in (("", lambda z: z), ("_reverse", lambda z: z.flip(0))):
            (W, U), (b, d) = (
                [s[f"rnn.{n}_{k}_l{l}{side}"] for k in ("ih", "hh")] for n in ("weight", "bias")
            )
            h, c, seen = U.new_zeros(U.shape[1]), U.new_zeros(U.shape[1]), []
            for t in turn(x):
                a, r = (W @ t + b).split(len(h)), (U @ h + d).split(len(h))
                if len(a) == 4:
                    i, f, g, o = (p + q for p, q in zip(a, r))
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                else:
                    z = (a[1] + r[1]).sigmoid()
                    h = (1 - z) * (a[2] + (a[0] + r[0]).sigmoid() * r[2]).tanh() + z * h
                seen.append(h)
            out.append(turn(torch.stack(seen)))
        x = torch.cat(out, 1)
    return x


@pytest.mark.parametrize("cell,layers", [("lstm", 2), ("gru", 1), ("gru", 3)])
def test_ntua_with_another_recurrent_part(tmp_path, cell, layers):
    "Cell and layers are told from the weights: 4H or 3H rows, weight_ih_l1"
    import torchvision

    net, rows = torchvision.models.resnet18(), dict(lstm=4, gru=3)[cell] * 6
    state = {
        f"face_model.{i}.{n}": tuple(v.shape)
        for i, c in enumerate(list(net.children())[:-1])
        for n, v in c.state_dict().items()
    }
    for l in range(layers):
        for side in ("", "_reverse"):
            sizes = dict(
                weight_ih=(rows, 12 if l else 512),
                weight_hh=(rows, 6),
                bias_ih=(rows,),
                bias_hh=(rows,),
            )
            state |= {f"rnn.{n}_l{l}{side}": size for n, size in sizes.items()}
    state = random_state(state | {"fc.weight": (2, 12), "fc.bias": (2,)})
    torch.save(
        dict(arch="resnet18_rnn", epoch=1, state_dict=state, config=ConfigParser()),
        tmp_path / "c.pth",
    )
    model, x = load("ntua2021", tmp_path / "c.pth"), torch.randn(2, 3, 3, 64, 64)
    with torch.no_grad():
        out = model(face=x)
    for i in range(2):
        z = F.linear(
            plain_rnn(plain_resnet18(x[i], state), state, layers),
            state["fc.weight"],
            state["fc.bias"],
        )
        assert torch.allclose(out[i], z, atol=1e-5), (out[i] - z).abs().max()
    half = {k: v for k, v in state.items() if "_l0_reverse" not in k}
    torch.save(dict(arch="resnet18_rnn", state_dict=half), tmp_path / "c.pth")
    with pytest.raises(AvkitError, match="4 weights are missing: rnn.bias_hh_l0_reverse"):
        load("ntua2021", tmp_path / "c.pth")
    for more, match in (
        (
            state | {"fc.weight": torch.zeros(2, 9)},
            r"1 weight has another shape: fc.weight \(2, 9\)",
        ),
        (
            {k: v for k, v in state.items() if "_reverse" not in k}
            | {"fc.weight": torch.zeros(2, 6)},
            "in one direction",
        ),
    ):
        torch.save(dict(arch="resnet18_rnn", state_dict=more), tmp_path / "c.pth")
        with pytest.raises(AvkitError, match=match):
            load("ntua2021", tmp_path / "c.pth")


def test_ntua_streams_stand_side_by_side(tmp_path):
    "Face, body, context in this order: the three feature vectors, the LSTM, the linear layer"
    import torchvision

    nets = {k: torchvision.models.resnet18().eval() for k in ("face", "body", "context")}
    lstm, fc = (
        torch.nn.LSTM(3 * 512, 8, batch_first=True, bidirectional=True),
        torch.nn.Linear(16, 2),
    )
    state = {
        f"module.{k}_model.{i}.{n}": v
        for k, net in nets.items()
        for i, c in enumerate(list(net.children())[:-1])
        for n, v in c.state_dict().items()
    }
    state |= {f"module.rnn.{n}": v for n, v in lstm.state_dict().items()} | {
        f"module.fc.{n}": v for n, v in fc.state_dict().items()
    }
    torch.save(
        dict(arch="DataParallel", epoch=1, state_dict=state, config=ConfigParser()),
        tmp_path / "c.pth",
    )
    x = {k: torch.randn(2, 3, 3, 64, 64) for k in nets}
    with torch.no_grad():
        for net in nets.values():
            net.fc = torch.nn.Identity()
        y = torch.cat([nets[k](x[k].flatten(0, 1)).view(2, 3, -1) for k in nets], -1)
        model = load("ntua2021", tmp_path / "c.pth")
        assert torch.allclose(model(**x), fc(lstm(y)[0]), atol=1e-5)
    refuses("ntua2021", model)


def plain_conformer(x, s, layers):
    "The released Conformer on (batch, length, features), from the file's own names"
    lin = lambda x, k: F.linear(x, s[f"{k}.weight"], s.get(f"{k}.bias"))
    norm = lambda x, k: F.layer_norm(x, (512,), s[f"{k}.weight"], s[f"{k}.bias"])
    x = lin(x, "encoder.input_projection.0.linear")
    B, T, _ = x.shape
    for p in (f"encoder.layers.{i}.sequential" for i in range(layers)):
        feed = lambda x, q: lin(F.silu(lin(norm(x, f"{q}.0"), f"{q}.1.linear")), f"{q}.4.linear")
        x = x + 0.5 * feed(x, f"{p}.0.module.sequential")
        a, h = f"{p}.1.module.attention", norm(x, f"{p}.1.module.layer_norm")
        q, k, v = (
            lin(h, f"{a}.{n}_proj.linear").view(B, T, 8, 64) for n in ("query", "key", "value")
        )
        places = lin(s[f"{p}.1.module.positional_encoding.pe"][0, :T], f"{a}.pos_proj.linear").view(
            T, 8, 64
        )
        near = torch.einsum("bihd,jhd->bhij", q + s[f"{a}.v_bias"], places)
        near = (
            torch.cat([near.new_zeros(B, 8, T, 1), near], -1)
            .view(B, 8, T + 1, T)[:, :, 1:]
            .reshape(B, 8, T, T)
        )
        w = (
            (torch.einsum("bihd,bjhd->bhij", q + s[f"{a}.u_bias"], k) + near) / math.sqrt(512)
        ).softmax(-1)
        x = x + lin(
            torch.einsum("bhij,bjhd->bihd", w, v).reshape(B, T, 512), f"{a}.out_proj.linear"
        )
        c = f"{p}.2.module.sequential"
        h = F.glu(
            F.conv1d(
                norm(x, f"{c}.0").transpose(1, 2), s[f"{c}.2.conv.weight"], s[f"{c}.2.conv.bias"]
            ),
            1,
        )
        h = F.conv1d(h, s[f"{c}.4.conv.weight"], padding=15, groups=512)
        h = F.silu(
            F.batch_norm(
                h,
                s[f"{c}.5.running_mean"],
                s[f"{c}.5.running_var"],
                s[f"{c}.5.weight"],
                s[f"{c}.5.bias"],
            )
        )
        x = x + F.conv1d(h, s[f"{c}.7.conv.weight"], s[f"{c}.7.conv.bias"]).transpose(1, 2)
        x = x + 0.5 * feed(x, f"{p}.3.module.sequential")
        x = norm(x, f"{p}.4")
    return x


def plain_vavl(x, state, branch, conv):
    "The released representation: time first where the Conformer expects the batch"
    part = lambda d, p: {k.removeprefix(p): v for k, v in d.items() if k.startswith(p)}
    h = F.conv1d(x.transpose(1, 2), state[branch][f"conv_1d_{conv}.weight"]).permute(2, 0, 1)
    h = plain_conformer(h, part(state[branch], f"x_{branch}."), 3)
    y = plain_conformer(h, part(state["shared"], "x_shared."), 2) + h
    return F.layer_norm(
        y, (512,), state["shared"]["layer_norm.weight"], state["shared"]["layer_norm.bias"]
    ).mean(0)


def plain_head(x, s):
    for k in ("projav1", "projav2", "out_layer"):
        x = (F.relu if k == "projav1" else torch.nn.Identity())(
            F.linear(x, s[f"{k}.weight"], s[f"{k}.bias"])
        )
    return x


def test_vavl(shared_data, tmp_path):
    state = vavl_folder(shared_data, tmp_path)
    model, a, v = load("vavl2023", tmp_path), torch.randn(3, 6, 1024), torch.randn(3, 4, 1408)
    assert count_parameters(model) == 61_375_128 and not any(m.training for m in model.modules())
    with torch.no_grad():
        out, za, zv = (
            model(audio=a, video=v),
            plain_vavl(a, state, "acoustic", "a"),
            plain_vavl(v, state, "visual", "v"),
        )
        want = dict(
            audio=plain_head(za, state["MLP_a"]),
            video=plain_head(zv, state["MLP_v"]),
            av=plain_head(torch.cat([za, zv], 1), state["weights"]),
            audio_reconstruction=plain_head(za, state["MLP_rec_a"]),
            video_reconstruction=plain_head(zv, state["MLP_rec_v"]),
        )
        assert out.keys() == want.keys()
        for k in want:
            assert torch.allclose(out[k], want[k], atol=1e-5), (k, (out[k] - want[k]).abs().max())
        assert set(model(audio=a)) == {"audio", "audio_reconstruction"} and torch.allclose(
            model(audio=a)["audio"], out["audio"], atol=1e-6
        )
        assert (
            model(audio=a[:1])["audio"] - out["audio"][:1]
        ).abs().max() > 1e-4  # across the batch, as released
        here = trained_here(
            "vavl2023", model, 6, widths=dict(audio_dim=1024, video_dim=1408), mode="as_released"
        )
        fused, own = here(a, v, return_aux=True)
        assert torch.equal(fused, out["av"]) and all(
            torch.equal(own[k], out[k]) for k in out if k != "av"
        )
        right = load("vavl2023", tmp_path, mode="as_described")
        one = right(audio=a[:1])["audio"]
        assert torch.allclose(
            one, right(audio=a, video=v)["audio"][:1], atol=1e-5
        )  # one model for one stream or both
        wide, mask = (
            torch.cat([a, torch.randn(3, 4, 1024)], 1),
            torch.arange(10)[None].expand(3, -1) < 6,
        )
        assert torch.allclose(one, right(audio=wide, audio_mask=mask)["audio"][:1], atol=1e-5)
    refuses("vavl2023", model)
    state["acoustic"] = {k: v / 2 if k.endswith(".pe") else v for k, v in state["acoustic"].items()}
    torch.save(state["acoustic"], tmp_path / VAVL_FILES["audio"])
    (tmp_path / "MLP_av_head.pt").unlink()  # nothing passes through it
    halved = load("vavl2023", tmp_path)
    with torch.no_grad():
        assert torch.allclose(
            halved(audio=a)["audio"],
            plain_head(plain_vavl(a, state, "acoustic", "a"), state["MLP_a"]),
            atol=1e-5,
        )
    with pytest.raises(AvkitError, match="17 are asked for"), torch.no_grad():
        halved(audio=Z(17, 1, 1024))
    (tmp_path / VAVL_FILES["shared"]).unlink()
    with pytest.raises(AvkitError, match="lacks final_shared_head.pt"):
        load("vavl2023", tmp_path)


def zeros(shapes):
    return {
        k: torch.zeros((), dtype=torch.int64 if k.endswith("num_batches_tracked") else None).expand(
            s
        )
        for k, s in shapes.items()
    }


def spoilt(state, **changes):
    "Other tensors in it; without the names that begin with a name given as None"
    gone = tuple(k for k, v in changes.items() if v is None)
    return {k: v for k, v in state.items() if not gone or not k.startswith(gone)} | {
        k: v for k, v in changes.items() if v is not None
    }


VAVL_FAULTS = [
    (
        "1 weight has another shape: MLP_av_head.pt: projav1.weight",
        "MLP_av",
        {"projav1.weight": Z(5, 5)},
    ),
    ("1 weight is missing: MLP_av_head.pt: projav1.bias", "MLP_av", {"projav1.bias": None}),
    ("1 weight has no place in this model: final_visual_head.pt: x", "final_visual", {"x": Z(1)}),
    (
        "39 weights are missing: final_shared_head.pt: .*layers.1",
        "final_shared",
        {"x_shared.encoder.layers.1.": None},
    ),
    (
        r"1 weight has another shape: final_acoustic_head.pt: conv_1d_a.weight \(50, 768, 1\)",
        "final_acoustic",
        {"conv_1d_a.weight": Z(50, 768, 1)},
    ),
    (
        r"1 weight has another shape: MLP_v_head.pt: out_layer.bias \(4,\)",
        "MLP_v",
        {"out_layer.bias": Z(4)},
    ),
    (
        "4 weights are missing: .*conv_subsample",
        "final_shared",
        {"x_shared.encoder.conv_sub": None},
    ),
    (
        "final_visual_head.pt has no table of positions",
        "final_visual",
        {
            f"x_visual.encoder.layers.{i}.sequential.1.module.positional_encoding.pe": None
            for i in range(3)
        },
    ),
    ("MLP_a_head.pt: 1 weight is no tensor: out_layer.bias", "MLP_a", {"out_layer.bias": "x"}),
]


def test_vavl_faults(shared_data, tmp_path, monkeypatch):
    "The error names the file"
    layout = json.loads((shared_data / "released_layouts/vavl2023-as_released.json").read_text())
    sizes = {
        f.removesuffix("_head.pt"): {
            k: () if v == "scalar" else tuple(map(int, v.split("x"))) for k, v in s.items()
        }
        for f, s in layout.items()
        if f.endswith(".pt")
    }
    files = {f: zeros(s) for f, s in sizes.items()}
    for f in files:
        (tmp_path / f"{f}_head.pt").touch()
    monkeypatch.setattr(
        "avkit.models.released.read_file", lambda path: held[path.name.removesuffix("_head.pt")]
    )
    for match, f, changes in VAVL_FAULTS:
        held = files | {f: spoilt(files[f], **changes)}
        with pytest.raises(AvkitError, match=match), torch.device("meta"):
            load("vavl2023", tmp_path)
    held = files
    with pytest.raises(AvkitError, match="num_heads=4 was given, .* have 8 heads"):
        load("vavl2023", tmp_path, num_heads=4)
    with pytest.raises(AvkitError, match="no sinusoids"):
        load("vavl2023", tmp_path, mode="as_described")


EMOTIW_FAULTS = [
    *(
        (
            rf"1 weight has another shape: cross.in_proj_weight \({n}, 1024\) "
            r"where this model has \(3072, 1024\)",
            {"cross.in_proj_weight": Z(n, 1024)},
        )
        for n in (3071, 2048, 4096, 1024)
    ),
    (r"1 weight has another shape: cross.in_proj_bias \(2999,\)", {"cross.in_proj_bias": Z(2999)}),
    (r"1 weight has another shape: head.bias \(3, 1\)", {"head.bias": Z(3, 1)}),
    ("head.weight reads 6144 numbers, .* reads 3072 .* or 15360", {"head.weight": Z(3, 6144)}),
    ("4 weights are missing: cross.in_proj_bias", {"cross.": None}),
    (
        r"1 weight has another shape: audio_feat.encoder.ff.net.0.weight \(9, 1024\)",
        {"audio_feat.encoder.ff.net.0.weight": Z(9, 1024)},
    ),
    ("12 weights are missing: video_backbone.vit.blocks.0", {"video_backbone.vit.blocks.": None}),
    ("1 weight is no tensor: head.bias .str", {"head.bias": "x"}),
]


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta")
def test_emotiw_faults(shared_data, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    state = zeros(shapes(shared_data, "emotiw2023-fusion_avg_5_tinyvit", "model_state_dict"))
    monkeypatch.setattr("avkit.models.released.read_file", lambda path: dict(model_state_dict=held))
    for match, changes in EMOTIW_FAULTS:
        held = spoilt(state, **changes)
        with pytest.raises(AvkitError, match=match), torch.device("meta"):
            load("emotiw2023", "c.pt")
    held = spoilt(state, **{"video_backbone.": None})
    for match, hints in (
        ("vit_heads=2 was given, and c.pt has no ViT", dict(vit_heads=2)),
        ("num_heads and its other name say two numbers", dict(num_heads=4, num_heads_audio=2)),
    ):
        with pytest.raises(AvkitError, match=match):
            load("emotiw2023", "c.pt", **hints)
    with torch.device("meta"):
        model = load("emotiw2023", "c.pt", num_heads_audio=4, num_heads_crossatt=2).model
    assert (model.audio.block.attn.num_heads, model.fusion.attn.heads) == (4, 2)


def test_places_wrap_as_released():
    "Position scores of row i, column j belong to the place that the released shift leaves there"
    m, x = RelativeAttention(16, 2, wrap=True).eval(), torch.randn(2, 5, 16)
    want = torch.zeros_like(x)
    pe = F.linear(sinusoids(torch.arange(5), 16), m.position.weight)
    with torch.no_grad():
        for b in range(2):
            q, k, v = (p(x[b]) for p in (m.query, m.key, m.value))
            heads = []
            for h in range(2):
                s = slice(8 * h, 8 * h + 8)
                raw = (q[:, s] + m.v_bias[h]) @ pe[:, s].T
                flat = torch.cat(
                    [torch.zeros(5, 1), raw], 1
                ).flatten()  # (5,6), read as (6,5) without its first row
                score = ((q[:, s] + m.u_bias[h]) @ k[:, s].T + flat[5:].view(5, 5)) / 4
                heads.append(score.softmax(-1) @ v[:, s])
            want[b] = m.out(torch.cat(heads, -1))
        assert torch.allclose(m(x, yes(x)), want, atol=1e-5)


def jca_file(shared_data, path, **more):
    state = random_state(shapes(shared_data, "jca2023-cam_256", "net"))
    torch.save(dict(net=state, best_Val_acc=np.float64(0.5), **more), path)
    return state


class Bad:
    "Would write a file, if it were executed"

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Shell:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("bad", [Bad, Shell])
def test_a_file_executes_nothing(shared_data, tmp_path, bad, old):
    "Neither beside the weights, nor among them, nor in their place"
    x, ran = bad(tmp_path / "ran"), tmp_path / "ran"
    state = jca_file(shared_data, tmp_path / "c.pt")
    for content in (dict(net=state, config=x), dict(net=state | {"W_a.weight": x}), dict(net=x), x):
        torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not old)
        try:
            load("jca2023", tmp_path / "c.pt")
        except AvkitError as e:
            assert "config" not in content if isinstance(content, dict) and bad is Bad else True, e
        assert not ran.exists()


def test_what_is_wrong_is_told_apart(shared_data, tmp_path):
    p = tmp_path / "c.pt"
    state = jca_file(shared_data, p)

    def says(match, content=None):
        if content is not None:
            torch.save(content, p)
        with pytest.raises(AvkitError, match=match):
            load("jca2023", p)

    whole = p.read_bytes()
    p.write_bytes(whole[: len(whole) // 2])
    says("cut short")
    middle = len(whole) // 2
    p.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    says("damaged: .* has another checksum")
    p.write_bytes(b"")
    says("is empty")
    p.write_bytes(b"<!doctype html>")
    says("is a text, a web page")
    p.write_bytes(pickle.dumps(dict(net={})))
    says("is a plain pickle")
    save_file({k: v.clone() for k, v in state.items()}, p)
    says("is safetensors: read it with")
    torch.save(dict(net=state), p, pickle_protocol=4)
    says("pickle protocol 4 or 5")
    says("extends dict or list", dict(net=state, config=defaultdict(list, a=[1])))
    says("a state dict under 'net' is expected, it has weights", dict(weights={}))
    says("it has nothing", dict(net={}))
    says("there is a value of type int", dict(net=5))
    says("it has 1", dict(net={1: torch.zeros(1)}))
    says("it is a value of type list", [1])
    says("it is a whole object, of which nothing is read", torch.nn.Linear(1, 1))
    says(
        "2 weights are missing: W_a.weight, W_v.weight",
        dict(net={k: v for k, v in state.items() if k not in ("W_a.weight", "W_v.weight")}),
    )
    says(
        r"W_ha.weight \(8, 31\) where this model has \(8, 32\)",
        dict(net=state | {"W_ha.weight": torch.zeros(8, 31)}),
    )
    says(
        r"1 weight has another shape: W_a.weight \(16, 9\) where",
        dict(net=state | {"W_a.weight": torch.zeros(16, 9)}),
    )
    says(
        r"1 weight has numbers of another type: W_a.weight \(torch.int64\)",
        dict(net=state | {"W_a.weight": torch.zeros(32, 8, dtype=torch.int64)}),
    )
    says(
        "1 weight holds NaN.*: W_a.weight",
        dict(net=state | {"W_a.weight": torch.full((32, 8), math.nan)}),
    )
    says("no place in this model: extra.weight", dict(net=state | {"extra.weight": torch.zeros(1)}))
    says("holds another model", dict(net=dict(a=torch.zeros(1))))
    says(
        r"1 weight is no tensor: W_a.weight \(an object",
        dict(net=state | {"W_a.weight": pathlib.PosixPath("x")}),
    )
    says("holds code, which is not run", dict(net=state, config=Shell(p)))
    p.unlink()
    says("does not exist")
    with pytest.raises(AvkitError, match="The path of a checkpoint is expected, and None"):
        load("jca2023", None)


MARKS = dict(
    chumachenko2022=("state_dict", "module.audio_model.conv1d_0.0.weight"),
    jca2023=("net", "W_ha.weight"),
    emotiw2023=("model_state_dict", "head.weight"),
    ntua2021=("state_dict", "face_model.0.weight"),
)


@pytest.mark.parametrize("recipe", MARKS)
def test_another_papers_file(tmp_path, recipe):
    key, mark = MARKS[recipe]
    torch.save({key: {mark: torch.zeros(1)}}, tmp_path / "c.pt")
    for other in MARKS.keys() - {recipe}:
        with pytest.raises(AvkitError, match=f"is a checkpoint of {recipe}, not of {other}"):
            load(other, tmp_path / "c.pt")
    with pytest.raises(AvkitError, match="is not a folder"):
        load("vavl2023", tmp_path / "c.pt")
    with pytest.raises(AvkitError, match="is a folder"):
        load(recipe, tmp_path)


@pytest.mark.parametrize(
    "recipe,case",
    [("jca2023", "cam_256"), ("chumachenko2022", "ia_h1"), ("emotiw2023", "fusion_avg_5")],
)
def test_streams_that_cannot_be_meant(shared_data, tmp_path, recipe, case):
    key = MARKS[recipe][0]
    state = {
        k: v
        for k, v in shapes(shared_data, f"{recipe}-{case}", key).items()
        if not k.startswith("video_backbone.")
    }
    torch.save({key: random_state(state)}, tmp_path / "c.pt")
    refuses(recipe, load(recipe, tmp_path / "c.pt"))


def test_heads_are_told(shared_data, tmp_path):
    "By a hint, else by the options that the trainer wrote beside its checkpoint"
    state, p = (
        random_state(shapes(shared_data, "chumachenko2022-ia_h1", "state_dict")),
        tmp_path / "c.pth",
    )
    torch.save(dict(state_dict=state), p)
    for bad in (0, -1, 2.0, "4", True):
        with pytest.raises(AvkitError, match="num_heads=.* a whole number, 1 or more"):
            load("chumachenko2022", p, num_heads=bad)
    heads = lambda **hints: load("chumachenko2022", p, **hints).model.fusion.av1.heads
    (tmp_path / "opts1.5.json").write_text(json.dumps(dict(num_heads=4, fusion="ia")))
    assert heads() == 4 and heads(num_heads=2) == 2
    (tmp_path / "opts2.5.json").write_text(json.dumps(dict(num_heads=1)))
    with pytest.raises(AvkitError, match="several num_heads, 1, 4"):
        heads()
    with pytest.raises(AvkitError, match="Unknown hint for jca2023 'heads'"):
        load("jca2023", p, heads=1)
    with pytest.raises(AvkitError, match="not of jca2023"):
        load("jca2023", p, num_heads=1)  # jca2023 has no heads to be told of
    torch.save(dict(state_dict={"module.stage2.0.branch1.0.weight": torch.zeros(1)}), p)
    with pytest.raises(AvkitError, match="EfficientFace's weights alone"):
        load("chumachenko2022", p)
    torch.save(
        dict(
            model_state_dict=random_state(
                shapes(shared_data, "emotiw2023-audio_avg", "model_state_dict")
            )
        ),
        p,
    )
    with pytest.raises(AvkitError, match="num_heads=3 does not divide the width 1024"):
        load("emotiw2023", p, num_heads=3)


def test_segments_have_a_least_size(shared_data, tmp_path):
    state = random_state(shapes(shared_data, "emotiw2023-audio_avg", "model_state_dict"))
    torch.save(dict(model_state_dict=state), tmp_path / "c.pt")
    model = load("emotiw2023", tmp_path / "c.pt")
    with pytest.raises(AvkitError, match="at least 106 x 106"), torch.no_grad():
        model(audio=torch.zeros(1, 5, 1, 100, 120))
    with pytest.raises(AvkitError, match="needs the stream"):
        model(video=torch.zeros(1, 5, 1024))


def test_old_files_with_objects(shared_data, tmp_path):
    "Before torch 1.6, with a configuration object, a path and a NumPy number"
    state = jca_file(shared_data, tmp_path / "c.pt")
    step = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)]), 2)
    torch.save(
        dict(
            net=state,
            config=ConfigParser(),
            best=np.float64(0.5),
            where=pathlib.Path("x"),
            scheduler=step,
        ),
        tmp_path / "c.pt",
        _use_new_zipfile_serialization=False,
    )
    assert torch.equal(
        load("jca2023", tmp_path / "c.pt").model.fusion.W_a.weight, state["W_a.weight"]
    )
    assert repr(read_file(tmp_path / "c.pt")["config"]) == "(not read)"
