"""Face features, one file per extractor."""
