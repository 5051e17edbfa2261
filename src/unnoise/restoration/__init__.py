"""Restoration: denoisers that know a measurement of the image, and what is restored with them."""
