"""Training: the loop, what each step sees, optimizers, averages of the weights, checkpoints, several processes."""
