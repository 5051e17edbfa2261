"""Your own pictures: a folder or an .npz, at 64x64 unless --size says otherwise.

Command: unnoise train pictures --data DIR --minutes 60
Hardware: two CPU cores or better; the longer the better.
"""

from unnoise.data.local import Folder
from unnoise.data.sources import DataPlan
from unnoise.denoiser import KarrasTarget
from unnoise.network.blocks import Style
from unnoise.network.unet import UNetPlan
from unnoise.noise import KarrasSchedule
from unnoise.plan import TrainingPlan
from unnoise.recipe import Recipe
from unnoise.sampler import Sampling
from unnoise.solvers import DPMSolver2MSDE
from unnoise.times import KarrasSteps, LogNormalTimes

recipe = Recipe(
    data=DataPlan(source=Folder(), size=(64, 64), flip=True),
    schedule=KarrasSchedule(sigma_max=80.0),
    target=KarrasTarget(sigma_data=0.5),
    network=UNetPlan(widths=(64, 128, 192), blocks=1, patch=2, style=Style(dropout=0.1)),
    training=TrainingPlan(minutes=60.0, batch=32, learning_rate=1.5e-3, times=LogNormalTimes(mean=-1.2), sample_every=120.0),
    sampling=Sampling(DPMSolver2MSDE(), KarrasSteps(), steps=15),
)
