"""unnoise: train a diffusion model from scratch on your own images, sample from it, restore images with it.

    import unnoise as un
    run = un.train("my/photos", size=64, minutes=60)
    images = un.load("runs/photos").sample(16)                  # uint8 (N, H, W, C)

The public names are listed in `__init__.pyi` and loaded when they are first used: `import unnoise` alone loads nothing heavy.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
