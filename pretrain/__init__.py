"""SKESL pretraining: the cross-modal encoder and its masked-intensity objective."""

from skesl_mug.interruption import one_line_while_importing

one_line_while_importing()
