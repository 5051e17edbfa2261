"""Fashion-MNIST, 28x28, with labels.

Command: unnoise train fashion-mnist --root DIR [--download]
Hardware: two CPU cores with bf16 instructions. Time: 5 minutes.
"""

from unnoise.data.sources import DataPlan
from unnoise.data.torchvision_sets import FashionMnist
from unnoise.denoiser import KarrasTarget
from unnoise.network.unet import UNetPlan
from unnoise.noise import KarrasSchedule
from unnoise.plan import TrainingPlan
from unnoise.recipe import Recipe
from unnoise.sampler import Sampling
from unnoise.solvers import DPMSolver2MSDE
from unnoise.times import KarrasSteps, LogNormalTimes

recipe = Recipe(
    data=DataPlan(source=FashionMnist()),
    schedule=KarrasSchedule(sigma_max=30.0),
    target=KarrasTarget(sigma_data=0.71),
    network=UNetPlan(widths=(64, 128), patch=2),
    training=TrainingPlan(minutes=5.0, batch=32, times=LogNormalTimes(mean=-0.4), sample_every=60.0),
    sampling=Sampling(DPMSolver2MSDE(), KarrasSteps(), steps=15),
)
