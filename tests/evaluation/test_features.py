"""Features by name; what can't be had is said in a sentence."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.conftest import small
from unnoise.data.dataset import ImageDataset
from unnoise.evaluation import encoders
from unnoise.evaluation.encoders import dinov2_features, inception_features, onnx_features
from unnoise.evaluation.features import find_features
from unnoise.utils.errors import UserError

ENCODER = Path(os.environ.get("UNNOISE_ENCODER", "mobilenet_v2_features.onnx"))
RNG = np.random.default_rng(0)
GREY = ImageDataset(RNG.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8))


def test_pixels_are_principal_components() -> None:
    """Of mean variance 1, uncorrelated and in falling order on the images that they were fitted to."""
    digits = small().data.load()
    images = ImageDataset(digits.pixels.repeat(2, axis=1).repeat(2, axis=2))
    found = find_features("pixels", images).build()(images.pixels)
    assert found.dtype == np.float64 and found.shape[1] == 64
    covariance = np.cov(found, rowvar=False)
    assert np.allclose(covariance, np.diag(covariance.diagonal()), atol=0.01) and np.trace(covariance) == pytest.approx(
        64, rel=0.01
    )
    assert (np.diff(covariance.diagonal()[:30]) < 0).all()
    assert find_features(None, GREY).name == "pixels" and find_features(None, digits).name == "classifier"
    few = find_features("pixels", ImageDataset(GREY.pixels.repeat(2, axis=1))).build()
    assert few(GREY.pixels.repeat(2, axis=1)).shape == (20, 19)
    own = find_features("pixels", GREY).build()(GREY.pixels)  # the pixels themselves, less their mean
    assert own.shape == (20, 64) and np.corrcoef(own[:, 5], GREY.pixels[:, 0, 5, 0])[0, 1] == pytest.approx(1)


def test_keys_change_with_what_decides() -> None:
    other = ImageDataset(GREY.pixels[::-1])
    keys = [find_features("pixels", images, seed).key for images, seed in ((GREY, 0), (GREY, 1), (other, 0))]
    assert len(set(keys)) == 3 and find_features("pixels", GREY).key == keys[0]


@pytest.mark.parametrize(("text", "said"), [
    ("pixel", "did you mean 'pixels'"), ("classifier", "needs labels"), ("none.onnx", "can't read 'none.onnx'"),
    ("pixels:x", "unknown features"), ("inception:none.pth", "can't read"), ("dinov2:none.pth", "can't read"),
])  # fmt: skip
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_features(text, GREY)


def onnx_file(path: Path, shape: list[int | str]) -> Path:
    """An ONNX file whose only node averages over the last axis."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[len(shape) - 1], keepdims=0)
    ends = helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", kind, shape[:-1])
    graph = helper.make_graph([node], "g", [ends[0]], [ends[1]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_encoders_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no encoder")
    with pytest.raises(UserError, match="no ONNX file"):
        find_features(str(tmp_path / "text.onnx"), GREY).build()
    with pytest.raises(UserError, match="not images of n x 3"):
        onnx_features(onnx_file(tmp_path / "a.onnx", ["n", 128]))
    found = onnx_features(onnx_file(tmp_path / "b.onnx", ["n", 3, 4, 4]))(GREY.pixels)
    means = GREY.pixels.reshape(20, 4, 2, 4, 2).mean((2, 4)).mean(-1)
    assert found.shape == (20, 12) and np.allclose(found[:, :4].mean(1), means.mean(1), rtol=0.1)


@pytest.mark.skipif(not ENCODER.is_file(), reason="UNNOISE_ENCODER names no file")
def test_an_onnx_encoder() -> None:
    found = find_features(str(ENCODER), GREY)
    assert found.name == "mobilenet_v2_features" and found.build()(GREY.pixels[:3]).shape == (3, 1280)


def test_inception_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of another network and pickles are refused; without a network it is said where to get them."""
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save(Path("x"), tmp_path / "pickle.pth")
    for name in ("other.pth", "pickle.pth"):
        with pytest.raises(UserError, match="does not hold Inception's weights"):
            inception_features(tmp_path / name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(UserError, match="inception:FILE"):
        inception_features()


def test_inception_gives_2048(tmp_path: Path) -> None:
    """Of torch-fidelity's network with weights of no meaning."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Empty(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: object, **__: object) -> None: ...

    torch.save({}, tmp_path / "empty.pth")
    network = Empty("x", ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth"))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert find_features(f"inception:{tmp_path / 'weights.pth'}", GREY).build()(GREY.pixels[:2]).shape == (2, 2048)


@timm.models.register_model  # type: ignore[untyped-decorator]
def vit_tiny_dinov2(pretrained: bool = False, **options: Any) -> torch.nn.Module:
    """DINOv2 of width 48 and two blocks."""
    size = {"patch_size": 14, "embed_dim": 48, "depth": 2, "num_heads": 2, "init_values": 1.0}
    make = timm.models.vision_transformer._create_vision_transformer
    made: torch.nn.Module = make("vit_small_patch14_dinov2", pretrained, **size, **options)
    return made


@pytest.fixture
def tiny_dinov2(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """With weights of no meaning, for images of 518x518 as it is published."""
    monkeypatch.setitem(encoders.DINOV2, 48, "vit_tiny_dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: torch.nn.Module = timm.create_model("vit_tiny_dinov2", num_classes=0)
        return made


@pytest.mark.parametrize("layout", ["pth", "safetensors"])
def test_dinov2_of_a_file(tmp_path: Path, tiny_dinov2: torch.nn.Module, layout: str) -> None:
    """Meta's, which has a mask token too, and timm's: the class token of the images as the paper's are prepared."""
    path = tmp_path / f"tiny.{layout}"
    if layout == "pth":
        torch.save(tiny_dinov2.state_dict() | {"mask_token": torch.zeros(1, 48)}, path)
    else:
        save_file(tiny_dinov2.state_dict(), path)
    found = find_features(f"dinov2:{path}", GREY)
    assert found.name == "tiny"
    pixels = RNG.integers(0, [[[[256]]], [[[99]]]], (2, 518, 518, 1), dtype=np.uint8)
    features = found.build()(pixels)
    x = torch.nn.functional.interpolate(torch.from_numpy(pixels).movedim(3, 1).float(), 224, mode="bicubic", antialias=True) / 255
    x = torch.stack([(x[:, 0] - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)], 1)
    own = {"state_dict": tiny_dinov2.state_dict()}
    network = timm.create_model("vit_tiny_dinov2", num_classes=0, img_size=224, pretrained=True, pretrained_cfg_overlay=own)
    expected = network.eval()(x).detach().numpy()
    assert features.shape == (2, 48) and np.allclose(features, expected, atol=1e-3)
    assert not np.allclose(features[0], features[1], atol=1e-2)


def test_what_is_no_dinov2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save(Path("x"), tmp_path / "pickle.pth")
    torch.save({"cls_token": torch.zeros(1, 1, 384)}, tmp_path / "half.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("other.pth", "pickle.pth", "half.pth", "text.safetensors"):
        with pytest.raises(UserError, match="does not hold DINOv2's weights"):
            dinov2_features(tmp_path / name)

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"can't download DINOv2's weights \(no network\): get .* `features` dinov2:FILE"):
        dinov2_features()
