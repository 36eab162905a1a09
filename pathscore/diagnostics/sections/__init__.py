"""One diagnostic a file: each has a function `section(subject) -> Section`."""
