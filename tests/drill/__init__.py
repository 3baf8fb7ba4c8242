"""Every fault in one go: `python -m tests.drill --output FOLDER` (`make drill`)."""
