"""Errors that are meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where (file, column, flag) and what to do.

    Jobs print the message alone and exit with ``status``.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status
