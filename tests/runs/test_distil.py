"""Students: a run like any other, exact in what it repeats, and its teacher where means are needed."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unnoise as un
from tests.conftest import quiet, small
from tests.launch import finish, launch
from unnoise.data.dataset import ImageDataset
from unnoise.data.pixels import from_uint8
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras, Schedule
from unnoise.model import Model
from unnoise.recipe import override
from unnoise.run_folder import RunFolder
from unnoise.runs.distil import METHODS, begin_student, divide_budget
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.runs.student import choose_times
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError

GUIDANCE: list[tuple[un.Guidance, float | None]] = [  # of a run's sampling, and what is asked for
    (un.NoGuidance(), None), (un.ClassGuidance(1.3), None), (un.ClassGuidance(1.3), 1.0), (un.ClassGuidance(1.3), 2.0),
    (un.AutoGuidance(1.25), None), (un.AutoGuidance(1.25), None),
]  # fmt: skip


@pytest.fixture(scope="module")
def student(small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 6 steps; not to be changed."""
    folder = tmp_path_factory.mktemp("student") / "r"
    run = begin_student(small_run.folder.path, folder, steps=6, say=quiet)
    list(run.train())
    run.finish()
    return folder


def stopped(run: Trainer, step: int) -> None:
    for record in (records := run.train()):
        if record.step == step:
            records.close()
            break


def test_a_student_is_a_run(student: Path, small_run: Trainer) -> None:
    info = RunFolder.open(student).read_info()
    assert info.from_run == small_run.folder.path.name and info.recipe.training.objective == un.DistributionMatching()
    sampling = info.recipe.sampling
    assert isinstance(sampling.sampler, un.Consistency) and isinstance(sampling.times, un.GivenSteps)
    assert sampling.times.ratios == (1.4, 0.7, 0.35) and sampling.steps == 2
    model = un.load(student)
    images = [model.sample(3, steps=steps) for steps in (1, 2, 3, 4)]
    assert len({x.tobytes() for x in images}) == 4 and np.array_equal(images[sampling.steps - 1], model.sample(3))
    with pytest.raises(UserError, match="for at most 4 steps, not 5"):
        model.sample(3, steps=5)
    x = model.sample(3, steps=3, output="tensor")
    torch.testing.assert_close(model.sample(3, steps=3, output="tensor", batch=2), x, rtol=0, atol=1e-5)
    assert len(model.image_to_image(x[:1], 0.5, range(2))) == 2


def test_means_are_the_teachers(student: Path, small_run: Trainer) -> None:
    """Restoring, inverting and bits per dimension need the mean, which a student's estimate is not."""
    model, teacher = un.load(student), un.load(small_run.folder.path)
    y = from_uint8(np.full((1, 8, 8, 1), 90, np.uint8))
    ours, theirs = (m.restore(y, noise=un.GaussianNoise(30), samples=2, label="3").mean for m in (model, teacher))
    assert torch.equal(ours, theirs) and torch.equal(model.invert(y), teacher.invert(y))
    assert model.mean_model is not model and teacher.mean_model is teacher
    with pytest.raises(UserError, match="can't be guided: guidance is given when it is distilled"):
        model.sample(1, sampling=replace(model.info.recipe.sampling, guidance=un.ClassGuidance(2.0)))
    alone = replace(model, folder=None)
    with pytest.raises(UserError, match="can only sample: give the whole run"):
        alone.restorer()


