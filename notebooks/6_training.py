# %% [markdown]
# # 6 · Training
#
# Adam with learning rate 0.001, batches of 150, 4,000 epochs; no average of the weights, no schedule. The recipe says it all
# (`unnoise info notebook`); `--steps` or `--minutes` cut it short. Here it runs for three minutes on digits, with a
# network for 8x8 images.

# %%
import copy
import shutil

import numpy as np
from tutorial import FAST, RUN, show, small_recipe, source

from unnoise import figures
from unnoise.model import Model
from unnoise.runs.trainer import Run
from unnoise.runs.folder import read_losses
from unnoise.training.loop import train

recipe = small_recipe()
print(recipe.schedule, recipe.target, recipe.network, recipe.training, recipe.sampling, sep="\n")

# %% [markdown]
# The loop, from top to bottom. It yields a record a step; whoever runs it prints, draws or stops.

# %%
source(train)

# %%
if RUN.exists():
    shutil.rmtree(RUN)
run = Run.begin(RUN, recipe, print)
for record in run.train():
    if record.step == 1 or record.step % 500 == 0:
        print(f"step {record.step}: loss {record.loss:.4f}, {record.images_per_second:.0f} images/s")
print(f"{record.step} steps, the last loss {record.loss:.4f}")

# %%
show(lambda path: figures.loss_curve(*read_losses(RUN), path))

# %% [markdown]
# Digits that it draws, by the notebook's 300 steps:

# %%
model = Model.open(RUN)
count = 4 if FAST else 20
show(lambda path: figures.save(figures.grid(next(model.draw(count)), columns=10), path))

# %% [markdown]
# ## Sampling in training mode
#
# The notebook samples without `eval()`. Its BatchNorm layers then scale by the mean and variance of the batch at hand, which
# is one image, instead of those learned over the whole of training: each image's own contrast and brightness are
# normalised away, layer by layer. The same noise, in both modes, one image at a time:

# %%
as_the_notebook = Model(copy.deepcopy(model.denoiser).train(), model.info)
count = 2 if FAST else 10
rows = [np.concatenate([figures.to_uint8(m.sample([n])) for n in range(count)]) for m in (model, as_the_notebook)]
show(lambda path: figures.save(figures.grid(np.concatenate(rows), columns=count), path))
for name, row in zip(("evaluation mode", "training mode"), rows, strict=True):
    print(f"{name}: mean brightness {row.mean():.0f}, its spread over images {row.mean((1, 2, 3)).std():.1f}")
truth = run.split.train.pixels
print(f"the data: mean brightness {truth.mean():.0f}, its spread {truth.mean((1, 2, 3)).std():.1f}")

# %% [markdown]
# Above, evaluation mode; below, training mode. Here models are always used in evaluation mode.
