"""Features of the face, one file an extractor."""

from preprocessing.vision.track import VisionTrack

__all__ = ["VisionTrack"]
