# %% [markdown]
# # 3 · The network
#
# A U-Net: four down blocks halve the image and widen it from 64 to 1024 channels, four up blocks reverse that, and each of
# those also takes the output of the down block opposite (a skip connection). The network is conditioned on the step t by
# the features
#
#     sin(t omega_k), cos(t omega_k),     omega_k = 10000^(-k / 15),     k = 0 .. 15

# %%
import torch
from matplotlib.figure import Figure
from tutorial import show_figure, source

import unnoise as un
from unnoise.networks.simple_unet import Block, SinusoidalTime

source(SinusoidalTime.forward)
features = SinusoidalTime(32)(torch.arange(300.0))
figure = Figure(figsize=(7, 2.5), layout="constrained")
axes = figure.add_subplot()
axes.imshow(features.T, aspect="auto", cmap="RdBu")
axes.set(xlabel="step t", ylabel="feature")
show_figure(figure)

# %% [markdown]
# A block: convolution, ReLU, BatchNorm; add the features of t, one value per channel; convolution, ReLU, BatchNorm; then
# down-sample or up-sample by 2.

# %%
source(Block.forward)
source(un.SimpleUnet.forward)

# %% [markdown]
# It is the notebook's network exactly: the number of parameters, and their names in `final_model.pth`.

# %%
with torch.device("meta"):  # shapes only: no 250 MB are allocated
    network = un.SimpleUnetConfig().build(3, (64, 64), 0)
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
print(", ".join(list(network.state_dict())[:6]), "...")

# %% [markdown]
# The shapes in one forward pass:

# %%
x, time = torch.empty(1, 3, 64, 64, device="meta"), torch.empty(1, 32, device="meta")
h = network.conv0(x)
print("conv0 ", tuple(h.shape))
skips = []
for k, down in enumerate(network.downs):
    h = down(h, time)
    skips.append(h)
    print(f"downs.{k}", tuple(h.shape))
for k, up in enumerate(network.ups):
    h = up(torch.cat([h, skips.pop()], dim=1), time)
    print(f"ups.{k}  ", tuple(h.shape))
print("output", tuple(network.output(h).shape))

# %% [markdown]
# The innermost block, `ups.0`, takes the same tensor twice, as its input and as its skip connection: a slip of the notebook
# that its weights depend on. Our own U-Net (`unnoise.networks.unet`) does not have it, and has what the notebook lists as
# improvements: residual connections, SiLU or GELU, group normalisation, attention. Chapter 9 says what each gains.
