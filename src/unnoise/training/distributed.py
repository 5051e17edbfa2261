"""A model over several processes: replicated (DDP) or sharded (FSDP2), and state dicts that are whole wherever shards lie.

Gathering is torch.distributed.checkpoint's (DCP): full tensors, on the CPU of the first process alone. What is not sharded
needs no gathering, and its import, half a second, is spared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unnoise.diffusion.denoiser import Denoiser
from unnoise.training.optimizers import Muon


class Replicated(Denoiser):
    """A denoiser of which each process has a copy: gradients are averaged over all of them while they are computed.

    Without gradients it is the copy alone, so that processes may call it as often as each needs.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        # A network may have parts that this training does not use (labels, augmentation).
        self.replica, self.schedule = DistributedDataParallel(denoiser, find_unused_parameters=True), denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        copies = self.replica if torch.is_grad_enabled() else self.replica.module
        x_hat: Tensor = copies(x_t, t, label, **cond)
        return x_hat

    def output_scale(self, t: Tensor) -> Tensor:
        scale: Tensor = self.replica.module.output_scale(t)
        return scale


def shard(model: nn.Module, unit: type[nn.Module]) -> None:
    """Keep only this process's shard of each weight (FSDP2); modules of type `unit` are gathered one at a time."""
    from torch.distributed.fsdp import fully_shard

    model.to(memory_format=torch.contiguous_format)  # the only one that it takes
    for module in [m for m in model.modules() if isinstance(m, unit)] + [model]:
        fully_shard(module, reshard_after_forward=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which each process has a shard."""
    return hasattr(tensor, "placements")


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all of its shards. All processes call it together."""
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return whole


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU. Where the model is sharded all processes call it together, and only the first gets it."""
    if not _has_shards(model):
        return {name: value.detach().cpu() for name, value in model.state_dict().items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return dict(state)


def load_state_dict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a full state dict, which every process has, into a model that may be sharded."""
    if not _has_shards(model):
        model.load_state_dict(dict(state))
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True))


def named_parameters(model: nn.Module, critic: nn.Module | None = None) -> dict[str, nn.Parameter]:
    """All that optimizers change, by name; before those of a critic stands `critic.`."""
    return dict(model.named_parameters()) | ({} if critic is None else dict(critic.named_parameters("critic")))


def full_optimizer_state(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer],
                         critic: nn.Module | None = None) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    """Of each parameter, by its name, the tensors of its optimizer's state; as `full_state_dict` for the rest.

    Where the model is sharded there is no critic.
    """
    if not _has_shards(model):
        names = {id(p): name for name, p in named_parameters(model, critic).items()}
        found = {names[id(p)]: values for o in optimizers for p, values in o.state.items()}
        return {name: {k: v.cpu() for k, v in values.items()} for name, values in found.items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_optimizer_state_dict(model, tuple(optimizers), options=options)
    return dict(state.get("state", {}))


def load_optimizer_state(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer],
                         state: Mapping[str, Mapping[str, Tensor]], critic: nn.Module | None = None) -> None:  # fmt: skip
    """Restore what `full_optimizer_state` gave, which every process has.

    DCP's own loader would invent state for parameters that never had a gradient, so that a resumed run differs from an unbroken
    one. Fused optimizers walk the memory itself, so a moment must have the strides of its parameter. What another optimizer
    left of a parameter, in a run of an earlier version, is forgotten.
    """
    parameters = named_parameters(model, critic)
    values = {id(parameters[name]): {k: _laid_out_as(parameters[name], v) for k, v in own.items()} for name, own in state.items()}
    for optimizer in optimizers:
        own = optimizer.state_dict()
        listed = [p for group in optimizer.param_groups for p in group["params"]]
        known = {k: values[id(p)] for k, p in enumerate(listed) if id(p) in values}
        own["state"] = {k: v for k, v in known.items() if ("momentum" in v) == isinstance(optimizer, Muon)}
        optimizer.load_state_dict(own)


def _has_shards(model: nn.Module) -> bool:
    return any(is_sharded(p) for p in model.parameters())


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """`value`, where it has the parameter's shape, with its strides and shards."""
    if value.shape != parameter.shape:
        return value  # a count of steps
    if is_sharded(parameter):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(parameter, DTensor)
        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
