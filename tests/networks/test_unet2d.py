"""The network of diffusers against diffusers: the same names of weights, the same numbers."""

import pytest
import torch

from unnoise.export.diffusers import unet_config
from unnoise.networks.unet2d import UNet2DConfig
from unnoise.utils.errors import UserError

CONFIGS = [
    UNet2DConfig((16, 32), 1, (1,), 8, 8),
    UNet2DConfig((32, 16, 32), 2, (0, 2), 0, 16, eps=1e-6, padding=0, middle_attention=False, freq_shift=1, sin_first=True),
    UNet2DConfig((16,), 2, (), 4, 4, dropout=0.1),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(map(str, c.widths)))
def test_it_is_unet2dmodel(config: UNet2DConfig) -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    theirs = UNet2DModel(**{k: v for k, v in unet_config(config, (2, 8, 16)).items() if k[0] != "_"}).eval()
    ours = config.build(2, (8, 16), 0).eval()
    ours.load_state_dict(theirs.state_dict())
    x, step = torch.randn(3, 2, 8, 16), torch.tensor([0.0, 17.0, 999.0])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, step), theirs(x, step).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fields", "words"), [
    ({"widths": (20, 32)}, r"multiples of network.groups \(16\)"), ({"attention_levels": (2,)}, "levels from 0 to 1"),
    ({"head_size": 24}, "must divide the widths that have attention"), ({"padding": 2}, "padding 0 or 1"),
])  # fmt: skip
def test_what_is_no_such_network(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        UNet2DConfig(**fields)  # type: ignore[arg-type]
