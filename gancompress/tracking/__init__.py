"""Following a run elsewhere: its curves and images, sent to trackers beside the log that is always there."""
