"""Every fusion with every pair of encoders keeps the invariants of papers on audio-visual emotion recognition."""
import json, os
from itertools import product
from pathlib import Path
import pytest, torch
from avkit.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from avkit.models.fusion import FUSIONS
from avkit.models.model import build_model, count_parameters
from avkit.training.configure import configure

# steps and features or pictures, and options that keep it small
AUDIO = dict(audio_cnn=(20, 10), logmel_cnn=(20, 64), vector=(1, 7), features=(6, 7), conformer=(6, 7), segment_cnn=(3, 1, 32, 32), mel_pictures=(4, 32, 32))
VIDEO = dict(efficientface=(2, 3, 224, 224), light=(5, 3, 56, 56), vector=(3, 9), features=(4, 9), groups=(8, 9), conformer=(4, 9), pictures=(3, 6, 32, 32))
SMALL = dict(features=dict(dim=8), groups=dict(dim=8), conformer=dict(dim=16, heads=2, layers=1), segment_cnn=dict(small=True),
             mel_pictures=dict(trunk="light", rnn=4), pictures=dict(trunk="light", rnn=4))
PAIRS = [("audio_cnn", "light"), ("logmel_cnn", "vector"), ("vector", "vector"), ("segment_cnn", "groups"), ("mel_pictures", "pictures"), ("conformer", "conformer"),
         ("features", "features")]
STEPS = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
MATRIX = [*product(FUSIONS, PAIRS), ("ia", ("audio_cnn", "efficientface"))]


def inputs(audio, video, n=3):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, *AUDIO[audio], generator=g), torch.rand(n, *VIDEO[video], generator=g)


def model(audio, video, fusion, heads=2, **kw):
    torch.manual_seed(0)
    s = dict(modality="av", n_out=8, fusion=fusion, heads=heads, audio_encoder=audio, video_encoder=video, video_views=("face", "body"), encoder_options=SMALL,
             fusion_options=dict(vavl=dict(dim=16, layers=1), jca=dict(dim=16), rnn=dict(hidden=8), gmu=dict(dim=16), mbt=dict(dim=16)))
    width = {f"{k}_dim": x[1] for k, x in (("audio", AUDIO[audio]), ("video", VIDEO[video])) if len(x) == 2}
    return build_model(s | width | kw).eval()


def wider(x, extra):
    "Padded by garbage, with the mask that says so"
    mask = torch.ones(len(x), x.shape[1] + extra, dtype=torch.bool)
    mask[:, x.shape[1]:] = False
    return torch.cat([x, torch.full_like(x[:, :1], float("nan")).expand(-1, extra, *x.shape[2:])], 1), mask


def test_the_table_is_complete():
    assert set(AUDIO) == set(AUDIO_ENCODERS) and set(VIDEO) == set(VIDEO_ENCODERS)
    assert {a for _, (a, _) in MATRIX} == set(AUDIO) and {v for _, (_, v) in MATRIX} == set(VIDEO)


def check(make, a, v, steps=None):  # () -> a model; (3,S) bool: a label per step
    m = make()
    call = lambda a, v, am=None, vm=None, s=steps: m(a, v, am, vm, s)
    real = (lambda z: z) if steps is None else lambda z: z[:, :steps.shape[1]][steps[:len(z)]]
    out = call(a, v)
    assert out.shape[:-1] == ((3,) if steps is None else (3, steps.shape[1]))
    assert torch.equal(out, make()(a, v, None, None, steps)), "the same seed gives the same model"
    mate = call(a[1:2], v[1:2], s=None if steps is None else steps[1:2])
    assert torch.allclose(mate[0], out[1], atol=1e-5), "batch mates"
    (wa, am), (wv, vm) = wider(a, 6), wider(v, 2)
    wide = call(wa, wv, am, vm, None if steps is None else torch.nn.functional.pad(steps, (0, 3)))
    assert torch.allclose(real(wide), real(out), atol=1e-5), "padding"
    no_a, no_v = torch.zeros(a.shape[:2], dtype=torch.bool), torch.zeros(v.shape[:2], dtype=torch.bool)
    nan = float("nan")
    for one, other, absent in ((call(a, v, no_a), call(a * nan, v, no_a), call(None, v)), (call(a, v, None, no_v), call(a, v * nan, None, no_v), call(a, None))):
        assert torch.equal(one, other) and one.isfinite().all() and not torch.allclose(one, out), "a missing modality"
        assert torch.allclose(real(one), real(absent), atol=1e-5), "a stream that is not given counts as missing"


