"Wide layers by oneDNN: as exact as MKL's, the same bits elsewhere, and none but what is meant"

import copy
import hashlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from avkit import products
from avkit.models.backbones import build_backbone
from avkit.models.model import build_model
from avkit.numerics import obstacle, with_threads
from avkit.products import product, ROWS, TRAINED, WIDE, WideLinear, widen
from avkit.training.configure import configure

portable_here = pytest.mark.skipif(bool(obstacle()), reason=f"not portable here: {obstacle()}")


@pytest.fixture(autouse=True)
def portable(monkeypatch):
    "As in a process that imported avkit first"
    monkeypatch.setattr(products, "numerics", lambda: "portable")


def drawn(*shape, seed=0):
    "Normal numbers, the same everywhere"
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(i=800, o=900, bias=True):
    "A wide layer, and the plain one of the same weights"
    torch.manual_seed(0)
    plain = nn.Linear(i, o, bias)
    wide = copy.deepcopy(plain)
    assert widen(wide) == 1
    return wide, plain


LAYOUTS = dict(
    rows=lambda: drawn(70, 800),
    steps=lambda: drawn(3, 17, 800),
    every_other=lambda: drawn(60, 1600)[:, ::2],
    one_of_many=lambda: drawn(40, 5, 800)[:, 2],
    other_way_round=lambda: drawn(800, 33).t(),
    one_row_again=lambda: drawn(1, 800).expand(20, 800),
    from_the_middle=lambda: drawn(50, 900)[:, 100:],
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_are_as_exact_as_the_plain_layers(layout, bias):
    (wide, plain), x = layer(bias=bias), LAYOUTS[layout]()
    exact = copy.deepcopy(plain).double()
    told = []
    for net, dtype in (wide, torch.float32), (plain, torch.float32), (exact, torch.float64):
        a = x.to(dtype).detach().requires_grad_()
        y = net(a)
        (y.sin().sum() + y.mean()).backward()
        told.append([y, a.grad, *(p.grad for p in net.parameters())])
    for of_wide, of_plain, true in zip(*told, strict=True):
        assert of_wide.shape == true.shape
        error, usual = ((v.double() - true).norm() / true.norm() for v in (of_wide, of_plain))
        assert error < 2 * usual + 1e-7


def test_a_gradient_that_lies_in_no_memory_of_its_own_comes_back():
    wide, plain = layer()
    for net in wide, plain:
        net(drawn(40, 800)).mean().backward()
    assert torch.allclose(wide.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-7)


def test_only_what_is_asked_for_gets_a_gradient():
    wide, _ = layer()
    x = drawn(40, 800).requires_grad_()
    wide.weight.requires_grad_(False)
    wide(x).sum().backward()
    assert wide.weight.grad is None and x.grad is not None and wide.bias.grad is not None
    with torch.no_grad():
        assert not wide(x).requires_grad


def test_the_gradient_of_a_gradient_is_the_plain_layers():
    told = []
    for net in layer():
        x = drawn(40, 800).requires_grad_()
        slope = torch.autograd.grad(net(x).sin().sum(), x, create_graph=True)[0]
        slope.square().sum().backward()
        told.append((net.weight.grad, x.grad))
    for a, b in zip(*told, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4) and b.abs().max() > 0.1


@pytest.mark.parametrize("size, some", [("paper", True), ("small", False)])
def test_a_model_that_is_trained_has_them_at_paper_size(size, some):
    data = "crema_d", "rendered"
    cfg = configure(recipe="vavl2023", dataset=data[0], data_root=data[1], size=size, device="cpu")
    model = build_model(cfg.recipe | dict(
        modality="av", n_out=6, audio_dim=1024, video_dim=1408))  # fmt: skip
    wide = [m for m in model.modules() if isinstance(m, WideLinear)]
    assert bool(wide) == some and all(min(m.weight.shape) >= TRAINED for m in wide)


class Own(nn.Linear):
    "A layer of somebody else's"


def test_only_wide_plain_layers_are_taken():
    narrow, own = nn.Linear(WIDE - 1, WIDE), Own(WIDE, WIDE)
    net = nn.ModuleList([nn.Linear(WIDE, WIDE), narrow, nn.Linear(WIDE, WIDE - 1), own])
    assert widen(net) == 1 and widen(net) == 0
    assert [type(m) for m in net] == [WideLinear, nn.Linear, nn.Linear, Own]


def test_a_large_backbone_has_them_and_a_small_one_has_none():
    large = build_backbone("vit_large_patch14_clip_224", say=False, depth=1)
    counted = [sum(isinstance(m, WideLinear) for m in net.modules())
               for net in (large, build_backbone("vit_tiny", say=False, depth=1))]  # fmt: skip
    assert counted == [4, 0]  # query, key and value; projection; two of the MLP


def plain_bits(wide, plain, x):
    "Does the wide layer give the plain one's bits?"
    return torch.equal(wide(x), F.linear(x, plain.weight.to(x.dtype), plain.bias.to(x.dtype)))


def test_what_is_not_meant_goes_the_plain_way(monkeypatch):
    wide, plain = layer()
    assert plain_bits(wide, plain, drawn(ROWS - 1, 800))
    assert wide(drawn(0, 800)).shape == (0, 900)
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(drawn(40, 800)).dtype == torch.bfloat16
    both = copy.deepcopy(wide).bfloat16(), plain
    assert plain_bits(*both, drawn(40, 800).bfloat16())
    assert wide.to("meta")(drawn(40, 800).to("meta")).device.type == "meta"
    monkeypatch.setattr(products, "numerics", lambda: "fast")
    assert plain_bits(*layer(), drawn(40, 800))


@portable_here
def test_the_bits_are_those_of_every_processor():
    "Made on an AMD EPYC; the same under emulated processors of both vendors"
    x, w, b, g = drawn(257, 1024), drawn(769, 1024, seed=1), drawn(769, seed=2), drawn(257, 769)
    with with_threads(1):
        parts = product(x, w, b), product(g, w.t()), product(g.t(), x.t())
    told = [hashlib.sha256(p.numpy().tobytes()).hexdigest()[:12] for p in parts]
    assert told == ["45c0fee69c18", "0c290a59879d", "96c152f72f20"]
