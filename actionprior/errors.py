"""The one base class of errors that are meant for people."""


class UserError(ValueError):
    """Bad input, told in one sentence: what was found, where, and what was expected.

    The command line prints the sentence and exits with code 2, without a traceback.
    """
