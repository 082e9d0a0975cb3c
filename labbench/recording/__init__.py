"""Recording of any command: `labbench run -- python train.py --lr 0.1`."""
