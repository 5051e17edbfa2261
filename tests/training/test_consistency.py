"""Consistency tuning against flows that are known: of Gaussian pixels in closed form, of a mixture by the ODE of its denoiser."""

import pytest
import torch
from torch import Tensor, nn

from tests.diffusion.oracles import GaussianPixels, MixturePixels
from tests.training.pixels import PixelNetwork, batch_of, gaussian, mixture
from unnoise.diffusion.denoiser import EDM, Denoiser, NetworkDenoiser, Target, Velocity
from unnoise.diffusion.guidance import ClassGuidance, ClassGuided
from unnoise.diffusion.loss import L2, Loss, PseudoHuber
from unnoise.diffusion.samplers import Heun
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Cosine, Karras, Schedule, per_image
from unnoise.diffusion.timesteps import LogSnrSteps
from unnoise.training.consistency import ConsistencyTuning
from unnoise.training.objective import Teacher
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

SCHEDULES: list[tuple[Schedule, Target]] = [(Karras(10.0), EDM(0.5)), (Cosine(alpha_end=0.1), Velocity())]


class FlowStudent(Denoiser):
    """Where the flow of Gaussian pixels ends, with mean and standard deviation that can be learned."""

    def __init__(self, schedule: Schedule, mean: float, std: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.mean, self.std = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (mean, std))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        alpha, sigma = (per_image(s, x_t) for s in (self.schedule.alpha(t), self.schedule.sigma(t)))
        return self.mean + self.std * (x_t - alpha * self.mean) * ((alpha * self.std) ** 2 + sigma**2).rsqrt()


@pytest.mark.parametrize(("schedule", "target"), SCHEDULES, ids=["karras", "cosine"])
@pytest.mark.parametrize("loss", [L2(), PseudoHuber()], ids=["l2", "pseudo-huber"])
def test_an_exact_student_stays(schedule: Schedule, target: Target, loss: Loss) -> None:
    """The gradient vanishes at the true mean and standard deviation, and leads back to them from others."""
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(schedule, gaussian(50_000, generator).double(), generator)
    objective = ConsistencyTuning(first_gap=0.004, last_gap=0.004)

    def gradient(mean: float, std: float) -> Tensor:
        student = FlowStudent(schedule, mean, std)
        objective(student, batch, loss, 0.0, None).mean().backward()
        assert student.mean.grad is not None and student.std.grad is not None
        return torch.stack([student.mean.grad, student.std.grad])

    exact, above, below = gradient(0.3, 0.5), gradient(0.35, 0.55), gradient(0.25, 0.45)
    assert (above > 0).all() and (below < 0).all()
    assert (exact.abs() < 0.1 * torch.minimum(above, -below)).all()


def end_of_flow(denoiser: Denoiser, x: Tensor) -> Tensor:
    sampling = SamplingConfig(Heun(), LogSnrSteps(), 60, clamp_estimate=False)
    for record in trajectory(denoiser, x, sampling, BatchRng(0, [])):
        x = record.x
    return x


CASES = [(gaussian, GaussianPixels), (mixture, MixturePixels)]


@pytest.mark.parametrize(("sample", "teacher"), CASES, ids=["gaussian", "mixture"])
def test_one_call_is_the_end_of_the_flow(sample: type, teacher: type) -> None:
    """A student of a few seconds, from random weights: within 0.04 (root mean square) for Gaussian pixels, 0.16 for a mixture."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = NetworkDenoiser(PixelNetwork(), schedule, EDM(0.6))
    optimizer, steps, objective = torch.optim.Adam(student.parameters(), 3e-3), 600, ConsistencyTuning()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        batch = batch_of(schedule, sample(512, generator), generator)
        optimizer.zero_grad()
        objective(student, batch, PseudoHuber(), step / steps, None).mean().backward()
        optimizer.step()
    x = schedule.sigma_max * torch.randn(4096, 1, 2, 2, generator=generator).double() + sample(4096, generator)
    with torch.no_grad():
        exact = end_of_flow(teacher(schedule), x)
        errors = [(f(x.float(), torch.ones(())) - exact).square().mean().sqrt() for f in (student, teacher(schedule))]
    assert float(errors[0]) < (0.04 if sample is gaussian else 0.16) and float(errors[1]) > 0.4


def test_the_gap_shrinks_and_begins_as_denoising() -> None:
    objective, ratio = ConsistencyTuning(), torch.tensor([0.01, 0.5, 1.0, 10.0])
    first, later, last = (objective.lower(ratio, progress) for progress in (0.0, 0.5, 1.0))
    assert first[:3].tolist() == [0, 0, 0] and float(first[3]) == pytest.approx(5, rel=0.01)
    assert (first <= later).all() and (later <= last).all() and (last < ratio).all()
    assert float(last[3]) == pytest.approx(9.5, rel=0.01) and float(last[0]) == pytest.approx(0.01 * 0.75, rel=0.01)
    assert torch.equal(last, objective.lower(ratio, 0.9))
    for gaps in ((0.0, 0.0), (0.1, 0.2), (1.5, 0.1)):
        with pytest.raises(UserError, match="gaps are fractions"):
            ConsistencyTuning(first_gap=gaps[0], last_gap=gaps[1])


class LabelledPixels(Denoiser):
    """Gaussian pixels of mean 0.4 with label 1, -0.4 with label 0, 0 without."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.own = schedule, [GaussianPixels(schedule, mean, 0.3) for mean in (0.0, -0.4, 0.4)]

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        assert label is not None
        all_of_them = torch.stack([denoiser(x_t, t) for denoiser in self.own])
        return all_of_them[label + 1, torch.arange(len(label))]


def test_guidance_moves_what_the_student_learns() -> None:
    """Where the gap is all of t the student's estimate is drawn to the image moved by what guidance moves the teacher's."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    label = torch.tensor([1, 0, -1]).repeat(4)
    batch = batch_of(schedule, gaussian(12, generator).double(), generator, label)
    teacher = LabelledPixels(schedule)
    guided = ClassGuided(teacher, ClassGuidance(2.5))
    x_t = batch.x + per_image(schedule.sigma(batch.t), batch.x) * batch.noise
    shift = guided(x_t, batch.t, label) - teacher(x_t, batch.t, label)
    assert float(shift[label >= 0].abs().min()) > 0 and not shift[label < 0].any()
    objective, ratio = ConsistencyTuning(ClassGuidance(2.5), first_gap=1.0), schedule.ratio(batch.t)
    found = objective(teacher, batch, L2(), 0.0, Teacher(guided))
    expected = (teacher(x_t, batch.t, label) - batch.x - shift).square().flatten(1).mean(1) / ratio
    torch.testing.assert_close(found, expected)
