"""unnoise: train a diffusion model from scratch on your own images, sample from it, restore images with it.

    import unnoise as un
    run = un.train("my/photos", size=64, minutes=60)
    images = un.load("runs/photos").sample(16)                  # uint8 (N, H, W, C)

Names are loaded when they are first used: importing the package alone loads nothing heavy.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "api": "train resume load read_image write_image",
    "training.fit": "fit",
    "diffusion.sampling": "sample trajectory SamplingConfig",
    "registry": "register",
    "recipe": "Recipe override",
    "model": "Model",
    "presets": "PRESETS",
    "training.config": "TrainingConfig",
    "diffusion.denoiser": "Denoiser NetworkDenoiser Target Epsilon X0 Velocity FlowVelocity EDM",
    "diffusion.schedules": "Schedule Linear Cosine Karras Flow add_noise",
    "diffusion.timesteps": "TrainingTimes UniformTimes DiscreteTimes LogNormalTimes LogitNormalTimes "
                           "SamplingTimes UniformSteps LeadingSteps TrailingSteps KarrasSteps LogSnrSteps",
    "diffusion.loss": "Loss L1 L2 Huber diffusion_loss",
    "diffusion.samplers": "Sampler DDPM DDIM Euler EulerAncestral Heun DPMpp2S DPMpp2M DPMpp2MSDE UniPC",
    "diffusion.guidance": "Guidance NoGuidance ClassGuidance AutoGuidance",
    "networks.base": "NetworkConfig",
    "networks.unet": "UNet UNetConfig",
    "networks.simple_unet": "SimpleUnet SimpleUnetConfig",
    "networks.layers": "Style",
    "data.dataset": "ImageDataset Source",
    "data.folder": "ImageFolder",
    "data.arrays": "Array Digits Idx InMemory",
    "data.tar": "TarShards",
    "data.hub": "Hub",
    "data.torchvision_sets": "Cifar10 FashionMnist FgvcAircraft Mnist",
    "restoration.operators": "Operator Identity Custom Mask Downsample Blur Grey Signs",
    "restoration.noise": "Noise GaussianNoise PoissonNoise SpeckleNoise CameraNoise",
    "restoration.posteriors": "Measurement Posterior MMPS Spectral DiffPIR DDNM DPS",
    "restoration.restore": "Restored",
    "utils.errors": "UserError",
}  # fmt: skip
_MODULES = {name: f"unnoise.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'unnoise' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
