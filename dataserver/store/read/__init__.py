"""What the console and the command line read; one file per subject."""
