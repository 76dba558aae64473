"""Every fusion with every pair of encoders keeps the invariants of nbs/papers/README.md: once a
clip and once a label step, whatever the padding, the other clips or a missing modality."""

import json
import os
import re
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from avkit.core import AvkitError
from avkit.models import fusion as fusion_module
from avkit.models.conformer import ConformerLayer
from avkit.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS
from avkit.models.fusion import FUSIONS, Fusion
from avkit.models.model import build_model
from avkit.training.configure import configure

# steps and features or frames, and options that keep it small
AUDIO = dict(
    audio_cnn=(20, 10),
    logmel_cnn=(20, 64),
    vector=(1, 7),
    features=(6, 7),
    moments=(6, 7),
    conformer=(6, 7),
    segment_cnn=(3, 1, 32, 32),
    mel_pictures=(4, 32, 32),
)
VIDEO = dict(
    efficientface=(2, 3, 224, 224),
    light=(5, 3, 56, 56),
    vector=(3, 9),
    features=(4, 9),
    moments=(4, 9),
    groups=(8, 9),
    conformer=(4, 9),
    pictures=(3, 6, 32, 32),
)
SMALL = dict(
    features=dict(dim=8),
    groups=dict(dim=8),
    moments=dict(dim=8),
    conformer=dict(dim=16, heads=2, layers=1),
    segment_cnn=dict(small=True),
    mel_pictures=dict(trunk="light", rnn=4),
    pictures=dict(trunk="light", rnn=4),
)
SMALL_FUSIONS = dict(
    vavl=dict(dim=16, layers=1),
    jca=dict(dim=16),
    rnn=dict(hidden=8),
    gmu=dict(dim=16),
    mbt=dict(dim=16),
)
PAIRS = [
    ("audio_cnn", "light"),
    ("logmel_cnn", "vector"),
    ("vector", "vector"),
    ("segment_cnn", "groups"),
    ("mel_pictures", "pictures"),
    ("conformer", "conformer"),
    ("features", "features"),
    ("moments", "moments"),
]
SLOW = ("ia", ("audio_cnn", "efficientface"))
QUICK = [*product(FUSIONS, PAIRS)]
MATRIX = [*QUICK, SLOW]
STEPS = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])  # of three clips


def inputs(audio, video, n=3):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, *AUDIO[audio], generator=g), torch.rand(n, *VIDEO[video], generator=g)


def model(audio, video, fusion, heads=2, **settings):
    torch.manual_seed(0)
    s = dict(
        modality="av",
        n_out=8,
        fusion=fusion,
        heads=heads,
        video_views=("face", "body"),
        audio_encoder=audio,
        video_encoder=video,
        encoder_options=SMALL,
        fusion_options=SMALL_FUSIONS,
    )
    shapes = dict(audio=AUDIO[audio], video=VIDEO[video])
    widths = {f"{k}_dim": shape[1] for k, shape in shapes.items() if len(shape) == 2}
    return build_model(s | widths | settings).eval()


def wider(x, extra):
    "Padded by garbage, with the mask that says so"
    mask = torch.ones(len(x), x.shape[1] + extra, dtype=torch.bool)
    mask[:, x.shape[1] :] = False
    garbage = torch.full_like(x[:, :1], float("nan")).expand(-1, extra, *x.shape[2:])
    return torch.cat([x, garbage], 1), mask


def valid(z, steps):
    "What counts of (B,C), or of (B,S,C) with these label steps"
    return z if steps is None else z[:, : steps.shape[1]][steps[: len(z)]]


def check(make, a, v, steps=None):  # () -> a model; steps (3,S): a label per step
    m = make()
    out = m(a, v, step_mask=steps)
    assert out.shape[:-1] == ((3,) if steps is None else (3, steps.shape[1]))
    assert out.isfinite().all()
    assert torch.equal(out, make()(a, v, step_mask=steps)), "the same seed gives the same model"
    if steps is not None:
        assert out.std(1).max() > 1e-4, "steps differ"
    one = None if steps is None else steps[1:2]
    assert torch.allclose(m(a[1:2], v[1:2], step_mask=one)[0], out[1], atol=1e-5), "batch mates"
    check_padding(m, a, v, steps, out)
    check_missing(m, a, v, steps, out)


