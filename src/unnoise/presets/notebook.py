"""The teaching notebook's own recipe: DDPM on FGVC-Aircraft with its 62-million-parameter SimpleUnet.

Command: unnoise train notebook --root DIR [--download]     (--steps or --minutes cut it short)
Hardware: one GPU for a day or more; 264,000 steps on the union. Two CPU cores make 5 to 10 images a second.
Expected: the notebook printed a loss of 0.81 before training, 0.16 after 5 epochs, 0.06 to 0.07 in the end.

The data differ until asked for: the test split is held out, and the copyright line is cut off. To the letter:
--data.source.union true --data.source.cut-banner false. docs/notebook.md lists every other difference.
"""

from unnoise.data.sources import DataConfig
from unnoise.data.torchvision_sets import FgvcAircraft
from unnoise.diffusion.denoiser import Epsilon
from unnoise.diffusion.loss import L1
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Linear
from unnoise.diffusion.timesteps import DiscreteTimes, UniformSteps
from unnoise.networks.simple_unet import SimpleUnetConfig
from unnoise.recipe import Recipe
from unnoise.training.config import TrainingConfig

recipe = Recipe(
    data=DataConfig(source=FgvcAircraft(), size=(64, 64), resize="squash", labels=False, flip=True),
    schedule=Linear(timesteps=300),
    target=Epsilon(),
    network=SimpleUnetConfig(),
    training=TrainingConfig(
        epochs=4000, batch=150, drop_last=True,
        optimizer="adam", learning_rate=1e-3, beta2=0.999, warmup=0, decay=0.0, clip=0.0, ema=0.0,
        loss=L1(), times=DiscreteTimes(), stratified_times=False,
        sample_count=4, sample_every=600.0,
    ),
    sampling=SamplingConfig(sampler=DDPM(clamp=True), times=UniformSteps(), steps=300, clamp_estimate=False),
)  # fmt: skip
