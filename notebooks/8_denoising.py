# %% [markdown]
# # 8 · Denoising, at last
#
# "How it can be useful for denoising images" is the notebook's first sentence, and it never gets there. It is one call. A
# noisy image y = x + sigma n, scaled by alpha, is a noised image of the diffusion,
#
# $$ \alpha\, y = \alpha x + (\alpha \sigma)\, n, \qquad \text{at the time where } \sigma_t / \alpha_t = \sigma, $$
#
# and the denoiser's estimate there is the mean of all images that y can have been: the estimate of least squared error.

# %%
import numpy as np
import torch
from matplotlib.figure import Figure
from tutorial import show, show_figure, source, trained

from unnoise import figures
from unnoise.data.dataset import split
from unnoise.data.sources import DataConfig
from unnoise.utils.rng import BatchRng
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.restoration.noise import estimate_sigma
from unnoise.restoration.posteriors import denoise, denoise_by_sampling, matching_time
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.samplers import DDIM

source(denoise)
source(matching_time)

# %% [markdown]
# Held-out digits, which the model has not seen, with noise of sigma 0.5 on [-1, 1] (64 of 255). From top to bottom: noisy,
# the one-step estimate, one sample of what it can have been, the truth.

# %%
model = trained()
parts = split(DataConfig().load(), 0.1)
clean, sigma = parts.held_out.tensor(slice(0, 100)), 0.5
noisy = clean + sigma * BatchRng(0, range(len(clean)), "added").normal_like(clean)
mean = model.denoise(noisy, sigma)
drawn = model.sample_clean(noisy, sigma, 1, SamplingConfig(DDIM(), steps=10)).samples[0]
rows = [figures.to_uint8(x[:12]) for x in (noisy, mean, drawn, clean)]
show(lambda path: figures.save(figures.grid(np.concatenate(rows), columns=12), path))
print("time", round(float(matching_time(model.denoiser.schedule, sigma)) * 300, 2), "of 300: between two steps of training")

# %% [markdown]
# **Is it any good?** Beside it, the best that a linear method can do (Wiener), given the training digits' exact mean and
# covariance:

# %%
wiener = GaussianDenoiser(model.denoiser.schedule, Moments.measure(parts.train.tensor()))


def psnr(x):
    return float(10 * torch.log10(4 / (x.clamp(-1, 1) - clean).square().mean()))


sigmas = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.2]
curves: dict[str, list[float]] = {"noisy": [], "Wiener": [], "learned": [], "one sample": []}
for level in sigmas:
    y = clean + level * BatchRng(1, range(len(clean)), "added").normal_like(clean)
    curves["noisy"].append(psnr(y))
    curves["Wiener"].append(psnr(denoise(wiener, y, level)))
    curves["learned"].append(psnr(model.denoise(y, level)))
    curves["one sample"].append(psnr(model.sample_clean(y, level, 1, SamplingConfig(DDIM(), steps=10)).samples[0]))
figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.add_subplot()
for name, values in curves.items():
    axes.plot(sigmas, values, marker="o", label=name)
axes.set(xlabel="sigma on [-1, 1]", ylabel="PSNR, dB", xscale="log")
axes.legend(frameon=False)
show_figure(figure)

# %% [markdown]
# A sample is sharper than the mean and further from the truth: it is one of many images that fit. How far samples differ
# says how much is really known.
#
# **Unknown sigma** is read off the image's finest wavelets. On images as small as 8x8 that is a guess; on real ones it is
# good to a few per cent.

# %%
print("true sigma 0.5, estimated from 20 digits:", np.round([estimate_sigma(y) for y in noisy[:20]], 2))

# %%
source(denoise_by_sampling)

# %% [markdown]
# In a shell: `unnoise restore RUN noisy.png`, `--sigma 25` (of 255) where it is known, `--mode sample` for a draw, and
# `--add-noise 25` to try it on a clean image and be told the PSNR.