def check_padding(m, a, v, steps, out):
    (wa, am), (wv, vm) = wider(a, 6), wider(v, 2)
    wide = m(wa, wv, am, vm, None if steps is None else F.pad(steps, (0, 3)))
    assert torch.allclose(valid(wide, steps), valid(out, steps), atol=1e-5), "padding"


def check_missing(m, a, v, steps, out):
    no_a, no_v = (torch.zeros(x.shape[:2], dtype=torch.bool) for x in (a, v))
    call = partial(m, step_mask=steps)
    nan = float("nan")
    for masked, garbage, absent in (
        (call(a, v, no_a), call(a * nan, v, no_a), call(None, v)),
        (call(a, v, None, no_v), call(a, v * nan, None, no_v), call(a, None)),
    ):
        assert torch.equal(masked, garbage) and masked.isfinite().all(), "a missing modality"
        assert not torch.allclose(masked, out), "a missing modality"
        same = torch.allclose(valid(masked, steps), valid(absent, steps), atol=1e-5)
        assert same, "a stream that is not given counts as missing"


def test_the_table_is_complete():
    assert set(AUDIO) == set(AUDIO_ENCODERS) and set(VIDEO) == set(VIDEO_ENCODERS)
    assert {a for _, (a, _) in MATRIX} == set(AUDIO) and {v for _, (_, v) in MATRIX} == set(VIDEO)


@pytest.mark.parametrize("fusion,pair", MATRIX, ids=str)
@torch.no_grad()
def test_invariants(fusion, pair):
    check(lambda: model(*pair, fusion), *inputs(*pair))


@pytest.mark.parametrize("fusion,pair", QUICK, ids=str)
@torch.no_grad()
def test_invariants_per_step(fusion, pair):
    check(lambda: model(*pair, fusion), *inputs(*pair), STEPS)


# what each recipe's small size reads: steps and sizes, and whether every step has a label
RECIPE_INPUTS = dict(
    chumachenko2022=((20, 10), (4, 3, 40, 40), False),
    emotiw2023=((5, 1, 40, 40), (5, 3, 48, 48), False),
    jca2023=((8, 64, 30), (8, 3, 40, 40), True),
    vavl2023=((20, 64), (6, 3, 40, 40), False),
    ntua2021=((4, 32, 30), (4, 9, 40, 40), True),
)


@pytest.mark.parametrize("recipe", RECIPE_INPUTS)
@torch.no_grad()
def test_invariants_of_the_recipes(recipe):
    audio, video, per_step = RECIPE_INPUTS[recipe]
    width = audio[1] if len(audio) == 2 else None
    s = configure(recipe=recipe, size="small").recipe
    s = s | dict(modality="av", n_out=3, audio_dim=width)

    def make():
        torch.manual_seed(0)
        return build_model(s).eval()

    g = torch.Generator().manual_seed(0)
    a, v = torch.randn(3, *audio, generator=g), torch.rand(3, *video, generator=g)
    check(make, a, v, STEPS if per_step else None)


@pytest.mark.parametrize("steps", [None, STEPS], ids=["clip", "step"])
@pytest.mark.parametrize("modality", ["audio", "video"])
@torch.no_grad()
def test_invariants_of_one_modality(modality, steps):
    "A model of one modality looks at that one alone"
    pair = "logmel_cnn", "vector"
    m, (a, v) = model(*pair, "concat", modality=modality), inputs(*pair)
    out = m(a, v, step_mask=steps)
    assert out.shape == ((3, 8) if steps is None else (3, 4, 8))
    check_padding(m, a, v, steps, out)
    given = {modality: dict(audio=a, video=v)[modality]}
    assert torch.equal(m(**given, step_mask=steps), out)


@pytest.mark.parametrize("steps", [None, STEPS], ids=["clip", "step"])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_the_heads_of_the_modalities_answer_beside(fusion, steps):
    m, (a, v) = model("logmel_cnn", "vector", fusion), inputs("logmel_cnn", "vector")
    out = m(a, v, step_mask=steps)
    fused, own = m(a, v, step_mask=steps, return_aux=True)
    assert torch.allclose(fused, out, atol=1e-5)
    assert {k: z.shape for k, z in own.items()} == dict(audio=out.shape, video=out.shape)


