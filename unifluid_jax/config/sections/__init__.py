"""The sections of a config as frozen dataclasses: one file a section."""
