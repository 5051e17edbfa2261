# %% [markdown]
# # 1 · The data
#
# A diffusion model learns from images alone. The notebook takes FGVC-Aircraft: its `trainval` split (6,667 images) and
# its `test` split (3,333) put together, each squashed to 64x64, mirrored half of the time, and scaled:
#
#     byte in 0..255  ->  value = byte / 255 in [0, 1]  ->  x = 2 value - 1 in [-1, 1]
#
# Without `FGVC_ROOT` set to the folder that holds `fgvc-aircraft-2013b`, these chapters use scikit-learn's 8x8 digits,
# which need no download. The code of all chapters runs in the folder `notebooks`, with what
# `pip install -e '.[notebooks]'` brings.

# %%
from dataclasses import replace

from tutorial import ROOT, aircraft_or_digits, show, source

import unnoise as un
from unnoise import figures
from unnoise.data.dataset import split
from unnoise.data.pixels import to_uint8
from unnoise.training.batches import Batches

data = aircraft_or_digits()
images = data.load()
print(f"{len(images)} images of (channels, height, width) = {images.shape}")

# %% [markdown]
# Every image was decoded and resized once and is stored as bytes; the notebook decodes all 10,000 photographs again in
# every epoch. They are converted to [-1, 1] a batch at a time:

# %%
source(un.ImageDataset.tensor)
x = images.tensor(slice(0, 4))
print(f"{x.dtype}, from {x.min():.2f} to {x.max():.2f}")

# %% [markdown]
# **The notebook's first figure**: 20 images in 4 columns. In a shell: `unnoise figure data fgvc-aircraft --root DIR --size 64`.

# %%
show(lambda path: figures.save(figures.grid(images.pixels[:20], columns=4), path))

# %% [markdown]
# **Batches.** 150 images each, shuffled anew in each epoch, the last partial batch dropped: 66 steps an epoch of 10,000.
# Which images step k reads is a function of (seed, k), so a run that was stopped resumes exactly where it was.

# %%
notebook = un.PRESETS["notebook"].training
print(notebook.steps_per_epoch(10_000), "steps an epoch,", notebook.steps_asked(10_000), "in 4,000 epochs")
batches = Batches(images, un.TrainingConfig(batch=20, drop_last=True), un.Linear(300), flip=data.flip)
show(lambda path: figures.save(figures.grid(to_uint8(batches.read(0)), columns=10), path))

# %% [markdown]
# **What the notebook gets wrong.** Nothing is held out, so nothing shows whether the model generalises or memorises its
# training images. Here the test split is held out by default (or, for a data set without one, a tenth of the images, selected by
# their content); `union` trains on both splits. And the 20-pixel copyright line below each photograph, which the notebook
# learns as if it were aircraft, is cut off (`--data.source.cut-banner false` keeps it).

# %%
source_by_default = replace(data.source, union=False) if ROOT else data.source
parts = split(replace(data, source=source_by_default).load(), 0.1)
print(f"{len(parts.train)} to train on, {len(parts.held_out)} held out")
