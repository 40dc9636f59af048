"""Pure translation: no I/O, no threads."""
