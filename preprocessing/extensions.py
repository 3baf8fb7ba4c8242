"""Extension points of preprocessing: corpus layouts, audio features, vision features (docs/extending.md)."""

from skesl_mug.registry import Registry

LAYOUTS = Registry("corpus layout", "--corpus")
AUDIO_FEATURES = Registry("audio feature extractor", "--audio")
VISION_FEATURES = Registry("vision feature extractor", "--vision")

register_layout = LAYOUTS.register
register_audio_features = AUDIO_FEATURES.register
register_vision_features = VISION_FEATURES.register
