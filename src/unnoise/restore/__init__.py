"""Restoring pictures with a denoiser."""