@pytest.mark.parametrize("steps", [None, STEPS], ids=["clip", "step"])
@pytest.mark.parametrize("fusion,pair", QUICK, ids=str)
def test_gradients_reach_what_is_used(fusion, pair, steps):
    "Both inputs from the fused logits, and every weight from all outputs"
    m, (a, v) = model(*pair, fusion, reconstruction=1.0).train(), inputs(*pair)
    a.requires_grad_()
    v.requires_grad_()
    fused, aux = m(a, v, step_mask=steps, return_aux=True)
    loss = fused.square().sum()
    for grad in torch.autograd.grad(loss, (a, v), retain_graph=True):
        assert grad.abs().sum() > 0
    (loss + sum(z.square().sum() for z in aux.values())).backward()
    unused = {n for n, p in m.named_parameters() if p.grad is None}
    assert all(fusion == "ia" and ".proj." in n for n in unused), unused
    assert all(p.grad is None or p.grad.isfinite().all() for p in m.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_encoder_learns_nothing_from_a_clip_without_its_modality(fusion):
    "Not even how often each class occurs"
    m, (a, v) = model("vector", "vector", fusion).train(), inputs("vector", "vector")
    here = torch.tensor([[True], [False], [True]])
    own = m(a, v, audio_mask=here, return_aux=True)[1]["audio"]
    F.cross_entropy(own[1:2], torch.tensor([3])).backward()
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


# Stochastic depth (Huang et al. 2016, "Deep Networks with Stochastic Depth", eq. 2)

DROPS = dict(
    it=("vector", "vector"),
    lt=("vector", "vector"),
    mbt=("vector", "vector"),
    vavl=("vector", "vector"),
    concat=("conformer", "conformer"),
)  # in the encoders


def with_drop_path(fusion, p):
    options = SMALL_FUSIONS.get(fusion, {})
    if fusion != "concat":
        options = options | dict(drop_path=p)
    encoder = SMALL["conformer"] | dict(drop_path=p)
    return model(
        *DROPS[fusion],
        fusion,
        fusion_options={fusion: options},
        encoder_options=SMALL | dict(conformer=encoder),
    )


@pytest.mark.parametrize("fusion", DROPS)
@torch.no_grad()
def test_drop_path(fusion):
    "With 0 nothing changes, bit for bit; above, training alone draws, from torch's generator"
    a, v = inputs(*DROPS[fusion], n=8)

    def train(m):
        torch.manual_seed(1)
        return m.train()(a, v), torch.get_rng_state()

    plain, zero = model(*DROPS[fusion], fusion), with_drop_path(fusion, 0.0)
    assert list(plain.state_dict()) == list(zero.state_dict())
    for x, y in zip(train(plain), train(zero)):
        assert torch.equal(x, y)
    half = with_drop_path(fusion, 0.5)
    assert torch.equal(half(a, v), model(*DROPS[fusion], fusion)(a, v)), "evaluation"
    assert torch.equal(train(half)[0], train(with_drop_path(fusion, 0.5))[0]), "the same draws"
    assert not torch.equal(train(half)[0], train(with_drop_path(fusion, 0.0))[0]), "in training"


@torch.no_grad()
def test_drop_path_leaves_branches_of_a_clip_out():
    "Each of four branches of a clip with probability p: all four of it with p ** 4"
    layer = ConformerLayer(8, 2, 3, dropout=0.0, drop_path=0.5).train()
    torch.manual_seed(0)
    x, mask = torch.randn(4000, 2, 8), torch.ones(4000, 2, dtype=torch.bool)
    gone = (layer(x, mask) - layer.norm(x)).abs().amax((1, 2)) < 1e-6
    assert gone.float().mean() == pytest.approx(1 / 16, abs=0.015)
    with pytest.raises(AvkitError, match="drop_path=1.5 is no probability"):
        ConformerLayer(8, 2, 3, drop_path=1.5)


# A block of one's own


@pytest.fixture
def registry():
    "What a test registers is gone after it"
    before = dict(FUSIONS)
    yield FUSIONS
    FUSIONS.clear()
    FUSIONS.update(before)


def test_the_example_in_contributing_is_a_block(registry):
    "CONTRIBUTING.md, 'A new fusion block': at most 15 lines, and every invariant holds"
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"## A new fusion block.*?```python\n(.*?)```", text, re.S)[1]
    assert len(code.splitlines()) <= 15
    known = set(registry)
    exec(code, dict(vars(fusion_module)))
    (name,) = set(registry) - known
    for pair, steps in product((PAIRS[1], PAIRS[4]), (None, STEPS)):
        with torch.no_grad():
            check(lambda pair=pair: model(*pair, name), *inputs(*pair), steps)


