"""Runs: training that writes down what it does, samples on disk, other averages of a run."""
