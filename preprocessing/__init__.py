"""Videos in, utterance dataset out: corpora, media, speech recognition, features, masks."""
