"""The contract of every network by name, and plain `nn.Module` classes as networks."""

import re

import pytest
import torch
from torch import Tensor, nn

from unnoise.networks.base import ModuleConfig, NetworkConfig
from unnoise.networks.layers import Dropout
from unnoise.registry import NETWORKS
from unnoise.utils.errors import UserError


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_contract(name: str, classes: int) -> None:
    """Same shape out, each image by itself, a gradient to every parameter in use; any height and width that fits."""
    torch.manual_seed(0)
    config = NETWORKS[name]()
    network = config.build(1, (16, 32), classes).eval()
    for p in network.parameters():  # a branch that begins at zero would hide what is behind it
        torch.nn.init.normal_(p, std=0.05)
    cond = {"augment_labels": torch.randn(3, 7)} if config.takes_augmentation else {}
    x, c, label = torch.randn(3, 1, 16, 32), torch.tensor([0.1, 1.0, 2.0]), torch.tensor([0, 1, 2]) if classes else None
    out = network(x, c, label)
    assert out.shape == x.shape
    if cond:
        torch.testing.assert_close(network(x, c, label, torch.zeros(3, 7)), out)
        assert not torch.allclose(network(x, c, label, **cond), out)
    torch.testing.assert_close(out[1:2], network(x[1:2], c[1:2], None if label is None else label[1:2]), rtol=1e-3, atol=1e-3)
    if classes and config.takes_labels:
        torch.testing.assert_close(network(x, c), network(x, c, torch.full((3,), -1)))
        assert not torch.allclose(network(x, c), out)
    network(x, c, label, **cond).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_auto_fits_any_size() -> None:
    NETWORKS["auto"]().build(1, (17, 31), 0)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "auto"])
def test_a_size_that_does_not_fit_names_one_that_does(name: str) -> None:
    """The size in the message can be built."""
    with pytest.raises(UserError, match="multiples of") as e:
        NETWORKS[name]().build(1, (17, 31), 0)
    found = re.search(r"size (\d+),(\d+)", str(e.value))
    assert found
    NETWORKS[name]().build(1, (int(found[1]), int(found[2])), 0)


class AllGiven(nn.Module):
    """A network that wants to know all about the data, with options of its own."""

    size_divisor = 8

    def __init__(self, classes: int, size: tuple[int, int], channels: int, width: int, depth: int = 2) -> None:
        super().__init__()
        self.given = {"channels": channels, "size": size, "classes": classes, "width": width, "depth": depth}
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class ChannelsOnly(nn.Module):
    """A network that takes the number of channels alone, by any further keyword what it likes."""

    def __init__(self, channels: int, **options: object) -> None:
        super().__init__()
        self.channels, self.options = channels, options

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return x


def test_a_module_gets_what_its_constructor_names() -> None:
    """Of channels, size and classes those that it names, in any order, and its options; the others' defaults stay."""
    config = ModuleConfig(AllGiven, (("width", 5),))
    network = config.build(3, (16, 24), 7)
    assert isinstance(network, AllGiven)
    assert network.given == {"channels": 3, "size": (16, 24), "classes": 7, "width": 5, "depth": 2}
    plain = ModuleConfig(ChannelsOnly).build(2, (5, 7), 4)
    assert isinstance(plain, ChannelsOnly) and (plain.channels, plain.options) == (2, {})
    assert isinstance(ModuleConfig(Dropout, (("p", 0.3),)).build(1, (8, 8), 0), Dropout)


def test_what_a_module_takes_is_read_from_its_signatures() -> None:
    """Labels where the constructor names `classes`, augmentation where `forward` names `augment_labels`."""
    full: NetworkConfig = ModuleConfig(AllGiven, (("width", 5),))
    plain: NetworkConfig = ModuleConfig(ChannelsOnly)
    assert (full.takes_labels, full.takes_augmentation, full.size_divisor) == (True, True, 8)
    assert (plain.takes_labels, plain.takes_augmentation, plain.size_divisor) == (False, False, 1)


def test_a_modules_size_divisor_is_kept() -> None:
    """A size that is no multiple of it is refused, naming one that is; without one every size will do."""
    config = ModuleConfig(AllGiven, (("width", 5),))
    with pytest.raises(UserError, match=r"multiples of 8, not 12x17: try .*size 16,16"):
        config.build(1, (12, 17), 0)
    ModuleConfig(ChannelsOnly).build(1, (13, 17), 0)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (AllGiven, (("width", 5), ("dept", 3)), "unknown field 'dept' of the network AllGiven: did you mean 'depth'"),
        (AllGiven, (("width", 5), ("channels", 3)), "unknown field 'channels'"),  # the data decide it
        (AllGiven, (), "the constructor of AllGiven needs 'width', which is none of channels, size, classes"),
        (ChannelsOnly, (("width", 5),), "unknown field 'width' of the network ChannelsOnly: its constructor takes none"),
    ],
    ids=["unknown", "decided by the data", "missing", "takes none"],
)
def test_options_that_do_not_fit(module: type[nn.Module], options: tuple[tuple[str, object], ...], message: str) -> None:
    """They are refused when the configuration is made, long before the network is built."""
    with pytest.raises(UserError, match=message):
        ModuleConfig(module, options)
