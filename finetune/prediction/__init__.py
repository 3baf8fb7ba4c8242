"""A trained model's folder, and what it says of a recording: as data, table, files and picture."""
