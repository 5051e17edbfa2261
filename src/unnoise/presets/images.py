"""Your own images: a folder or an .npz, at their own size, but 64 at most unless --size says otherwise.

Command: unnoise train DIR [--minutes 60]
Hardware: any; the network is sized for it. The longer the better; without --minutes until Ctrl-C.
"""

from unnoise.data.folder import ImageFolder
from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.guidance import AutoGuidance
from unnoise.diffusion.samplers import DPMpp2MSDE
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import LogNormalTimes, LogSnrSteps
from unnoise.networks.unet import AutoUNet
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=ImageFolder(), augment=None),
    schedule=Karras(sigma_max=80.0),
    target=EDM(sigma_data=0.0),
    network=AutoUNet(),
    training=TrainingConfig(
        batch=0,
        optimizer="muon",
        learning_rate=0.0,
        times=LogNormalTimes(mean=-1.2),
        sample_every=120.0,
        snapshots=16,
        extra_ema=(0.05,),
    ),
    sampling=SamplingConfig(DPMpp2MSDE(), LogSnrSteps(sigma_min=0.03), steps=10, guidance=AutoGuidance(1.25), start="data"),
)
