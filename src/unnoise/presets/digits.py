"""scikit-learn's 8x8 handwritten digits, with labels.

Command: unnoise train digits
Hardware: any; the network is sized for it. Time: 1 minute.
Expected: the training loss ends near 0.29 and the digits in samples/ can be read.
"""

from unnoise.data.arrays import Digits
from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.guidance import ClassGuidance
from unnoise.diffusion.samplers import DPMpp2M
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import LogNormalTimes, LogSnrSteps
from unnoise.networks.unet import AutoUNet
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=Digits(), augment=None),
    schedule=Karras(sigma_max=15.0),
    target=EDM(sigma_data=0.0),
    network=AutoUNet(),
    training=TrainingConfig(
        minutes=1.0, batch=0, optimizer="muon", learning_rate=0.0, times=LogNormalTimes(mean=-0.4), sample_every=15.0
    ),
    sampling=SamplingConfig(DPMpp2M(), LogSnrSteps(), steps=6, start="data", guidance=ClassGuidance(1.1)),
)