def test_out_dim_must_be_right(registry):
    @fusion_module.fusion("twice")
    class Twice(Fusion):
        def head_inputs(self, a, am, v, vm):
            return [(torch.cat([a, a], -1), am), (v, vm)]

    m = model("vector", "vector", "twice")
    with pytest.raises(AvkitError, match="64 numbers a step, and its out_dim is 128: set .* = 192"):
        m(*inputs("vector", "vector"))
    assert registry["twice"] is Twice and Twice.places() == ["head_inputs"]


def test_a_name_belongs_to_one_block(registry):
    with pytest.raises(AvkitError, match="'ca' is CrossAttention already"):

        @fusion_module.fusion("ca")
        class Mine(Fusion):
            pass

    assert registry["ca"].__name__ == "CrossAttention"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_block_on_common_steps_gets_them(fusion):
    "Both sequences as long as each other, with masks that tell which clip has which modality"
    block, seen = model("vector", "features", fusion).fusion, []
    if block.out_dim is None:
        pytest.skip("it has no common head")
    a, v = torch.randn(2, 6, 64), torch.randn(2, 3, 8)
    am, vm = torch.ones(2, 6, dtype=torch.bool), torch.tensor([[True] * 3, [False] * 3])

    def head_inputs(*given):
        seen.extend(given)
        return [(a.new_zeros(2, 1, block.out_dim), am)]

    block.head_inputs = head_inputs
    block.for_head(a, am, v, vm)
    a2, am2, v2, vm2 = seen
    assert (a2.shape[1] == v2.shape[1]) == block.needs_common_steps
    if block.needs_common_steps:
        assert am2.shape == vm2.shape == (2, 6)
    assert am2.any(1).tolist() == [True, True] and vm2.any(1).tolist() == [True, False]


def test_released_layouts():
    "Every weight of the released checkpoints has its place here, with the same shape"
    data = Path(os.environ.get("AVKIT_DATA") or Path(__file__).parents[2] / "shared/data")
    folder = data / "released_layouts"
    if not folder.is_dir():
        pytest.skip("the released files' layouts are not at hand")

    def name(k):
        for old, new in (
            ("audio.", "audio_model."),
            ("video.trunk.net.", "visual_model."),
            ("video.", "visual_model."),
            ("fusion.", ""),
        ):
            if k.startswith(old):
                return k.replace(old, new, 1)
        return k

    for f in ("ia", "it", "lt"):
        state = json.loads((folder / f"chumachenko2022-{f}_h1.json").read_text())["state_dict"]
        theirs = {k.removeprefix("module."): v for k, v in state.items()}
        mine = model("audio_cnn", "efficientface", f, 1).state_dict()
        shapes = {name(k): "x".join(map(str, v.shape)) or "scalar" for k, v in mine.items()}
        assert shapes == theirs


@pytest.mark.parametrize("kind, name, shape, options", [
    ("video", "light", (3, 40, 40), {}), ("audio", "segment_cnn", (1, 106, 106), dict(small=True)),
    ("video", "pictures", (3, 40, 40), dict(trunk="light"))])
def test_what_a_backbone_made_before_is_read_as_what_it_makes(kind, name, shape, options):
    "The same outputs, with padding in a clip; the backbone is not asked again"
    torch.manual_seed(0)
    known = dict(video=VIDEO_ENCODERS, audio=AUDIO_ENCODERS)[kind]
    encoder = known[name](n_out=4, **options).eval()
    trunk = encoder.trunks["face"] if name == "pictures" else encoder.trunk
    x, mask = torch.rand(2, 6, *shape), torch.arange(6) < torch.tensor([[6], [4]])
    with torch.no_grad():
        want = encoder(x, mask)
        before = trunk(x.flatten(0, 1)).view(2, 6, -1)
        trunk.forward = lambda x: pytest.fail("asked again")
        torch.testing.assert_close(encoder(before, mask), want)
