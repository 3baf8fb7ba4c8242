"""From videos to an utterance dataset: corpus layouts, media, speech recognition, features, masks."""

from skesl_mug.interruption import one_line_while_importing

one_line_while_importing()
