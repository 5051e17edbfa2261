"""The objectives by name."""

from unnoise.training.consistency import ConsistencyTuning
from unnoise.training.matching import DistributionMatching
from unnoise.training.objective import Denoising, Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "denoising": Denoising,
    "consistency": ConsistencyTuning,
    "matching": DistributionMatching,
}
