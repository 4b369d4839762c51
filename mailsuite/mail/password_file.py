"""A password that stands in a file: in its first line. The file is read when the password is needed."""

from __future__ import annotations

from pathlib import Path


class PasswordUnreadable(Exception):
    """A password file cannot be read; the text names it, the reason and the cure."""


def read_password(path: Path) -> str:
    """The first line of a password file. Blocks. Raises `PasswordUnreadable`."""
    try:
        password = path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except PermissionError as error:
        raise PasswordUnreadable(
            f"password_file {path} cannot be read ({error.strerror}); run this as the user who serves, and see that it "
            "may read the file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise PasswordUnreadable(
            f"password_file {path} cannot be read: {reason}; write the password into its first line"
        ) from None
    if not password:
        raise PasswordUnreadable(f"the first line of password_file {path} is empty; write the password there")
    return password
