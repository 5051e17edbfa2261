# %% [markdown]
# # 5 · Sampling
#
# From noise back to an image, step by step. With the estimate of epsilon, each step samples from the posterior of DDPM:
#
#     x_(t-1) = 1 / sqrt(alpha_t) (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat)
#               + sqrt(beta_t (1 - alpha_bar_(t-1)) / (1 - alpha_bar_t)) z,     z ~ N(0, I)
#
# In terms of the estimate of the clean image, and between any two times t > s, the same reads:

# %%
import torch
from tutorial import FAST, show, source

import unnoise as un
from unnoise import figures
from unnoise.data.pixels import to_uint8
from unnoise.data.sources import DataConfig
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.sampling import starting_point
from unnoise.utils.rng import BatchRng

source(un.DDPM.step)

# %% [markdown]
# No trained network is needed to see it work. In its place stands the exact denoiser of Gaussian images with the digits' mean
# and covariance; its samples are Gaussian digits, as good as second moments can make them.

# %%
digits = DataConfig().load().tensor()
moments = Moments.measure(digits)
schedule = un.Linear(300)
denoiser = GaussianDenoiser(schedule, moments)
notebook = un.SamplingConfig(un.DDPM(clamp=True), un.UniformSteps(), 300, clamp_estimate=False)
rng = BatchRng(0, [0])
records = un.trajectory(denoiser, rng.normal_like(digits[:1]), notebook, rng)
selected = figures.select_steps(records)  # 10 of 300; no others stay in memory

# %% [markdown]
# **The notebook's third figure**: ten steps of one image becoming clear, with the estimate below each
# (`unnoise figure reverse RUN`; `unnoise figure animation RUN --out a.gif` animates it).

# %%
show(lambda path: figures.reverse_strip(selected, schedule, path))

# %% [markdown]
# ## Fewer steps
#
# 300 network calls an image are not necessary. DDIM adds no fresh noise, so its trajectories are smooth and can be followed in
# far fewer steps; here in 20.

# %%
few = un.SamplingConfig(un.DDIM(), un.UniformSteps(), 20)
x = un.sample(denoiser, (20, 1, 8, 8), config=few)
show(lambda path: figures.save(figures.grid(to_uint8(x), columns=10), path))

# %% [markdown]
# ## The terminal-SNR fault
#
# Training ends at x_T = 0.2192 x + 0.9757 eps; sampling starts at eps. The difference is small in every pixel, but not in
# what all pixels share. Over n pixels the mean brightness exceeds the noise by a factor sqrt(n): in 64x64 colour photographs
# whose mean brightness has standard deviation 0.202, x_T has along it a standard deviation of
# 0.2192 · 0.202 · sqrt(12288) = 4.9, and noise has 1. Samples that start from noise alone nearly all start at middle grey and
# stay near it.

# %%
std = 0.202 * 12288**0.5
brightness = Moments(torch.zeros(1, 1, 1), torch.full((1, 1, 1, 1), std), torch.tensor(0.0))
count = 500 if FAST else 4000


def reproduced(schedule, sampler, start):
    """The standard deviation of the brightness of samples by the exact denoiser, as a fraction of that of the data."""
    exact, rng = GaussianDenoiser(schedule, brightness), BatchRng(0, range(count))
    x = starting_point(exact, rng, torch.empty(count, 1, 1, 1), start, brightness)
    for record in un.trajectory(exact, x, un.SamplingConfig(sampler, un.UniformSteps(), 300, clamp_estimate=False), rng):
        x = record.x
    return float(x.std()) / std


print("standard deviation of the mean brightness of samples, as a fraction of that of the data")
zero = un.Linear(300, zero_terminal_snr=True)
for name, sampler in (("DDPM", un.DDPM()), ("DDIM", un.DDIM())):
    print(f"{name}: the notebook {reproduced(schedule, sampler, 'noise'):.0%}, "
          f"with zero terminal SNR {reproduced(zero, sampler, 'noise'):.0%}, "
          f"starting from the data's mean and covariance {reproduced(schedule, sampler, 'data'):.0%}")  # fmt: skip

# %% [markdown]
# Two corrections, each a named option:
#
# - `--schedule linear --schedule.zero-terminal-snr true --target velocity`: stretch the schedule so that it ends in pure noise
#   (Lin et al. 2024). The target can't be epsilon there, since x_T then holds nothing of the image and 1 / alpha is infinite.
# - `--sampling.start data`: start from alpha x + sigma eps with x sampled from the Gaussian of the training images. It helps
#   a model that is trained already, such as the notebook's own weights (imported with `--data`: the Gaussian is measured on the
#   images, 65 of them at least).
