"""Old place of `variants`."""

from instrlib.core.io import slug  # noqa: F401
from instrlib.models.variants import *  # noqa: F403
