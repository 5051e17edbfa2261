"""Distribution matching against what is known in closed form, and students of a few seconds held against it."""

import pytest
import torch
from torch import Tensor, nn

from tests.diffusion.oracles import GaussianPixels, MixturePixels
from tests.training.pixels import PixelNetwork, batch_of, gaussian, mixture
from unnoise.diffusion.denoiser import EDM, Denoiser, NetworkDenoiser
from unnoise.diffusion.guidance import ClassGuidance, ClassGuided
from unnoise.diffusion.loss import L2
from unnoise.diffusion.schedules import Cosine, Karras, Schedule, per_image
from unnoise.training.matching import DistributionMatching
from unnoise.training.objective import Teacher
from unnoise.utils.errors import UserError

SCHEDULES: list[Schedule] = [Karras(10.0), Cosine(alpha_end=0.1)]
ONE_CALL, TWO_CALLS = DistributionMatching(levels=()), DistributionMatching()


class GaussianStudent(Denoiser):
    """Samples pixels of N(mean, std^2) in one call, from noise of any level; both can be learned."""

    def __init__(self, schedule: Schedule, data: GaussianPixels, mean: float, std: float) -> None:
        super().__init__()
        self.schedule, self.data = schedule, data
        self.mean, self.std = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (mean, std))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        alpha, sigma = (per_image(s, x_t) for s in (self.schedule.alpha(t), self.schedule.sigma(t)))
        z = (x_t - alpha * self.data.mean) * ((alpha * self.data.std) ** 2 + sigma**2).rsqrt()
        return self.mean + self.std * z


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["karras", "cosine"])
@pytest.mark.parametrize("objective", [ONE_CALL, TWO_CALLS], ids=["one call", "two calls"])
def test_an_exact_student_stays(schedule: Schedule, objective: DistributionMatching) -> None:
    """With a critic that is exact the gradient vanishes at the images' own mean and deviation, and leads back from others."""
    generator, teacher = torch.Generator().manual_seed(0), GaussianPixels(schedule)
    batch = batch_of(schedule, gaussian(20_000, generator).double(), generator, extra_noise=objective.extra_noise)

    def gradient(mean: float, std: float) -> Tensor:
        student = GaussianStudent(schedule, teacher, mean, std)
        critic = GaussianPixels(schedule, mean, std)
        objective(student, batch, L2(), 0.0, Teacher(teacher, critic)).mean().backward()
        assert student.mean.grad is not None and student.std.grad is not None
        return torch.stack([student.mean.grad, student.std.grad])

    assert not gradient(0.3, 0.5).any()
    assert (gradient(0.35, 0.55) > 0).all() and (gradient(0.25, 0.45) < 0).all()


def test_the_gradient_is_the_difference_of_the_estimates() -> None:
    """Divided by the sample's distance from the teacher's; the critic's loss is that of denoising the samples."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    batch = batch_of(schedule, gaussian(6, generator).double(), generator, extra_noise=1)
    teacher, critic = GaussianPixels(schedule), GaussianPixels(schedule, -0.1, 0.7)
    sample = torch.randn(6, 1, 2, 2, generator=generator).double().requires_grad_()

    class Always(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
            assert (t == 1).all()
            return sample

    model = Always()
    model.schedule = schedule
    assert batch.extra_noise is not None
    x = sample.detach()
    x_t = x + per_image(schedule.sigma(batch.t), x) * batch.extra_noise[:, 0]
    theirs, ours = teacher(x_t, batch.t), critic(x_t, batch.t)
    direction = (ours - theirs) / (x - theirs).abs().mean((1, 2, 3), keepdim=True)
    found = ONE_CALL(model, batch, L2(), 0.0, Teacher(teacher, critic))
    torch.testing.assert_close(found, (direction.square() / 2 + (ours - x).square()).flatten(1).mean(1))
    (gradient,) = torch.autograd.grad(found.sum(), sample)
    torch.testing.assert_close(gradient, direction / 4)


class Counting(Denoiser):
    """Gives what comes in divided by 4, and keeps the noise levels at which it was asked."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.asked = schedule, list[Tensor]()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.asked.append(self.schedule.ratio(t))
        return x_t / 4


