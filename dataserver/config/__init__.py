"""Settings, instances' files and folders: what is configured, and where it is read from."""
