"""What each kind of program is to the command line: options, data, figures, pictures. One file an entry of `MODELS`."""
