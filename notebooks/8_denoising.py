# %% [markdown]
# # 8 · Denoising
#
# "How it can be useful for denoising images" is the notebook's first sentence, and the notebook never does it. It is one call. A
# noisy image y = x + sigma n, scaled by alpha, is a noised image of the diffusion,
#
#     alpha y = alpha x + (alpha sigma) n
#
# at the time t where sigma(t) / alpha(t) = sigma, and the denoiser's estimate there is the mean of all images that y can come
# from: the estimate of least squared error.

# %%
import numpy as np
import torch
from matplotlib.figure import Figure
from tutorial import FAST, show, show_figure, source, trained

import unnoise as un
from unnoise import figures
from unnoise.data.dataset import split
from unnoise.data.pixels import to_uint8
from unnoise.data.sources import DataConfig
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.restoration.noise import estimate_sigma
from unnoise.restoration.posteriors import denoise, denoise_by_sampling, matching_time
from unnoise.utils.rng import BatchRng

source(denoise)
source(matching_time)

# %% [markdown]
# Held-out digits, which the model was not trained on, with noise of sigma 0.5 on [-1, 1] (64 of 255). From top to bottom: noisy,
# the one-step estimate, one sample of the images that y can come from, the clean images.

# %%
model = trained()
restorer = model.restorer(un.SamplingConfig(un.DDIM(), steps=10))
parts = split(DataConfig().load(), 0.1)
clean, sigma = parts.held_out.tensor(slice(0, 100)), 0.5
noisy = clean + sigma * BatchRng(0, range(len(clean)), "added").normal_like(clean)
mean = restorer.denoise(noisy, sigma)
sampled = restorer.sample_denoised(noisy, sigma, samples=1).samples[0]
rows = [to_uint8(x[:12]) for x in (noisy, mean, sampled, clean)]
show(lambda path: figures.save(figures.grid(np.concatenate(rows), columns=12), path))
print("time", round(float(matching_time(model.denoiser.schedule, sigma)) * 300, 2), "of 300: between two steps of training")

# %% [markdown]
# **How good is it?** For comparison, the best linear estimate (Wiener), computed from the training digits' exact mean and
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
    curves["learned"].append(psnr(restorer.denoise(y, level)))
    curves["one sample"].append(psnr(restorer.sample_denoised(y, level, samples=1).samples[0]))
figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.add_subplot()
for name, values in curves.items():
    axes.plot(sigmas, values, marker="o", label=name)
axes.set(xlabel="sigma on [-1, 1]", ylabel="PSNR, dB", xscale="log")
axes.legend(frameon=False)
show_figure(figure)

# %% [markdown]
# A sample is sharper than the mean and further from the clean image: it is one of many images that explain y. The standard
# deviation of several samples says how certain each pixel is.
#
# **Unknown sigma** is estimated from the image's finest wavelet coefficients. On images as small as 8x8 that is a rough guess; on
# photographs it is accurate to a few per cent.

# %%
print("true sigma 0.5, estimated from 20 digits:", np.round([estimate_sigma(y) for y in noisy[:20]], 2))

# %%
source(denoise_by_sampling)

# %% [markdown]
# **Other degradations.** For a measurement y = A(x) + noise the denoiser of p(x) becomes one of p(x | y), and any sampler
# samples from it. Here half of the pixels are missing. From top to bottom: the measurement, the mean of 8 samples, their
# standard deviation (white: uncertain), the clean images.

# %%
missing, noise = un.Mask.random((8, 8), 0.5), un.GaussianNoise(5)  # 5 of 255
some = clean[:12]
y = missing(noise.add(some, BatchRng(2, range(12), "added")))
found = model.restore(y, missing, noise, samples=2 if FAST else 8, sampling=un.SamplingConfig(un.DDIM(), steps=20))
rows = [to_uint8(x) for x in (y, found.mean, 2 * found.std - 1, some)]
show(lambda path: figures.save(figures.grid(np.concatenate(rows), columns=12), path))

# %% [markdown]
# In a shell: `unnoise restore RUN noisy.png`, with `--sigma 25` (of 255) where it is known, `--mode sample` for one sample
# instead of the mean, and `--add-noise 25` to try it on a clean image and print the PSNR. `unnoise restore --help` lists the
# other tasks.