@pytest.mark.parametrize("fusion,pair", MATRIX, ids=str)
@torch.no_grad()
def test_invariants(fusion, pair): check(lambda: model(*pair, fusion), *inputs(*pair))


@pytest.mark.parametrize("fusion,pair", MATRIX[:-1], ids=str)
@torch.no_grad()
def test_invariants_per_step(fusion, pair): check(lambda: model(*pair, fusion), *inputs(*pair), STEPS)


# what each recipe's small size reads: steps and sizes, and whether every step has a label
RECIPE_INPUTS = dict(chumachenko2022=((20, 10), (4, 3, 40, 40), False), emotiw2023=((5, 1, 40, 40), (5, 3, 48, 48), False), jca2023=((8, 64, 30), (8, 3, 40, 40), True),
                     vavl2023=((20, 64), (6, 3, 40, 40), False), ntua2021=((4, 32, 30), (4, 9, 40, 40), True))


@pytest.mark.parametrize("recipe", RECIPE_INPUTS)
@torch.no_grad()
def test_invariants_of_the_recipes(recipe):
    audio, video, per_step = RECIPE_INPUTS[recipe]
    cfg = configure(recipe=recipe, size="small")
    def make():
        torch.manual_seed(0)
        return build_model(cfg.recipe | dict(modality="av", n_out=3, audio_dim=audio[1] if len(audio) == 2 else None)).eval()
    g = torch.Generator().manual_seed(0)
    check(make, torch.randn(3, *audio, generator=g), torch.rand(3, *video, generator=g), STEPS if per_step else None)


@pytest.mark.parametrize("fusion,pair", MATRIX[:-1], ids=str)
def test_gradients_reach_what_is_used(fusion, pair):
    m, (a, v) = model(*pair, fusion, reconstruction=1.), inputs(*pair)
    m.train()
    fused, aux = m(a, v, return_aux=True)
    (fused.square().sum() + sum(z.square().sum() for z in aux.values())).backward()
    unused = {n for n, p in m.named_parameters() if p.grad is None}
    assert all(fusion == "ia" and ".proj." in n for n in unused), unused
    assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_branch_learns_nothing_from_a_clip_without_it(fusion):
    "Not even how often each class occurs"
    m, (a, v) = model("vector", "vector", fusion).train(), inputs("vector", "vector")
    here = torch.tensor([[True], [False], [True]])
    own = m(a, v, audio_mask=here, return_aux=True)[1]["audio"]
    torch.nn.functional.cross_entropy(own[1:2], torch.tensor([3])).backward()
    assert all(p.grad is None or not p.grad.any() for p in m.audio.parameters())


def test_one_step_of_one_clip_trains():
    "The last batch may be one clip, and one's own features one vector a clip"
    for audio in ("vector", "conformer"):
        m, (a, v) = model(audio, "vector", "vavl").train(), inputs(audio, "vector")
        m(a[:1, :1], v[:1, :1]).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads(heads):
    for f in ("ca", "ia", "it", "lt"):
        assert model("vector", "vector", f, heads)(*inputs("vector", "vector")).shape == (3, 8)


def test_released_layouts():
    "Every weight of the released checkpoints has its place here, with the same shape"
    folder = Path(os.environ.get("AVKIT_DATA") or Path(__file__).parents[2] / "shared/data") / "released_layouts"
    if not folder.is_dir(): pytest.skip("the released files' layouts are not at hand")
    for f in ("ia", "it", "lt"):
        theirs = {k.removeprefix("module."): v for k, v in json.loads((folder / f"chumachenko2022-{f}_h1.json").read_text())["state_dict"].items()}
        mine = {k: "x".join(map(str, v.shape)) or "scalar" for k, v in model("audio_cnn", "efficientface", f, 1).state_dict().items()}
        name = lambda k: k.replace("audio.", "audio_model.", 1).replace("video.trunk.", "visual_model.").replace("video.", "visual_model.", 1).replace("fusion.", "")
        assert {name(k): v for k, v in mine.items()} == theirs
