"""What all tests share: one thread (spinning threads make small steps ten times slower), no hub."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # after the environment

torch.set_num_threads(1)
