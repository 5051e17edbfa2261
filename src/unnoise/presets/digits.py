"""scikit-learn's 8x8 handwritten digits, with labels.

Command: unnoise train digits
Hardware: two CPU cores with bf16 instructions. Time: 1 minute, about 750 steps.
Expected: the training loss ends near 0.29 and the digits in drawn-grid.png can be read.
"""

from unnoise.data.local import Digits
from unnoise.data.sources import DataPlan
from unnoise.denoiser import KarrasTarget
from unnoise.network.unet import UNetPlan
from unnoise.noise import KarrasSchedule
from unnoise.plan import TrainingPlan
from unnoise.recipe import Recipe
from unnoise.sampler import Sampling
from unnoise.solvers import DPMSolver2MSDE
from unnoise.times import KarrasSteps, LogNormalTimes

recipe = Recipe(
    data=DataPlan(source=Digits()),
    schedule=KarrasSchedule(sigma_max=15.0),
    target=KarrasTarget(sigma_data=0.75),
    network=UNetPlan(widths=(64, 128)),
    training=TrainingPlan(minutes=1.0, batch=32, times=LogNormalTimes(mean=-0.4), sample_every=15.0),
    sampling=Sampling(DPMSolver2MSDE(), KarrasSteps(), steps=15),
)
