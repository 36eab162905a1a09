"""Turn the errors that a program raises under diagnosis into one line that names the site and the remedy.

`with explained("drawing from the guide"): …` lets this project's own errors through and rewrites torch's and Pyro's
complaints about invalid distribution parameters.
"""

import re
from contextlib import contextmanager

from pathscore.errors import NumericsError

_INVALID = re.compile(
    r"Expected (?:parameter (\w+)|value argument).*?distribution (\w+)\(.*?found invalid values", re.S
)
_SITE = re.compile(r"at site '(\w+)'")


@contextmanager
def explained(doing: str):
    """Rewrite "Expected parameter loc … found invalid values" as a NumericsError that says what was being done."""
    try:
        yield
    except ValueError as error:
        found = _INVALID.search(str(error))
        if not found:
            raise
        site = _SITE.search(str(error))
        where = f" at site {site.group(1)!r}" if site else ""
        raise NumericsError(
            f"{doing}: {found.group(2)} got an invalid {found.group(1) or 'value'}{where} (NaN or "
            "outside its support): is the data of the kind that the model was trained on, and is the "
            "last checkpoint finite?"
        ) from error
