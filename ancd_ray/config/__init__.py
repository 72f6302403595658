"""The job file: its sections as frozen models, how it is read, and what is wrong with it."""
