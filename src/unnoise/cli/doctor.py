"""`unnoise doctor`."""

import json
from typing import Annotated

from tyro.conf import arg

from unnoise.cli.options import say


def doctor(json_: Annotated[bool, arg(name="json", help="print one JSON object and nothing else")] = False) -> int:
    """Print versions, devices, threads, whether bf16 is fast here (measured), and what will be used and why.

    Examples: unnoise doctor
              unnoise doctor --json
    """
    import platform

    import torch
    import torchvision

    from unnoise import __version__
    from unnoise.utils.precision import bf16_pays
    from unnoise.utils.runtime import choose_device_and_why

    device, reason = choose_device_and_why()
    pays, gain = bf16_pays(device)
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    if json_:
        found = {"unnoise": __version__, "python": platform.python_version(), "torch": torch.__version__,
                 "torchvision": torchvision.__version__, "devices": ["cpu", *gpus], "threads": torch.get_num_threads(),
                 "bf16_speed": round(gain, 2), "device": device, "reason": reason,
                 "precision": "bf16" if pays else "fp32"}  # fmt: skip
        print(json.dumps(found))
        return 0
    say(f"unnoise {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}\n"
        f"devices: cpu{''.join(', ' + g for g in gpus)}; {torch.get_num_threads()} threads\n"
        f"bf16: {gain:.2f} times the speed of fp32 (measured on a 3x3 convolution)\n"
        f"will use: {device} ({reason}), {'bf16' if pays else 'fp32'}")  # fmt: skip
    return 0
