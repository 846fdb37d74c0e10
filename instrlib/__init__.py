"""Musical instrument recognition from audio: the library behind the numbered notebooks.

Importing this package loads neither TensorFlow nor librosa; each module imports what it needs when it is used.
"""

__version__ = "0.1.0"
