"""Videos in, utterance dataset out: corpora, media, speech recognition, features, masks."""

from skesl_mug.interruption import one_line_while_importing

one_line_while_importing()
