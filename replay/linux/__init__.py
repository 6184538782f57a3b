"""Facts of Linux and its libcs, no logic: calls, errnos, flags, the format of /proc/PID/maps."""
