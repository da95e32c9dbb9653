"""What a run will need of memory, disk and time, before anything is downloaded."""
