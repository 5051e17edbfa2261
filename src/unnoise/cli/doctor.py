"""`unnoise doctor`."""

from unnoise.cli.options import say


def doctor() -> int:
    """Print versions, devices, threads, whether bf16 is fast here (measured), and what will be used."""
    import platform

    import torch
    import torchvision

    from unnoise import __version__
    from unnoise.utils.precision import bf16_pays
    from unnoise.utils.runtime import choose_device

    device = choose_device()
    pays, gain = bf16_pays(device)
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    say(f"unnoise {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}\n"
        f"devices: cpu{''.join(', ' + g for g in gpus)}; {torch.get_num_threads()} threads\n"
        f"bf16: {gain:.2f} times the speed of fp32 (measured on a 3x3 convolution)\n"
        f"will use: {device}, {'bf16' if pays else 'fp32'}")  # fmt: skip
    return 0
