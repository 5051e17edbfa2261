"""CIFAR-10, 32x32 in colour, with labels, on one GPU.

Command: unnoise train cifar10 --root DIR [--download]
Hardware: one GPU. Time: 144 minutes; --minutes 576 is the contest's longer budget.
Expected: not run yet, no GPU was at hand. The goal is that of the public contest on a single RTX 5090: a FID of 5.0 in 2.4 hours,
3.1 in 9.6 (50,000 samples against the training images, labels in turn).

EDM's settings for this set (Karras et al. 2022, appendix F) on a smaller network: Heun's method in 18 steps, 35 calls; flips,
augmentation .12, dropout .13, Adam at 1e-3. The batch size is measured, and so is whether bf16 and compiled code pay.
"""

from unnoise.data.sources import DataConfig
from unnoise.data.torchvision_sets import Cifar10
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.samplers import Heun
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import KarrasSteps, LogNormalTimes
from unnoise.networks.layers import Style
from unnoise.networks.unet import UNetConfig
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=Cifar10(), flip=True, augment=0.12),
    schedule=Karras(sigma_max=80.0),
    target=EDM(sigma_data=0.5),
    network=UNetConfig(widths=(128, 256, 256), blocks=2, embedding=512, attention_tokens=256, style=Style(dropout=0.13)),
    training=TrainingConfig(
        minutes=144.0,
        batch=0,
        optimizer="adam",
        learning_rate=1e-3,
        beta2=0.999,
        warmup=1000,
        times=LogNormalTimes(mean=-1.2),
        sample_every=300.0,
        snapshots=16,
        extra_ema=(0.05,),
    ),
    sampling=SamplingConfig(Heun(), KarrasSteps(), steps=18),
)
