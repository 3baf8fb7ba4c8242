"""What all tests share: one thread (spinning threads make small steps ten times slower), no hub, a cache of their own."""

import gc
import os
from collections.abc import Iterator

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch  # after the environment

# a forked process must not destroy objects of libraries whose threads it does not have: its garbage collection would wait for them for ever
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_converted_corpora(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Never the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKESL_MUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
