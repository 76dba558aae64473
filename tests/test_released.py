"Files as the authors' code writes them: every layout loads, outputs are those of a plain computation, wrong files are told apart."
import json
import math
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avkit.core import AvkitError
from avkit.released import EmotiW, NTUA, VAVL, VAVL_FILES, load


def shapes(shared_data, name, key):
    "{name: shape} of a released layout"
    d = json.loads((shared_data / f"released_layouts/{name}.json").read_text())
    d = d[key] if key else d
    return {k: () if v == "scalar" else tuple(int(n) for n in v.split("x")) for k, v in d.items()}


def random_state(shapes, seed=0):
    "Random weights of these shapes; variances positive"
    g = torch.Generator().manual_seed(seed)
    out = {}
    for k, s in shapes.items():
        x = torch.randn(s, generator=g) * (1 / math.sqrt(s[-1]) if len(s) > 1 else .1)
        out[k] = torch.zeros((), dtype=torch.int64) if k.endswith("num_batches_tracked") else x.abs() + .5 if k.endswith("running_var") else x
    return out


def test_the_released_example(shared_data):
    "jca2023: the released module's own outputs, with a NumPy scalar in the file"
    from safetensors.torch import load_file
    d = shared_data / "released_example/jca2023-cam_256"
    model, x, y = load("jca2023", d / "checkpoint.pt"), load_file(d / "inputs.safetensors"), load_file(d / "outputs.safetensors")
    assert not model.training and sum(p.numel() for p in model.parameters()) == 181_889
    with torch.no_grad(): out, (joint, ca, cv) = model(audio=x["audio"], video=x["video"]), model.joint(x["audio"], x["video"])
    for got, name in ((out, "out"), (joint, "joint"), (ca, "corr_a"), (cv, "corr_v")): assert (got - y[name]).abs().max() < 1e-5, name


def test_jca_is_the_authors_loop(tmp_path):
    "Batched, against one clip at a time in the papers' own formulas"
    from avkit.released import JCA
    m = JCA()
    state = random_state({k: tuple(v.shape) for k, v in m.state_dict().items()})
    torch.save(dict(net=state, best_Val_acc=np.float64(.5), best_Val_acc_epoch=3), tmp_path / "c.pt")
    model, a, v = load("jca2023", tmp_path / "c.pt"), torch.randn(3, 8, 512), torch.randn(3, 8, 512)
    for i in range(3):
        X = [F.linear(x[i], state[f"encoder{k}.weight"], state[f"encoder{k}.bias"]).T for k, x in ((1, a), (2, v))]  # (128,8)
        J, att = torch.cat(X), []
        for x, n in zip(X, "av"):
            c = torch.tanh(x @ (state[f"affine_{n}.weight"] @ J.T) / 16)
            h = F.relu(x @ state[f"W_{n}.weight"].T + c @ state[f"W_c{n}.weight"].T)
            att.append((h @ state[f"W_h{n}.weight"].T + x).T)
        z = F.linear(torch.cat(att, 1), state["regressor.0.weight"], state["regressor.0.bias"])
        z = F.linear(z, state["regressor.2.weight"], state["regressor.2.bias"])
        with torch.no_grad(): assert torch.allclose(model(audio=a[i:i + 1], video=v[i:i + 1])[0], z, atol=1e-5)


def test_jca_640_says_that_it_cannot_run(shared_data, tmp_path):
    torch.save(dict(net=random_state(shapes(shared_data, "jca2023-cam_640", "net"))), tmp_path / "c.pt")
    model = load("jca2023", tmp_path / "c.pt")
    with pytest.raises(AvkitError, match="640 inputs where 256 arrive"): model(audio=torch.zeros(1, 8, 512), video=torch.zeros(1, 8, 512))


