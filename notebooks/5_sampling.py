# %% [markdown]
# # 5 · SamplingConfig
#
# From noise, step by step back. With the estimate of the noise, each step draws from the posterior of DDPM:
#
# $$ x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big( x_t - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\, \hat\varepsilon \Big)
#    + \sqrt{\beta_t \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}}\; z. $$
#
# In terms of the estimate of the clean image, and between any two times t > s, the same reads:

# %%
import torch
from tutorial import FAST, show, source

from unnoise import figures
from unnoise.data.sources import DataConfig
from unnoise.utils.rng import BatchRng
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.schedules import Linear
from unnoise.diffusion.sampling import SamplingConfig, sample, starting_point, trajectory
from unnoise.diffusion.samplers import DDIM, DDPM
from unnoise.diffusion.timesteps import UniformSteps

source(DDPM.step)

# %% [markdown]
# No trained network is needed to see it work. The exact denoiser of Gaussian images with the digits' mean and covariance
# stands in for one; what it draws are Gaussian digits, as good as second moments can make them.

# %%
digits = DataConfig().load().tensor()
moments = Moments.measure(digits)
schedule = Linear(300)
denoiser = GaussianDenoiser(schedule, moments)
notebook = SamplingConfig(DDPM(clamp=True), UniformSteps(), 300, clamp_estimate=False)
noise = BatchRng(0, [0])
records = trajectory(denoiser, noise.normal_like(digits[:1]), notebook, noise)
stages = figures.stages(records)  # 10 of 300; no others are kept in memory

# %% [markdown]
# **The notebook's third figure**: ten stages of one image becoming clear, with the estimate below each
# (`unnoise figure reverse RUN`; `unnoise figure animation RUN --out a.gif` makes it move).

# %%
show(lambda path: figures.reverse_strip(stages, schedule, path))

# %% [markdown]
# ## Fewer steps
#
# 300 network calls an image are a habit, not a need. DDIM goes the same way without fresh noise, so it can take long strides.

# %%
few = SamplingConfig(DDIM(), UniformSteps(), 20)
show(lambda path: figures.save(figures.grid(figures.to_uint8(sample(denoiser, (1, 8, 8), range(20), few)), 10), path))

# %% [markdown]
# ## The terminal-SNR fault
#
# Training ends at x_T = 0.2192 x + 0.9757 eps; sampling starts at eps. The difference is small in every pixel, but not in
# what all pixels share. For n pixels the mean brightness stands out of the noise by sqrt(n): 64x64 colour photographs whose
# mean brightness has spread 0.202 have, along it, a spread of 0.2192 · 0.202 · sqrt(12288) = 4.9 at t = T where noise has
# 1. Starting from noise alone, nearly every image starts at middle grey and stays there.

# %%
spread = 0.202 * 12288**0.5
brightness = Moments(torch.zeros(1, 1, 1), torch.full((1, 1, 1, 1), spread), torch.tensor(0.0))
count = 500 if FAST else 4000


def kept(schedule, sampler, start):
    """The share of the brightness's spread that samples of the exact denoiser have."""
    exact, noise = GaussianDenoiser(schedule, brightness), BatchRng(0, range(count))
    x = starting_point(exact, noise, torch.empty(count, 1, 1, 1), start, brightness)
    for record in trajectory(exact, x, SamplingConfig(sampler, UniformSteps(), 300, clamp_estimate=False), noise):
        x = record.x
    return float(x.std()) / spread


zero = Linear(300, zero_terminal_snr=True)
for name, sampler in (("DDPM", DDPM()), ("DDIM", DDIM())):
    print(f"{name}: the notebook keeps {kept(schedule, sampler, 'noise'):.0%} of the spread, "
          f"with zero terminal SNR {kept(zero, sampler, 'noise'):.0%}, "
          f"starting from the data's mean and covariance {kept(schedule, sampler, 'data'):.0%}")  # fmt: skip

# %% [markdown]
# Two mends, each a named option:
#
# - `--schedule.zero-terminal-snr true --target velocity`: stretch the schedule so that it ends in pure noise (Lin et al. 2024).
#   The noise can't be the target there, since x_T then says nothing of the image and 1 / alpha is infinite.
# - `--sampling.start data`: start from alpha x + sigma eps with x drawn from the Gaussian of the training images. It helps
#   a model that is trained already, such as the notebook's own weights.
