"""What every part uses: random draws, atomic files, precision, processes, errors. Nothing here knows of diffusion."""
