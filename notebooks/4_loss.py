# %% [markdown]
# # 4 · The loss
#
# Draw a step t uniformly for each image, add noise, let the network say which noise it was, and take the mean absolute
# error:
#
# $$ L = \mathbb{E}_{x, t, \varepsilon}\, \lvert \varepsilon - \varepsilon_\theta(x_t, t) \rvert. $$

# %%
import torch
from matplotlib.figure import Figure
from tutorial import show_figure, small_recipe, source

from unnoise.data.sources import DataConfig
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.loss import L1, diffusion_loss
from unnoise.diffusion.schedules import add_noise
from unnoise.diffusion.timesteps import DiscreteTimes

source(diffusion_loss)

# %% [markdown]
# Parts here agree on one thing, the estimate of the clean image. A network that predicts noise becomes such a `Denoiser`
# by its preconditioning, x_hat = (x_t - sigma eps_hat) / alpha; dividing the image's error by c_out = -sigma / alpha gives
# back the error of the noise. So the line above is the notebook's loss, and with other coefficients it is EDM's.

# %%
recipe = small_recipe()
images = DataConfig().load()
denoiser = recipe.build_denoiser(images.shape, 0)
torch.manual_seed(0)
x = images.tensor(slice(0, 64))
t = DiscreteTimes()(torch.rand(64), recipe.schedule)
noise = torch.randn_like(x)
with torch.no_grad():
    ours = diffusion_loss(denoiser, x, t, noise, loss=L1())
    guess = denoiser.network(add_noise(recipe.schedule, x, t, noise), t * 300 - 1)
by_hand = (guess - noise).abs().flatten(1).mean(1)
print(f"ours {ours.mean():.6f}, by hand {by_hand.mean():.6f}, largest difference {(ours - by_hand).abs().max():.1e}")

# %% [markdown]
# Before training the network says about nothing, and the mean of |eps| is sqrt(2 / pi) = 0.80; the notebook printed 0.8095.
#
# **Where the loss comes from.** For images that are one Gaussian the best possible denoiser is known in closed form
# (`unnoise.diffusion.gaussian`). Its loss at each step shows where the difficulty lies:

# %%
best = GaussianDenoiser(recipe.schedule, Moments.measure(images.tensor()))
x = images.tensor(slice(0, 500))
noise = torch.randn_like(x)
steps = torch.arange(0, 300, 10)
losses = [float((best(add_noise(recipe.schedule, x, s, noise), s) - x).div(best.schedule.ratio(s)).abs().mean())
          for s in (steps + 1).double() / 300]  # fmt: skip
figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.add_subplot()
axes.plot(steps, losses)
axes.set(xlabel="step t", ylabel="mean |error of the noise|", ylim=(0, 0.85))
show_figure(figure)

# %% [markdown]
# Early steps are hard to tell from the image and cost most; late ones are nearly all noise, and easy. A curve of the mean
# over all t therefore falls fast and then hardly moves, while images still get better.
