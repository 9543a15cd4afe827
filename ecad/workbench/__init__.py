"""The workflow of the ECAD paper at the command line, one command per file."""
