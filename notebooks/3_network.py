# %% [markdown]
# # 3 · The network
#
# A U-Net: four blocks halve the image and widen it from 64 to 1024 channels, four bring it back, and each of those also
# sees what the block opposite put out. It is told the time by
#
# $$ \sin(t\, \omega_k), \cos(t\, \omega_k), \qquad \omega_k = 10000^{-k / 15}, \quad k = 0 .. 15. $$

# %%
import torch
from matplotlib.figure import Figure
from tutorial import show_figure, source

from unnoise.networks.simple_unet import Block, SimpleUnet, SimpleUnetConfig, SinusoidalTime

source(SinusoidalTime.forward)
features = SinusoidalTime(32)(torch.arange(300.0))
figure = Figure(figsize=(7, 2.5), layout="constrained")
axes = figure.add_subplot()
axes.imshow(features.T, aspect="auto", cmap="RdBu")
axes.set(xlabel="step t", ylabel="feature")
show_figure(figure)

# %% [markdown]
# A block: convolve, ReLU, BatchNorm; add the time, one value a channel; convolve, ReLU, BatchNorm; then halve or double.

# %%
source(Block.forward)
source(SimpleUnet.forward)

# %% [markdown]
# It is the notebook's to the digit: its parameters, and the names under which `final_model.pth` keeps them.

# %%
with torch.device("meta"):  # shapes only: no 250 MB are filled
    network = SimpleUnetConfig().build(3, (64, 64), 0)
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
print(", ".join(list(network.state_dict())[:6]), "...")

# %% [markdown]
# One step through it, seen by shapes:

# %%
x, time = torch.empty(1, 3, 64, 64, device="meta"), torch.empty(1, 32, device="meta")
h = network.conv0(x)
print("conv0 ", tuple(h.shape))
kept = []
for k, down in enumerate(network.downs):
    h = down(h, time)
    kept.append(h)
    print(f"downs.{k}", tuple(h.shape))
for k, up in enumerate(network.ups):
    h = up(torch.cat([h, kept.pop()], dim=1), time)
    print(f"ups.{k}  ", tuple(h.shape))
print("output", tuple(network.output(h).shape))

# %% [markdown]
# The innermost `ups.0` sees the same tensor twice, as input and as what was kept: a slip of the notebook that its weights
# depend on. Our own U-Net (`unnoise.networks.unet`) does not have it, and has what the notebook lists as improvements:
# residual connections, SiLU or GELU, group normalisation, attention. Chapter 9 says what each buys.
