"""ImageDataset as uint8 arrays, and where they come from."""
