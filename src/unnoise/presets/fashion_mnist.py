"""Fashion-MNIST, 28x28, with labels.

Command: unnoise train fashion-mnist --root DIR [--download]
Hardware: any; the network is sized for it. Time: 5 minutes.
Expected: the training loss ends near 0.18 and nearly all garments in samples/ can be recognised (docs/performance.md).
"""

from unnoise.data.sources import DataConfig
from unnoise.data.torchvision_sets import FashionMnist
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.guidance import ClassGuidance
from unnoise.diffusion.samplers import DPMpp2MSDE
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import KarrasSteps, LogNormalTimes
from unnoise.networks.unet import AutoUNet
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=FashionMnist(), augment=None),
    schedule=Karras(sigma_max=30.0),
    target=EDM(sigma_data=0.0),
    network=AutoUNet(),
    training=TrainingConfig(
        minutes=5.0, batch=0, optimizer="muon", learning_rate=0.0, times=LogNormalTimes(mean=-0.4), sample_every=60.0
    ),
    sampling=SamplingConfig(DPMpp2MSDE(), KarrasSteps(), steps=10, start="data", guidance=ClassGuidance(1.25)),
)
