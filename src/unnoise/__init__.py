"""unnoise: train a diffusion model from scratch on your own pictures, and draw new ones from it.

Importing the package loads nothing heavy; take what you need from its modules, e.g.
`from unnoise.noise import LinearSchedule`.
"""

__version__ = "0.1.0"
