# %% [markdown]
# # 4 · The loss
#
# For each image a step t is drawn uniformly and noise epsilon is added; the network predicts the noise, and the loss is the mean
# absolute error:
#
#     L = E |eps - eps_theta(x_t, t)|,     the mean over x, t and eps

# %%
import torch
from matplotlib.figure import Figure
from tutorial import show_figure, small_recipe, source

import unnoise as un
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments

source(un.diffusion_loss)

# %% [markdown]
# All parts here share one quantity, the estimate x_hat of the clean image. A network that predicts epsilon becomes such a
# `Denoiser` by its preconditioning, x_hat = (x_t - sigma eps_hat) / alpha; dividing the error of x_hat by c_out = -sigma / alpha
# gives back the error of epsilon. So the code above is the notebook's loss, and with other coefficients it is EDM's.

# %%
recipe = small_recipe()
images = recipe.data.load()
denoiser = recipe.build_denoiser(images.shape, 0)
torch.manual_seed(0)
x = images.tensor(slice(0, 64))
t = un.DiscreteTimes()(torch.rand(64), recipe.schedule)
noise = torch.randn_like(x)
with torch.no_grad():
    ours = un.diffusion_loss(denoiser, x, t, noise, loss=un.L1())
    epsilon = denoiser.network(un.add_noise(recipe.schedule, x, t, noise), t * 300 - 1)
by_hand = (epsilon - noise).abs().flatten(1).mean(1)
print(f"ours {ours.mean():.6f}, by hand {by_hand.mean():.6f}, largest difference {(ours - by_hand).abs().max():.1e}")

# %% [markdown]
# Before training the network's output is nearly 0, and the mean of |epsilon| is sqrt(2 / pi) = 0.80; the notebook printed 0.8095.
#
# **Which steps contribute most.** For Gaussian images the best possible denoiser is known in closed form
# (`unnoise.diffusion.gaussian`). Its loss at each step shows where the difficulty lies:

# %%
best = GaussianDenoiser(recipe.schedule, Moments.measure(images.tensor()))
x = images.tensor(slice(0, 500))
noise = torch.randn_like(x)
steps = torch.arange(0, 300, 10)
losses = []
for s in (steps + 1).double() / 300:
    x_hat = best(un.add_noise(recipe.schedule, x, s, noise), s)
    losses.append(float(((x_hat - x) / recipe.schedule.ratio(s)).abs().mean()))
figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.add_subplot()
axes.plot(steps, losses)
axes.set(xlabel="step t", ylabel="mean |error of epsilon|", ylim=(0, 0.85))
show_figure(figure)

# %% [markdown]
# At early steps the little noise is hard to separate from the image, and the loss is largest; at late steps x_t is nearly all
# noise, and epsilon is easy to predict. So the mean over all t falls fast and then hardly changes, while samples still improve.
