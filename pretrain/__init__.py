"""SKESL pretraining: the cross-modal encoder and its masked-intensity objective."""
