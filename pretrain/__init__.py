"""SKESL pretraining: the cross-modal encoder and its masked-intensity objective."""

import preprocessing  # noqa: F401 - Ctrl-C while heavy libraries are imported is one line
