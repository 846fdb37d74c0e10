"""Old place of `train` and `trained`."""

from instrlib.models.train import *  # noqa: F403
from instrlib.models.train import Initialisation as Start  # noqa: F401
from instrlib.models.trained import *  # noqa: F403