@pytest.mark.parametrize("case,fusion", [("ia_h1", "ia"), ("ia_h1_cpu", "ia"), ("it_h1", "it"), ("lt_h1", "lt")])
def test_chumachenko(shared_data, tmp_path, case, fusion):
    state = random_state(shapes(shared_data, f"chumachenko2022-{case}", "state_dict"))
    torch.save(dict(epoch=3, arch="multimodalcnn", state_dict=OrderedDict(state), optimizer={}, best_prec1=80.), tmp_path / "c.pth")
    heads = {h: load("chumachenko2022", tmp_path / "c.pth", num_heads=h) for h in (1, 4)}
    x = dict(audio=torch.randn(2, 10, 156), video=torch.rand(2, 15, 3, 224, 224))
    with torch.no_grad(): out = {h: m(**x) for h, m in heads.items()}
    assert out[1].shape == (2, 8) and (out[1] - out[4]).abs().max() > 1e-6
    key = next(k for k in state if k.endswith("audio_model.conv1d_0.0.weight"))
    assert torch.equal(heads[1].model.audio.conv1d_0[0].weight, state[key])
    described = load("chumachenko2022", tmp_path / "c.pth", mode="as_described")
    with torch.no_grad(): gap = (described(**x) - out[1]).abs().max()
    assert (gap > 1e-6) == (fusion != "ia")  # the missing residual


