"""The one exception a command shows as a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend; the message names the value and the remedy."""
