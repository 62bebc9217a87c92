"""The one error that users see as a sentence instead of a traceback."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence (two at most): what was given, what is allowed, what
    to do.  Programs print it on stderr and exit with code 2; `--debug` shows the
    traceback.
    """


def did_you_mean(name: str, allowed) -> str:
    """' (did you mean "x"?)' when `name` is close to one of `allowed`, else ''."""
    import difflib

    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""
