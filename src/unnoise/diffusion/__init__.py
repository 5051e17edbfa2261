"""The mathematics of diffusion, on tensors alone: schedules, denoisers, the loss, samplers, guidance, inversion."""
