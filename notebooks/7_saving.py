# %% [markdown]
# # 7 · Saving
#
# The notebook saves once, after the last epoch: `torch.save(model.state_dict(), "final_model.pth")`. A run folder has the
# weights for use as safetensors, beside the recipe that rebuilds the network, and checkpoints to resume from, written so
# that a crash leaves the old file or the new one, never half of it.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from tutorial import RUN, source, trained

import unnoise as un
from unnoise.export.notebook import export_notebook, import_notebook
from unnoise.export.weights import read_state_dict
from unnoise.utils import atomic

model = trained()
for path in sorted(RUN.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:>10,}  {path}")

# %%
source(atomic.write)

# %% [markdown]
# **To the notebook and back.** `unnoise export RUN --out final_model.pth` writes what the notebook loads;
# `unnoise import final_model.pth --run DIR` turns such a file into a run folder that samples and restores like any other and,
# with `--data fgvc-aircraft --root DIR` for the images, is evaluated like one. Only tensors are read: a pickle can run code when
# it is opened, and is refused.

# %%
folder = Path(tempfile.mkdtemp())
export_notebook(RUN, folder / "final_model.pth")
state = torch.load(folder / "final_model.pth", weights_only=True)
channels, height, width = model.info.shape
network = model.info.recipe.network.build(channels, (height, width), 0)
print(network.load_state_dict(state))

# %%
info = import_notebook(folder / "final_model.pth", folder / "run", {"data.size": [height, width]})
export_notebook(folder / "run", folder / "again.pth")
again = read_state_dict(folder / "again.pth")
print("the same weights, bit for bit:", all(torch.equal(state[name], again[name]) for name in state))

recipe = model.info.recipe  # an imported run samples in float32, so the model does the same here
in_float32 = un.Model.of(un.NetworkDenoiser(model.network, recipe.schedule, recipe.target), replace(model.info, bf16=False))
print("the same samples:", bool((un.load(folder / "run").sample(2) == in_float32.sample(2)).all()))
