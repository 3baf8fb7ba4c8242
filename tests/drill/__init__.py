"""Every fault, tried on the commands: `python -m tests.drill --output FOLDER` (`make drill`)."""
