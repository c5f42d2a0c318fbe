"""The folder of a run, apart from its weights: config, vocabulary, lock."""
