"""Pre-training of models/tiny from texts alone: `python -m experiments.pretrain`."""
