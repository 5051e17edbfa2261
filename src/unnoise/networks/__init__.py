"""Networks: `(x, c_noise, label) -> like x`. They know nothing of diffusion."""
