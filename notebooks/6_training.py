# %% [markdown]
# # 6 · Training
#
# Adam with learning rate 0.001, batches of 150, 4,000 epochs; no average of the weights, no learning rate schedule. The recipe
# contains all of it (`unnoise info notebook` prints it); `--steps` or `--minutes` shorten it. Here it runs for three minutes on
# digits, with a network for 8x8 images.

# %%
import copy
import shutil
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from tutorial import FAST, RUN, show, small_recipe, source

import unnoise as un
from unnoise import figures
from unnoise.data.pixels import to_uint8
from unnoise.run_folder import RunFolder
from unnoise.runs.start import begin
from unnoise.training.loop import train

recipe = small_recipe()
print(recipe.schedule, recipe.target, recipe.network, recipe.training, recipe.sampling, sep="\n")

# %% [markdown]
# The loop, from top to bottom. It yields a record a step, and the caller prints, samples or stops.

# %%
source(train)

# %% [markdown]
# A `Trainer` runs this loop and keeps a run folder: it logs each step, and writes samples and checkpoints. `un.train(...)` begins
# one, trains to the end with a progress bar, and writes the figures; `begin` leaves the loop to you.

# %%
if RUN.exists():
    shutil.rmtree(RUN)
trainer = begin(RUN, recipe)
for record in trainer.train():
    if record.step == 1 or record.step % 500 == 0:
        print(f"step {record.step}: loss {record.loss:.4f}, {record.images_per_second:.0f} images/s")
print(f"{record.step} steps, the last loss {record.loss:.4f}")

# %%
show(lambda path: figures.loss_curve(*RunFolder(RUN).read_losses(), path))

# %% [markdown]
# Digits that it generates, in the notebook's 300 steps:

# %%
model = un.load(RUN)
digits = model.sample(4 if FAST else 20)
show(lambda path: figures.save(figures.grid(digits, columns=10), path))

# %% [markdown]
# ## Sampling in training mode
#
# The notebook samples without `eval()`. Its BatchNorm layers then normalise by the mean and variance of the current batch, which
# is one image, instead of those learned over the whole of training: each image's own contrast and brightness are
# normalised away, layer by layer. The same noise, in both modes, one image at a time:

# %%
as_the_notebook = replace(model, denoiser=copy.deepcopy(model.denoiser).train())
count = 2 if FAST else 10
rows = [np.concatenate([to_uint8(m.sample_batch([n])) for n in range(count)]) for m in (model, as_the_notebook)]
show(lambda path: figures.save(figures.grid(np.concatenate(rows), columns=count), path))


def brightness(pixels):
    means = pixels.mean((1, 2, 3))
    return f"mean brightness {means.mean():.0f}, its standard deviation over images {means.std():.1f}"


for name, pixels in (("evaluation mode", rows[0]), ("training mode", rows[1]), ("the data", trainer.split.train.pixels)):
    print(f"{name}: {brightness(pixels)}")

# %% [markdown]
# Above, evaluation mode; below, training mode. Here models are always used in evaluation mode.
#
# ## A network and a loop of your own
#
# Any module `(x, c_noise, label) -> like x` can be trained, without a recipe or a run folder: with a schedule and a target it is
# a denoiser, `un.fit` trains it, and `un.sample` samples from it. This one has three convolutions and is too small for good
# digits; c_noise, the noise level, enters as one more channel.


# %%
class TinyNet(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x, c_noise, label=None):
        level = c_noise[:, None, None, None].expand_as(x)
        return self.layers(torch.cat([x, level], dim=1))


own = un.NetworkDenoiser(TinyNet(), un.Cosine(), un.Velocity())
for record in un.fit(own, un.Digits(), steps=10 if FAST else 1000):
    if record.step in (1, record.total):
        print(f"step {record.step}: loss {record.loss:.4f}")
x = un.sample(own, (10, 1, 8, 8), un.DDIM(), steps=20)
show(lambda path: figures.save(figures.grid(to_uint8(x), columns=10), path))
