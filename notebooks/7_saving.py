# %% [markdown]
# # 7 · Saving
#
# The notebook saves once, after the last epoch: `torch.save(model.state_dict(), "final_model.pth")`. A run folder has the
# weights for use as safetensors, beside the recipe that rebuilds the network, and checkpoints to go on from, written so
# that a crash leaves the old file or the new one, never half of it.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from tutorial import RUN, source, trained

from unnoise.utils import atomic
from unnoise.export.notebook import export_notebook, import_notebook, read_state_dict
from unnoise.model import Model

model = trained()
for path in sorted(RUN.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:>10,}  {path}")

# %%
source(atomic.write)

# %% [markdown]
# **To the notebook and back.** `unnoise export RUN --out final_model.pth` writes what the notebook loads;
# `unnoise import final_model.pth --run DIR` turns such a file into a run folder that draws, restores and is measured like any
# other. Only tensors are read: a pickle can run code when it is opened, and is refused.

# %%
folder = Path(tempfile.mkdtemp())
export_notebook(RUN, folder / "final_model.pth")
state = torch.load(folder / "final_model.pth", weights_only=True)
network = model.info.recipe.network.build(*model.info.shape[:1], model.info.shape[1:], 0)
print(network.load_state_dict(state))

# %%
info = import_notebook(folder / "final_model.pth", folder / "run", {"data.size": list(model.info.shape[1:])})
export_notebook(folder / "run", folder / "again.pth")
again = read_state_dict(folder / "again.pth")
print("the same bits:", all(torch.equal(state[name], again[name]) for name in state))
plain = Model(model.denoiser, replace(model.info, bf16=False))  # an imported run draws in float32
print("draws the same:", bool((next(Model.open(folder / "run").draw(2)) == next(plain.draw(2))).all()))