@pytest.mark.parametrize("stop", [0, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_student_resumes_exactly(
    tmp_path: Path, small_run: Trainer, method: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the first checkpoint, when only its teacher's weights are there, and after one."""
    monkeypatch.setattr("unnoise.runs.trainer.choose_times", lambda *_: None)  # seconds each
    teacher = small_run.folder.path
    list(begin_student(teacher, tmp_path / "whole", steps=8, guidance=1.5, say=quiet, method=method).train())
    broken = begin_student(teacher, tmp_path / "broken", steps=8, guidance=1.5, say=quiet, method=method)
    if stop:
        stopped(broken, stop)
    broken.lock.release()
    assert [r.step for r in resume(tmp_path / "broken", quiet).train()] == [*range(stop + 1, 9)]
    last = tmp_path / "whole" / "checkpoints" / "000008"
    assert (last / "critic.safetensors").exists() == (method == "matching")
    for name in ("model.safetensors", *(f"checkpoints/000008/{path.name}" for path in last.glob("*.safetensors"))):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_train_the_same_student(tmp_path: Path, small_run: Trainer, processes: int) -> None:
    teacher = str(small_run.folder.path)
    one = begin_student(teacher, tmp_path / "one", steps=6, guidance=1.5, say=quiet)
    list(one.train())
    arguments = ["distill", teacher, "--steps", "6", "--guidance", "1.5", "--run", str(tmp_path / "several")]
    process = launch("unnoise", *arguments, processes=processes)
    said = finish(process)
    assert process.returncode == 0, said
    expected, found = (RunFolder(tmp_path / name).read_losses() for name in ("one", "several"))
    assert expected is not None and found is not None
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)


def test_what_can_not_be_distilled(student: Path, small_run: Trainer, tmp_path: Path) -> None:
    teacher, out = small_run.folder.path, tmp_path / "out"
    with pytest.raises(UserError, match="is a student itself"):
        begin_student(student, out, steps=2, say=quiet)
    with pytest.raises(UserError, match="needs a budget: give `minutes` or `steps`"):
        begin_student(teacher, out, say=quiet)
    with pytest.raises(UserError, match="holds a run already"):
        begin_student(teacher, student, steps=2, say=quiet)
    with pytest.raises(UserError, match="scale of guidance must be at least 0"):
        begin_student(teacher, out, steps=2, guidance=-1.0, say=quiet)
    with pytest.raises(UserError, match="unknown method 'matchng': did you mean 'matching'"):
        begin_student(teacher, out, steps=2, method="matchng", say=quiet)
    unlabelled = tmp_path / "unlabelled"
    shutil.copytree(teacher, unlabelled)
    info = RunFolder(unlabelled).read_info()
    always = replace(info.recipe, training=replace(info.recipe.training, label_dropout=0.0))
    replace(info, recipe=always).save(unlabelled / "recipe.json")
    with pytest.raises(UserError, match="class guidance needs a network that was trained without labels too"):
        begin_student(unlabelled, out, steps=2, guidance=1.5, say=quiet)
    with pytest.raises(UserError, match="is for students of another run"):
        begin(out, small(training__steps=2, training__objective="consistency"), quiet)
    with pytest.raises(UserError, match="is a student, which only goes on as one"):
        un.train("digits", steps=2, out=out, from_run=student, progress=False)
    assert not out.exists()
    guided = un.TrainingConfig(steps=1, objective=un.ConsistencyTuning(un.ClassGuidance(2.0)))
    with pytest.raises(UserError, match="ConsistencyTuning learns from a teacher here"):
        next(un.fit(small().build_denoiser((1, 8, 8), 10), "digits", config=guided))


def test_guidance_is_that_of_the_teachers_sampling_by_default(small_run: Trainer, tmp_path: Path) -> None:
    run, said = tmp_path / "run", list[str]()
    shutil.copytree(small_run.folder.path, run)
    info, objectives = RunFolder(run).read_info(), list[object]()
    for k, (own, given) in enumerate(GUIDANCE):
        recipe = replace(info.recipe, sampling=replace(info.recipe.sampling, guidance=own))
        replace(info, recipe=recipe).save(run / "recipe.json")
        if k == len(GUIDANCE) - 1:
            (run / "guide.safetensors").unlink()
        student = begin_student(run, tmp_path / f"student{k}", steps=2, guidance=given, say=said.append)
        student.lock.release()
        objective = student.config.objective
        assert isinstance(objective, un.DistributionMatching)
        objectives.append(objective.guidance)
    plain, by_class, auto = un.NoGuidance(), un.ClassGuidance(1.3), un.AutoGuidance(1.25)
    assert objectives == [plain, by_class, plain, un.ClassGuidance(2.0), auto, plain]
    assert sum("the student learns the guidance with which its teacher samples" in line for line in said) == 2
    assert sum("learns no guidance, since its teacher has no early average yet" in line for line in said) == 1


KINDS: list[dict[str, Any]] = [
    {"network": "simple-unet", "network.widths": [16, 32], "data.labels": False},
    {"data.labels": False},
    {"schedule": "linear", "schedule.timesteps": 50},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_every_kind_of_run_has_students(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Networks without augmentation labels, with statistics of batches; no classes; a schedule that ends short of noise."""
    teacher = begin(tmp_path / "teacher", override(small(training__steps=2), changes), quiet)
    list(teacher.train())
    student = begin_student(tmp_path / "teacher", steps=2, say=quiet)
    list(student.train())
    student.finish()
    objective = student.config.objective
    assert isinstance(objective, un.DistributionMatching) and objective.tell_critic == ("network" not in changes)
    assert un.load(tmp_path / "teacher-fast").sample(3).shape == (3, 8, 8, 1)


def test_a_budget_is_divided() -> None:
    teacher, student = divide_budget(small(training__minutes=10.0, training__steps=101))
    assert (teacher.training.minutes or 0) + (student[0] or 0) == 10 and (teacher.training.steps or 0) + (student[1] or 0) == 101
    assert divide_budget(small(training__steps=1))[1] == (None, 1)
    for changes in ({"training__steps": None}, {"training__epochs": 3}):
        with pytest.raises(UserError, match="divides a number of minutes or steps"):
            divide_budget(small(**changes))


class RightAt(Denoiser):
    """Gives images of the data where the noise level is `ratio`, grey ones elsewhere."""

    def __init__(self, schedule: Schedule, images: Tensor, ratio: float) -> None:
        super().__init__()
        self.schedule, self.images, self.ratio = schedule, images, ratio

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        right = abs(float(self.schedule.ratio(t)) / self.ratio - 1) < 1e-3
        return self.images[: len(x_t)] if right else torch.zeros_like(x_t)


@pytest.fixture
def pixels() -> Iterator[np.ndarray]:
    yield np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)


def test_times_are_found_where_samples_are_best(small_run: Trainer, pixels: np.ndarray) -> None:
    x, schedule = from_uint8(pixels), Karras(15.0)
    recipe = replace(small_run.info.recipe, sampling=SamplingConfig(un.Consistency(), un.GivenSteps(), 2, start="data"))
    info = replace(small_run.info, recipe=replace(recipe, schedule=schedule))
    for ratio in (2.0, 0.7):
        model = Model(RightAt(schedule, x, ratio), info, moments=Moments.measure(x))
        found = choose_times(model, ImageDataset(pixels), 60, 0)
        assert found is not None and found[0][0] == ratio and found[1] == 2
        assert sorted(found[0], reverse=True) == list(found[0]) and len(found[0]) == 3
    one_call = Model(RightAt(schedule, x, 15.0), info, moments=Moments.measure(x))
    found = choose_times(one_call, ImageDataset(pixels), 60, 0)
    assert found is not None and found[1] == 1
    assert choose_times(replace(model, moments=None), ImageDataset(pixels), 60, 0) is None
