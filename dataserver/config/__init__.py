"""Configuration: the settings, how they are read, and the files and folders of instances."""
