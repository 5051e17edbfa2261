# %% [markdown]
# # 9 · What to improve, and what it buys
#
# The notebook ends with a list of improvements that it leaves to the reader: residual connections, other activations, batch
# or group normalisation, attention. Each is an option of our U-Net:

# %%
import torch
from tutorial import FAST, RUN, show, source, trained

from unnoise import figures
from unnoise.networks.layers import Block, Style
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.trainer import Run
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.samplers import DDIM, DPMpp2M

source(Style)
source(Block.forward)

# %% [markdown]
# What each buys was measured at equal seconds with three seeds: the table stands in
# [docs/improvements.md](../docs/improvements.md), and `benchmarks/ablation.py` repeats it. In a shell each is one option:
#
#     unnoise train digits --network.style.norm batch
#     unnoise train digits --network.style.activation relu --network.attention-tokens 0
#     unnoise train digits --loss l1 --schedule cosine --target velocity --training.times uniform
#
# More than any of these buys what the list does not name: a target and times of training that put the effort where images
# are made, an average of the weights, a learning rate that falls to zero, a smaller network in bfloat16 that takes many more
# steps a second, labels. The preset `digits` has them; a minute of it:

# %%
short = {"training.steps": 10, "training.minutes": None, "network.widths": [16, 32]} if FAST else {}
folder = RUN.with_name(f"{RUN.name}-9")
if not (folder / "model.safetensors").exists():
    for _ in Run.begin(folder, override(PRESETS["digits"], short | {"training.sample_every": 1e9}), print).train():
        pass

# %%
from unnoise.model import Model

ours, notebooks = Model.open(folder), trained()
n = 10 if FAST else 30
print("three minutes of the notebook's recipe, drawn in 300 calls, then in 15 by DDIM:")
show(lambda path: figures.save(figures.grid(next(notebooks.draw(n)), columns=10), path))
show(lambda path: figures.save(figures.grid(next(notebooks.draw(n, sampling=SamplingConfig(DDIM(), steps=15))), columns=10), path))
print("one minute of ours, drawn in 15 calls by DPM-Solver++(2M):")
fifteen = SamplingConfig(DPMpp2M(), ours.info.recipe.sampling.times, 15)
show(lambda path: figures.save(figures.grid(next(ours.draw(n, sampling=fifteen)), columns=10), path))

# %% [markdown]
# And in one image's way from noise:

# %%
show(lambda path: figures.reverse_strip(figures.stages(ours.trajectory([3])), ours.denoiser.schedule, path))
print(torch.__version__)
