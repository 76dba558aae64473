"Frames that come more than once are looked at once: outputs, gradients and statistics stay"
import copy
import torch
from avkit.devices import known
from avkit.models.backbones import EfficientFace, build_backbone
from avkit.models.model import build_model


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


def test_only_frames_that_are_looked_at_are_scaled(monkeypatch):
    torch.manual_seed(0)
    one = build_backbone("efficientface", say=False)
    other, scaled = copy.deepcopy(one), []
    x = torch.rand(3, 3, 224, 224)[[0, 1, 0, 2, 0, 1]]
    whole = other.net(other.images(x))
    images = one.images
    monkeypatch.setattr(one, "images", lambda x: scaled.append(len(x)) or images(x))
    assert torch.equal(one(x), whole)
    assert scaled == [3]


def test_a_stream_without_padding_is_read_where_it_lies(monkeypatch):
    names = dict(audio_encoder="audio_cnn", video_encoder="light", fusion="concat")
    model = build_model(names | dict(modality="av", n_out=3, heads=1, audio_dim=None)).eval()
    audio, video = torch.rand(2, 20, 10), torch.rand(2, 3, 3, 40, 40)
    at, stage1 = [], model.video.stage1
    monkeypatch.setattr(
        model.video, "stage1", lambda x, mask: at.append(x.data_ptr()) or stage1(x, mask)
    )
    whole = torch.ones(2, 3, dtype=torch.bool)
    some = torch.tensor([[True, True, True], [True, True, False]])
    for mask in (None, known(whole, whole), known(some, some)):
        model(audio=audio, video=video, video_mask=mask)
    assert [p == video.data_ptr() for p in at] == [True, True, False]
