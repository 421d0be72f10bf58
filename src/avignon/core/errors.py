"""Everything avignon raises on purpose.

    AvignonError             exit code 1
    └── InputError           exit code 2
        ├── RecipeError, RightsError, ImageError, ModelError, AdapterError, WorkspaceError
        └── FetchError
            └── TurnedAway

Each message is one line: what, where, the value, and what is allowed or what to do.
"""


class AvignonError(Exception):
    """Something went wrong."""


class InputError(AvignonError):
    """The user's input or surroundings are at fault; the message says what to change."""


class RecipeError(InputError):
    """A value in the recipe, or in a file that the recipe names, cannot be used."""


class RightsError(InputError):
    """The recipe does not admit works under these rights."""


class ImageError(InputError):
    """A picture cannot be used."""


class FetchError(InputError):
    """Something could not be fetched over the network; `status` is the server's answer, 0 where there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TurnedAway(FetchError):  # noqa: N818 - what happened, in the server's own terms
    """A server shows a page for people, a challenge or a sign-in, to a program that asks for data."""


class ModelError(InputError):
    """A base model or an encoder is missing, incomplete or unsafe to load."""


class AdapterError(InputError):
    """An adapter is damaged or was made for another base."""


class WorkspaceError(InputError):
    """A folder cannot be written, or another run is using it."""
