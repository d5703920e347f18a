"""One module per command: it parses options, calls one function, prints."""
