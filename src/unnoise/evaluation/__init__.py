"""How good a model is: the held-out loss, and how unlike its training images an image is."""
