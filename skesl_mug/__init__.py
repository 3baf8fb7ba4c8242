"""The toolkit from Python, and the ground floor that every room stands on. Names are loaded when they are first used."""
