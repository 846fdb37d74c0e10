"""Sound: decoding, features, effects and augmentation."""
