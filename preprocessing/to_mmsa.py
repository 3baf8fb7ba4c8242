"""`python -m preprocessing.to_mmsa DATASET --output FILE.pkl`: the command `skesl-mug to-mmsa`.

It needs language models and splits, so its code is in `finetune/to_mmsa.py`, which this package must not import.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("finetune.to_mmsa", run_name="__main__", alter_sys=True)
