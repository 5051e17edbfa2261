"""Which of the models that a training went through is kept as the best, and why a training should end before its planned end.

Neither sign is enough alone: samples become copies before the held-out loss is lowest, and a loss that rises says nothing of
samples (Bonnaire et al. 2025).
"""

from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from unnoise.run_folder import RunFolder


class Candidate(NamedTuple):
    """A model at a preview: whether its samples are copies, its held-out loss, its step; the smallest of these is the best."""

    copies: bool
    loss: float
    step: int

    @classmethod
    def read(cls, folder: RunFolder) -> "Candidate | None":
        """The one whose weights are in best.safetensors; None where there is none that can be read."""
        try:
            with safe_open(folder.best, "pt") as file:
                facts = file.metadata() or {}
            return cls(facts["copies"] == "True", float(facts["loss"]), int(facts["step"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    @property
    def facts(self) -> dict[str, str]:
        """As `read` finds them."""
        return {name: str(value) for name, value in self._asdict().items()}


def stopped_falling(losses: list[float]) -> bool:
    """Whether the lowest of the last third of these is no lower than the lowest before it, by 0.1 %; at least 9 are needed."""
    third = len(losses) // 3
    return third >= 3 and min(losses[-third:]) > 0.999 * min(losses[:-third])
