"""Your own images: a folder or an .npz, at 64x64 unless --size says otherwise.

Command: unnoise train images --data DIR --minutes 60
Hardware: two CPU cores or better; the longer the better.
"""

from unnoise.data.folder import ImageFolder
from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.samplers import DPMpp2MSDE
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import KarrasSteps, LogNormalTimes
from unnoise.networks.layers import Style
from unnoise.networks.unet import UNetConfig
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=ImageFolder(), size=(64, 64), flip=True),
    schedule=Karras(sigma_max=80.0),
    target=EDM(sigma_data=0.5),
    network=UNetConfig(widths=(64, 128, 192), blocks=1, patch=2, style=Style(dropout=0.1)),
    training=TrainingConfig(minutes=60.0, batch=32, learning_rate=1.5e-3, times=LogNormalTimes(mean=-1.2), sample_every=120.0),
    sampling=SamplingConfig(DPMpp2MSDE(), KarrasSteps(), steps=15),
)
