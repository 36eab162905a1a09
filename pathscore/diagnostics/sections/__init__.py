"""One diagnostic per file: each has a function `section(subject) -> Section`."""
