"""Names that several parts share."""

MARK = "Software", "unnoise"  # the first text in every image that this program writes, by which it is known again
PARTS = {  # short names of the parts that people change most; every other field goes by its dotted name
    "schedule": "schedule",
    "target": "target",
    "network": "network",
    "loss": "training.loss",
    "sampler": "sampling.sampler",
    "resize": "data.resize",
}
RENAMED: dict[str, str | tuple[str, ...]] = {  # old names of verbs, options, fields and parts, answered with the new ones
    "noise": "epsilon",
    "picture": "x0",
    "karras": "edm",
    "pictures": "images",
    "penalty": "loss",
    "fall": "lr_schedule",
    "recompute": "activation_checkpointing",
    "parts": ("micro_batches", "splits"),
    "more_ema": "extra_ema",
    "spread_times": "stratified_times",
    "part": "split",
    "divide": "per_process",
    "redraw": "regenerate",
    "morph": "interpolate",
}
