"Frames that come more than once are looked at once: outputs, gradients and statistics stay"
import copy
import torch
from avkit.models.backbones import EfficientFace


def learned(net, look, x):
    "Outputs, gradients and buffers after one pass"
    y = look(net)(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    (y * weight).sum().backward()
    grads = {k: p.grad for k, p in net.named_parameters()}
    return y.detach(), grads, dict(net.named_buffers())


def test_a_batch_with_repeated_frames_gives_what_every_row_by_itself_gives():
    torch.manual_seed(0)
    one = EfficientFace().double().train()
    all_rows = copy.deepcopy(one)
    x = torch.rand(3, 3, 224, 224, dtype=torch.float64)[[0, 1, 0, 2, 0, 1]]
    y, grads, buffers = learned(one, lambda net: net, x)
    y2, grads2, buffers2 = learned(all_rows, lambda net: net.look, x)
    torch.testing.assert_close(y, y2, rtol=1e-6, atol=1e-8)
    for k in grads:
        torch.testing.assert_close(grads[k], grads2[k], rtol=1e-5, atol=1e-6, msg=k)
    for k in buffers:
        torch.testing.assert_close(buffers[k], buffers2[k], rtol=1e-6, atol=1e-8, msg=k)


def test_frames_that_all_differ_give_the_same_bits_as_ever():
    torch.manual_seed(0)
    one = EfficientFace().train()
    other = copy.deepcopy(one)
    x = torch.rand(2, 3, 224, 224)
    assert torch.equal(one(x), other.look(x))
