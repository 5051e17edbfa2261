"""Data: images as uint8 arrays, where they come from, and the split into training and held-out ones."""