def plain_block(x, s):
    "emotiw2023's transformer block on one clip (T,1024)"
    n, d = x.shape
    pe = torch.tensor([[math.sin(p / 10000 ** (2 * (i // 2) / d)) if i % 2 == 0 else math.cos(p / 10000 ** (2 * (i // 2) / d)) for i in range(d)] for p in range(n)])
    x = x + pe
    norm = lambda z, k: F.layer_norm(z, (d,), s[f"encoder.{k}.weight"], s[f"encoder.{k}.bias"], 1e-6)
    q, k, v = F.linear(norm(x, "norm1"), s["encoder.attn.in_proj_weight"], s["encoder.attn.in_proj_bias"]).chunk(3, -1)
    x = x + F.linear((q @ k.T / math.sqrt(d)).softmax(-1) @ v, s["encoder.attn.out_proj.weight"], s["encoder.attn.out_proj.bias"])
    h = F.relu(F.linear(norm(x, "norm2"), s["encoder.ff.net.0.weight"], s["encoder.ff.net.0.bias"]))
    return x + F.linear(h, s["encoder.ff.net.3.weight"], s["encoder.ff.net.3.bias"])


def plain_cnn(x, s):
    for i in range(1, 5):
        for j in (0, 2, 4): x = F.relu(F.conv2d(x, s[f"backbone.cnn{i}.{j}.weight"], s[f"backbone.cnn{i}.{j}.bias"]))
        x = F.max_pool2d(x, 2)
    return F.adaptive_avg_pool2d(x, (1, 2)).flatten(1)


@pytest.mark.parametrize("head", ["avg", "flatten"])
def test_emotiw_audio(shared_data, tmp_path, head):
    state = random_state(shapes(shared_data, f"emotiw2023-audio_{head}", "model_state_dict"))
    torch.save(dict(epoch=1, best_metric=.7, model_state_dict=state, optimizer_state_dict={}), tmp_path / "c.pt")
    model, x = load("emotiw2023", tmp_path / "c.pt"), torch.randn(1, 5, 1, 110, 120)
    s = {k.removeprefix("feat."): v for k, v in state.items()}
    z = plain_block(plain_cnn(x[0], s), s)
    want = F.linear(z.flatten() if head == "flatten" else z.mean(0), s["head.weight"], s["head.bias"])
    with torch.no_grad(): assert torch.allclose(model(audio=x)[0], want, atol=1e-4)


@pytest.mark.parametrize("head", ["avg_5", "flatten_5"])
def test_emotiw_fusion(shared_data, tmp_path, head):
    full = shapes(shared_data, f"emotiw2023-fusion_{head}", "model_state_dict")
    state = random_state({k: v for k, v in full.items() if not k.startswith("video_backbone.")})
    torch.save(dict(epoch=1, best_metric=.7, model_state_dict=state, optimizer_state_dict={}), tmp_path / "c.pt")
    model, a, v = load("emotiw2023", tmp_path / "c.pt"), torch.randn(1, 5, 1, 106, 106), torch.randn(1, 5, 1024)
    s = {k.removeprefix("audio_feat."): t for k, t in state.items()}
    x = plain_block(plain_cnn(a[0], s), s)
    W, b = s["cross.in_proj_weight"].split(1024), s["cross.in_proj_bias"].split(1024)
    q, k, w = F.linear(x, W[0], b[0]), F.linear(v[0], W[1], b[1]), F.linear(v[0], W[2], b[2])
    y = F.linear((q @ k.T / 32).softmax(-1) @ w, s["cross.out_proj.weight"], s["cross.out_proj.bias"])
    z = torch.cat([x, y, v[0]], -1)
    want = F.linear(z.flatten() if head.startswith("flatten") else z.mean(0), s["head.weight"], s["head.bias"])
    with torch.no_grad():
        assert torch.allclose(model(audio=a, video=v)[0], want, atol=1e-4)
        assert torch.allclose(model(audio=a, video=v.repeat_interleave(15, 1))[0], want, atol=1e-4)  # 75 pictures in groups of 15
    with pytest.raises(AvkitError, match="holds no ViT"): model(audio=a, video=torch.zeros(1, 5, 3, 28, 28))


def test_emotiw_with_a_vit(shared_data, tmp_path):
    pytest.importorskip("timm")
    state = random_state(shapes(shared_data, "emotiw2023-fusion_avg_5_tinyvit", "model_state_dict"))
    torch.save(dict(epoch=1, best_metric=.7, model_state_dict=state, optimizer_state_dict={}), tmp_path / "c.pt")
    model = load("emotiw2023", tmp_path / "c.pt")
    with torch.no_grad(): assert model(audio=torch.randn(1, 5, 1, 106, 106), video=torch.randn(1, 5, 3, 28, 28)).shape == (1, 3)


class ConfigParser:
    "What the ntua2021 trainer leaves in its files"
    def __init__(self): self.folder, self.ran = pathlib.PosixPath("/somewhere"), False
    def __setstate__(self, state): raise RuntimeError("executed")


@pytest.mark.parametrize("case", ["face_expr", "face_va", "aural_expr", "face_body_context_expr"])
def test_ntua(shared_data, tmp_path, case):
    state = random_state(shapes(shared_data, f"ntua2021-{case}", "state_dict"))
    torch.save(dict(arch="resnet50_rnn", epoch=2, state_dict=OrderedDict(state), optimizer={}, monitor_best=np.float64(.4), config=ConfigParser()), tmp_path / "c.pth")
    model = load("ntua2021", tmp_path / "c.pth")  # the config is not executed
    streams = dict(audio=["audio"], face=["face"])[("audio" if case.startswith("aural") else "face")] if "body" not in case else ["face", "body", "context"]
    x = {k: torch.randn(1, 4, 3, 112, 112) for k in streams}
    with torch.no_grad(): out = model(**x)
    assert out.shape == (1, 4, 2 if case.endswith("va") else 7)
    if case == "face_expr":
        lstm = torch.nn.LSTM(512, 512, batch_first=True, bidirectional=True)
        lstm.load_state_dict({k.removeprefix("rnn."): v for k, v in state.items() if k.startswith("rnn.")})
        with torch.no_grad():
            f = model.face_model(x["face"][0]).flatten(1)[None]
            assert torch.allclose(out, F.linear(lstm(f)[0], state["fc.weight"], state["fc.bias"]), atol=1e-5)
    if "body" in case:
        with pytest.raises(AvkitError, match="context not given"): model(face=x["face"], body=x["body"])


def test_ntua_streams_stand_side_by_side():
    m = NTUA(dict(face="resnet18", body="resnet18", context="resnet18"), 2, hidden=8).eval()
    x = {k: torch.randn(1, 2, 3, 64, 64) for k in m.streams}
    with torch.no_grad():
        y = torch.cat([getattr(m, f"{k}_model")(x[k][0]).flatten(1) for k in ("face", "body", "context")], 1)
        assert torch.allclose(m(**x)[0], m.fc(m.rnn(y[None])[0])[0], atol=1e-5)


def test_vavl(shared_data, tmp_path):
    layout = json.loads((shared_data / "released_layouts/vavl2023-as_released.json").read_text())
    states = {f: random_state({k: () if s == "scalar" else tuple(map(int, s.split("x"))) for k, s in layout[f].items()}, i) for i, f in enumerate(layout) if f.endswith(".pt")}
    for f, s in states.items(): torch.save(s, tmp_path / f)
    model, a, v = load("vavl2023", tmp_path), torch.randn(3, 6, 1024), torch.randn(3, 4, 1408)
    with torch.no_grad(): out = model(audio=a, video=v)
    assert {k: tuple(t.shape) for k, t in out.items()} == dict(audio=(3, 6), video=(3, 6), av=(3, 6), audio_reconstruction=(3, 1024), video_reconstruction=(3, 1408))
    with torch.no_grad():
        assert (model(audio=a[:1])["audio"] - out["audio"][:1]).abs().max() > 1e-4  # across the batch, as released
        right = load("vavl2023", tmp_path, mode="as_described")
        assert torch.allclose(right(audio=a[:1])["audio"], right(audio=a)["audio"][:1], atol=1e-4)
        assert torch.allclose(right(audio=a)["audio"], right(audio=a, video=v)["audio"], atol=1e-5)  # one model for one stream or both
    (tmp_path / VAVL_FILES["shared"]).unlink()
    with pytest.raises(AvkitError, match="lacks final_shared_head.pt"): load("vavl2023", tmp_path)


def test_relative_attention_is_a_plain_loop():
    "Position scores of row i, column j belong to the distance as Transformer-XL's shift leaves it"
    from avkit.released import RelativeAttention, sinusoids
    m, x = RelativeAttention(16, 2).eval(), torch.randn(2, 5, 16)
    for p in (m.u_bias, m.v_bias): torch.nn.init.normal_(p)
    want = torch.zeros_like(x)
    pe = F.linear(sinusoids(5, 16), m.pos_proj.linear.weight)
    with torch.no_grad():
        for b in range(2):
            q, k, v = (p.linear(x[b]) for p in (m.query_proj, m.key_proj, m.value_proj))
            heads = []
            for h in range(2):
                s = slice(8 * h, 8 * h + 8)
                raw = (q[:, s] + m.v_bias[h]) @ pe[:, s].T
                flat = torch.cat([torch.zeros(5, 1), raw], 1).flatten()  # (5,6), read as (6,5) without its first row
                score = ((q[:, s] + m.u_bias[h]) @ k[:, s].T + flat[5:].view(5, 5)) / 4
                heads.append(score.softmax(-1) @ v[:, s])
            want[b] = m.out_proj.linear(torch.cat(heads, -1))
        assert torch.allclose(m(x), want, atol=1e-5)


def test_padding_changes_nothing_as_described():
    m, a = VAVL(4).eval(), torch.randn(2, 5, 1024)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, 5:] = False
    with torch.no_grad(): assert torch.allclose(m(audio=a)["audio"], m(audio=torch.cat([a, torch.randn(2, 4, 1024)], 1), audio_mask=mask)["audio"], atol=1e-5)


def test_a_file_executes_nothing(tmp_path):
    class Bad:
        def __reduce__(self): return (open, (str(tmp_path / "ran"), "w"))
    from avkit.released import JCA
    torch.save(dict(net=JCA().state_dict(), extra=Bad()), tmp_path / "c.pt")
    try: load("jca2023", tmp_path / "c.pt")
    except AvkitError: pass
    assert not (tmp_path / "ran").exists()


def test_emotiw_segments_have_a_least_size():
    with pytest.raises(AvkitError, match="at least 106 x 106"), torch.no_grad(): EmotiW("audio", False)(audio=torch.zeros(1, 5, 1, 100, 120))


def test_distances_are_a_plain_loop():
    "As described: the score of row i and column j belongs to the distance i - j, whatever the length"
    from avkit.released import RelativeAttention, distances
    m, x = RelativeAttention(16, 1, released=False).eval(), torch.randn(1, 4, 16)
    torch.nn.init.normal_(m.v_bias)
    with torch.no_grad():
        q = m.query_proj.linear(x[0]) + m.v_bias[0]
        table = {d: m.pos_proj.linear(distances(9, 16))[8 - d] for d in range(-8, 9)}
        got = m.positions((m.split(m.query_proj.linear(x)) + m.v_bias).transpose(1, 2), 4, x)[0, 0]
        want = torch.stack([torch.stack([q[i] @ table[i - j] for j in range(4)]) for i in range(4)])
    assert torch.allclose(got, want, atol=1e-5)
