"""Browser components of our own: a Python file each, with its JavaScript and style beside it."""
