"""Paths as users write them."""

from pathlib import Path

from instrlib.core.errors import ConfigError


def expanded(place: Path | str) -> Path:
    """Return a path with the home folder in place of `~`.

    Parameters
    ----------
    place : Path or str
        As a user wrote it.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        When it begins with `~name`, and nobody of that name has a home folder here.

    Examples
    --------
    >>> expanded("~/sounds") == Path.home() / "sounds"
    True
    """
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise ConfigError(f"{place} begins with a home folder that is not known; write the whole path.") from None


def whole(place: str, variable: str) -> Path:
    """Return a path that an environment variable gives; it counts for notebooks too, which work in another folder.

    Parameters
    ----------
    place : str
        As a user wrote it.
    variable : str
        Name of the variable, for the message.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        When it begins neither at the root nor in a home folder that is known.

    Examples
    --------
    >>> whole("/sound/../weights", "INSTRLIB_WEIGHTS").as_posix()
    '/sound/../weights'
    """
    try:
        path = expanded(place)
    except ConfigError:
        path = Path(place)
    if not path.is_absolute():
        raise ConfigError(f"{variable} names {place}; write the whole path, from the root.")
    return path
