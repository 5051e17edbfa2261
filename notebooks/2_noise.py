# %% [markdown]
# # 2 · Noise
#
# T = 300 times a little noise is added to an image, with variances beta rising linearly from 0.0001 to 0.02. With
# alpha = 1 - beta and its running product alpha_bar, all steps up to t are one:
#
#     x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,     eps ~ N(0, I)
#
# Here the two roots are `alpha(t)` and `sigma(t)` of a schedule, and t runs from 0 (the image) to 1: the notebook's
# index k = 0 .. 299 is t = (k + 1) / 300, because its k = 0 is already one step of noise.

# %%
from dataclasses import dataclass

import torch
from tutorial import aircraft_or_digits, show, source

import unnoise as un
from unnoise import figures
from unnoise.diffusion.schedules import SCHEDULES

schedule = un.Linear(timesteps=300)
source(un.add_noise)

# %%
beta = torch.linspace(0.0001, 0.02, 300, dtype=torch.float64)
alpha_bar = torch.cumprod(1 - beta, 0)
t = torch.arange(1, 301, dtype=torch.float64) / 300
print("largest difference of alpha from sqrt(alpha_bar):", float((schedule.alpha(t) - alpha_bar.sqrt()).abs().max()))

# %% [markdown]
# **The notebook's second figure**: one image at t = 0, 30, ..., 270
# (`unnoise figure forward fgvc-aircraft --root DIR --size 64`).

# %%
x = aircraft_or_digits().load().tensor(slice(0, 1))
torch.manual_seed(0)
noise = torch.randn_like(x)
show(lambda path: figures.forward_strip(schedule, x, noise, path))

# %% [markdown]
# **A schedule of your own** is these two functions, for t from 0 to 1. Registered under a name, it can stand in a recipe like
# any other, and `un.train(..., schedule="quadratic")` trains with it. From a module `mine.py` the command finds it too:
# `unnoise train digits --schedule mine:Quadratic`.


# %%
@un.register("quadratic")
@dataclass(frozen=True)
class Quadratic(un.Schedule):
    """alpha = 1 - t^2, sigma = t."""

    def alpha(self, t):
        return 1 - t**2

    def sigma(self, t):
        return t


print(un.override(un.PRESETS["digits"], {"schedule": "quadratic"}).schedule)
show(lambda path: figures.forward_strip(Quadratic(), x, noise, path))

# %% [markdown]
# **All schedules side by side** (`unnoise figure schedules`). They differ in the logarithm of the signal-to-noise ratio,
# alpha^2 / sigma^2, as a function of t: in how much of the time lies at which noise level. Karras' schedule does not scale the
# image down; its noise grows instead.

# %%
shown = {name: make() for name, make in SCHEDULES.items()}
shown |= {"linear, T = 300": schedule, "the same, zero terminal SNR": un.Linear(300, zero_terminal_snr=True)}
show(lambda path: figures.schedule_curves(shown, path))

# %% [markdown]
# **A known fault.** At the last step some of the image is left: the notebook's betas were made for T = 1000, and after 300 of
# them

# %%
one = torch.ones((), dtype=torch.float64)
print(f"alpha = {float(schedule.alpha(one)):.4f}, SNR = {float(schedule.ratio(one)) ** -2:.4f}")

# %% [markdown]
# So training never sees pure noise, yet sampling starts from it. Chapter 5 measures the effect and shows two ways to correct it.
