"""torchvision, imported only when a data set needs it: `vision() -> torchvision.datasets`."""

from types import ModuleType

from pathscore.errors import DataError


def vision() -> ModuleType:
    """`torchvision.datasets`; the import takes a second.

    Raises `DataError` where torchvision is missing, or was built for another version of torch.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            raise DataError("this data set is read with torchvision: pip install torchvision") from None
        reason = str(error).splitlines()[0]
        raise DataError(
            f"torchvision cannot be imported ({reason}): install torch and torchvision together, in one command"
        ) from error
    return torchvision.datasets
