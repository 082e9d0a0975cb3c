"""Grid of a search that clusters and worker processes train with equal results."""

HALVING = """
name = "search"
task = "digits"
[params]
epochs = 9
hidden = [8]
train_size = 100
[grid]
lr = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
[runtime]
precision = "float64"
[search]
method = "halving"
metric = "val/loss"
min_epochs = 1
seeds = 1
finalists = 1
"""
