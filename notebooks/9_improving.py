# %% [markdown]
# # 9 · Improvements, and what each gains
#
# The notebook ends with a list of improvements that it leaves to the reader: residual connections, other activations, batch
# or group normalisation, attention. Each is an option of our U-Net:

# %%
from tutorial import FAST, RUN, show, source, trained

import unnoise as un
from unnoise import figures
from unnoise.networks.layers import Block

source(un.Style)
source(Block.forward)

# %% [markdown]
# What each gains was measured at equal seconds of training with three seeds: the table stands in
# [docs/improvements.md](../docs/improvements.md), and `benchmarks/ablation.py` repeats it. In a shell each is one option:
#
#     unnoise train digits --network.style.norm batch --run runs/batch-norm
#     unnoise train digits --network.style.activation relu --network.attention-tokens 0 --run runs/relu
#     unnoise train digits --loss l1 --schedule cosine --target velocity --training.times uniform --run runs/l1
#
# More than any of these is gained by what the list does not name: a target and training times that spend the effort on the noise
# levels that matter most, an average of the weights, a learning rate that falls to zero, a smaller network in bfloat16 that takes
# many more steps a second, labels. The preset `digits` has them; a minute of it:

# %%
short = {"steps": 10, "network.widths": [16, 32]} if FAST else {"minutes": 1}
folder = RUN.with_name(f"{RUN.name}-9")
if not (folder / "model.safetensors").exists():
    un.train("digits", out=folder, **short, **{"training.sample_every": 1e9})

# %%
ours, notebooks = un.load(folder), trained()
n = 10 if FAST else 30
in_15_steps = un.SamplingConfig(un.DDIM(), steps=15)


def show_grid(pixels):
    show(lambda path: figures.save(figures.grid(pixels, columns=10), path))


print("three minutes of the notebook's recipe, sampled in 300 network calls, then in 15 by DDIM:")
show_grid(notebooks.sample(n))
show_grid(notebooks.sample(n, sampling=in_15_steps))
print("one minute of ours, sampled in 15 calls by DPM-Solver++(2M):")
show_grid(ours.sample(n, sampler=un.DPMpp2M(), steps=15))

# %% [markdown]
# The trajectory of one sample:

# %%
show(lambda path: figures.reverse_strip(figures.select_steps(ours.trajectory([3])), ours.denoiser.schedule, path))
