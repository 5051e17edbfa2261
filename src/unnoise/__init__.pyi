"""The public names, and where each is defined: what `__init__.py` loads lazily, and what type checkers and editors read."""

from .data.arrays import (
    Array as Array,
)
from .data.arrays import (
    Digits as Digits,
)
from .data.arrays import (
    Idx as Idx,
)
from .data.arrays import (
    InMemory as InMemory,
)
from .data.dataset import (
    ImageDataset as ImageDataset,
)
from .data.dataset import (
    Source as Source,
)
from .data.folder import (
    ImageFolder as ImageFolder,
)
from .data.hub import (
    Hub as Hub,
)
from .data.tar import (
    TarShards as TarShards,
)
from .data.torchvision_sets import (
    Cifar10 as Cifar10,
)
from .data.torchvision_sets import (
    FashionMnist as FashionMnist,
)
from .data.torchvision_sets import (
    FgvcAircraft as FgvcAircraft,
)
from .data.torchvision_sets import (
    Mnist as Mnist,
)
from .diffusion.denoiser import (
    EDM as EDM,
)
from .diffusion.denoiser import (
    X0 as X0,
)
from .diffusion.denoiser import (
    Coefficients as Coefficients,
)
from .diffusion.denoiser import (
    Denoiser as Denoiser,
)
from .diffusion.denoiser import (
    Epsilon as Epsilon,
)
from .diffusion.denoiser import (
    FlowVelocity as FlowVelocity,
)
from .diffusion.denoiser import (
    NetworkDenoiser as NetworkDenoiser,
)
from .diffusion.denoiser import (
    Target as Target,
)
from .diffusion.denoiser import (
    Velocity as Velocity,
)
from .diffusion.guidance import (
    AutoGuidance as AutoGuidance,
)
from .diffusion.guidance import (
    ClassGuidance as ClassGuidance,
)
from .diffusion.guidance import (
    Guidance as Guidance,
)
from .diffusion.guidance import (
    NoGuidance as NoGuidance,
)
from .diffusion.loss import (
    L1 as L1,
)
from .diffusion.loss import (
    L2 as L2,
)
from .diffusion.loss import (
    Huber as Huber,
)
from .diffusion.loss import (
    Loss as Loss,
)
from .diffusion.loss import (
    PseudoHuber as PseudoHuber,
)
from .diffusion.loss import (
    diffusion_loss as diffusion_loss,
)
from .diffusion.samplers import (
    DDIM as DDIM,
)
from .diffusion.samplers import (
    DDPM as DDPM,
)
from .diffusion.samplers import (
    Consistency as Consistency,
)
from .diffusion.samplers import (
    DPMpp2M as DPMpp2M,
)
from .diffusion.samplers import (
    DPMpp2MSDE as DPMpp2MSDE,
)
from .diffusion.samplers import (
    DPMpp2S as DPMpp2S,
)
from .diffusion.samplers import (
    Euler as Euler,
)
from .diffusion.samplers import (
    EulerAncestral as EulerAncestral,
)
from .diffusion.samplers import (
    Heun as Heun,
)
from .diffusion.samplers import (
    Sampler as Sampler,
)
from .diffusion.samplers import (
    UniPC as UniPC,
)
from .diffusion.sampling import (
    SamplingConfig as SamplingConfig,
)
from .diffusion.sampling import (
    sample as sample,
)
from .diffusion.sampling import (
    trajectory as trajectory,
)
from .diffusion.schedules import (
    Cosine as Cosine,
)
from .diffusion.schedules import (
    Flow as Flow,
)
from .diffusion.schedules import (
    Karras as Karras,
)
from .diffusion.schedules import (
    Linear as Linear,
)
from .diffusion.schedules import (
    Schedule as Schedule,
)
from .diffusion.schedules import (
    add_noise as add_noise,
)
from .diffusion.timesteps import (
    DiscreteTimes as DiscreteTimes,
)
from .diffusion.timesteps import (
    GivenSteps as GivenSteps,
)
from .diffusion.timesteps import (
    KarrasSteps as KarrasSteps,
)
from .diffusion.timesteps import (
    LeadingSteps as LeadingSteps,
)
from .diffusion.timesteps import (
    LogitNormalTimes as LogitNormalTimes,
)
from .diffusion.timesteps import (
    LogNormalTimes as LogNormalTimes,
)
from .diffusion.timesteps import (
    LogSnrSteps as LogSnrSteps,
)
from .diffusion.timesteps import (
    SamplingTimes as SamplingTimes,
)
from .diffusion.timesteps import (
    TrailingSteps as TrailingSteps,
)
from .diffusion.timesteps import (
    TrainingTimes as TrainingTimes,
)
from .diffusion.timesteps import (
    UniformSteps as UniformSteps,
)
from .diffusion.timesteps import (
    UniformTimes as UniformTimes,
)
from .evaluation.result import (
    Evaluation as Evaluation,
)
from .model import (
    Model as Model,
)
from .networks.base import (
    NetworkConfig as NetworkConfig,
)
from .networks.layers import (
    Style as Style,
)
from .networks.simple_unet import (
    SimpleUnet as SimpleUnet,
)
from .networks.simple_unet import (
    SimpleUnetConfig as SimpleUnetConfig,
)
from .networks.unet import (
    UNet as UNet,
)
from .networks.unet import (
    UNetConfig as UNetConfig,
)
from .presets import (
    PRESETS as PRESETS,
)
from .recipe import (
    Recipe as Recipe,
)
from .recipe import (
    override as override,
)
from .registry import (
    register as register,
)
from .reports.compare import (
    Comparison as Comparison,
)
from .reports.compare import (
    compare as compare,
)
from .restoration.noise import (
    CameraNoise as CameraNoise,
)
from .restoration.noise import (
    CorrelatedNoise as CorrelatedNoise,
)
from .restoration.noise import (
    GaussianNoise as GaussianNoise,
)
from .restoration.noise import (
    Noise as Noise,
)
from .restoration.noise import (
    PoissonNoise as PoissonNoise,
)
from .restoration.noise import (
    SpeckleNoise as SpeckleNoise,
)
from .restoration.operators import (
    Blur as Blur,
)
from .restoration.operators import (
    Custom as Custom,
)
from .restoration.operators import (
    Downsample as Downsample,
)
from .restoration.operators import (
    Grey as Grey,
)
from .restoration.operators import (
    Identity as Identity,
)
from .restoration.operators import (
    Mask as Mask,
)
from .restoration.operators import (
    Operator as Operator,
)
from .restoration.operators import (
    Signs as Signs,
)
from .restoration.posteriors import (
    DDNM as DDNM,
)
from .restoration.posteriors import (
    DPS as DPS,
)
from .restoration.posteriors import (
    MMPS as MMPS,
)
from .restoration.posteriors import (
    DiffPIR as DiffPIR,
)
from .restoration.posteriors import (
    Measurement as Measurement,
)
from .restoration.posteriors import (
    Posterior as Posterior,
)
from .restoration.posteriors import (
    Spectral as Spectral,
)
from .restoration.restore import (
    Restored as Restored,
)
from .runs.api import (
    distill as distill,
)
from .runs.api import (
    load as load,
)
from .runs.api import (
    read_image as read_image,
)
from .runs.api import (
    resume as resume,
)
from .runs.api import (
    train as train,
)
from .runs.api import (
    write_image as write_image,
)
from .runs.evaluate import (
    evaluate as evaluate,
)
from .runs.report import (
    report as report,
)
from .training.config import (
    TrainingConfig as TrainingConfig,
)
from .training.consistency import (
    ConsistencyTuning as ConsistencyTuning,
)
from .training.fit import (
    fit as fit,
)
from .training.matching import (
    DistributionMatching as DistributionMatching,
)
from .training.objective import (
    Objective as Objective,
)
from .training.objective import (
    Teacher as Teacher,
)
from .utils.errors import (
    UserError as UserError,
)

__version__: str