def test_calls_are_learned_by_turns() -> None:
    """Of three calls a third of the images learns each; before its last one an image was sampled as the student will be."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    objective = DistributionMatching(levels=(2.0, 0.5))
    batch = batch_of(schedule, gaussian(7, generator), generator, extra_noise=objective.extra_noise)
    assert batch.extra_noise is not None
    model = Counting(schedule)
    found = objective.sample(model, batch)
    torch.testing.assert_close(model.asked[-1], torch.tensor([10, 2, 0.5, 10, 2, 0.5, 10]))
    first = (batch.x + 10 * batch.noise) / 4
    second = (first + 2.0 * batch.extra_noise[:, 1]) / 4
    third = (second + 0.5 * batch.extra_noise[:, 2]) / 4
    for turn, expected in enumerate((first, second, third)):
        torch.testing.assert_close(found[turn::3], expected[turn::3])


CASES = [(gaussian, GaussianPixels), (mixture, MixturePixels)]


@pytest.mark.parametrize(("images", "teacher"), CASES, ids=["gaussian", "mixture"])
def test_samples_become_the_teachers(images: type, teacher: type) -> None:
    """A student of some seconds, from random weights: pixels sampled in one call and in two are distributed as the images'.

    In Wasserstein distance within 0.05 for Gaussian pixels, 0.14 for a mixture; the teacher's own one call is more than 0.3 away.
    """
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, critic = (NetworkDenoiser(PixelNetwork(), schedule, EDM(0.6)) for _ in range(2))
    exact = teacher(schedule)
    optimizers, steps = [torch.optim.Adam(m.parameters(), 1e-3) for m in (student, critic)], 600
    for step in range(steps):
        for optimizer, rate in zip(optimizers, (1e-3, 5e-3), strict=True):
            optimizer.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / steps))
            optimizer.zero_grad()
        batch = batch_of(schedule, images(256, generator), generator, extra_noise=TWO_CALLS.extra_noise)
        TWO_CALLS(student, batch, L2(), step / steps, Teacher(exact, critic)).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    batch = batch_of(schedule, images(8192, generator), generator, extra_noise=TWO_CALLS.extra_noise)
    with torch.no_grad():
        sampled = TWO_CALLS.sample(student, batch)
        means = exact(batch.x + 10 * batch.noise, torch.ones(len(batch.x)))
    real = images(4096, generator)
    distances = [float((x.flatten().sort()[0] - real.flatten().sort()[0]).abs().mean()) for x in (sampled[::2], sampled[1::2])]
    assert max(distances) < (0.05 if images is gaussian else 0.14), distances
    assert float((means[::2].flatten().sort()[0] - real.flatten().sort()[0]).abs().mean()) > 0.3


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_pieces_of_a_batch_learn_what_the_whole_does(pieces: int) -> None:
    """Which call an image learns depends on its place in the whole batch, also where a piece is one image."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    batch = batch_of(schedule, gaussian(7, generator).double(), generator, extra_noise=TWO_CALLS.extra_noise)
    torch.manual_seed(0)
    student, critic = (NetworkDenoiser(PixelNetwork(), schedule, EDM(0.6)).double() for _ in range(2))
    teacher = Teacher(GaussianPixels(schedule), critic)
    whole = TWO_CALLS(student, batch, L2(), 0.0, teacher)
    parts = [TWO_CALLS(student, piece, L2(), 0.0, teacher) for piece in batch.split(pieces)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_guidance_is_the_teachers() -> None:
    """The guided teacher is the one whose samples are learned: a critic like it leaves the student as it is."""
    schedule, generator = Karras(10.0), torch.Generator().manual_seed(0)
    label = torch.tensor([1, 0, -1]).repeat(4)
    batch = batch_of(schedule, gaussian(12, generator).double(), generator, label, extra_noise=TWO_CALLS.extra_noise)

    class Labelled(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
            assert label is not None
            return x_t / 4 + 0.1 * label[:, None, None, None]

    teacher, student = Labelled(), GaussianStudent(schedule, GaussianPixels(schedule), 0.0, 1.0)
    teacher.schedule = schedule
    guided = ClassGuided(teacher, ClassGuidance(2.5))
    for critic, same in ((guided, True), (teacher, False)):
        student.zero_grad()
        TWO_CALLS(student, batch, L2(), 0.0, Teacher(guided, critic)).sum().backward()
        assert student.mean.grad is not None and (float(student.mean.grad.abs()) < 1e-12) == same


def test_what_it_refuses() -> None:
    for levels in ((0.5, 1.4), (1.4, 1.4), (1.4, 0.0), tuple(range(8, 0, -1))):
        with pytest.raises(UserError, match="levels are at most 7 falling noise levels above 0"):
            DistributionMatching(levels=levels)
    with pytest.raises(UserError, match="critic_rate must be greater than 0"):
        DistributionMatching(critic_rate=0.0)
