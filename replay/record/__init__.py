"""Running a program so that what it does with memory is recorded: system calls, malloc, and what execve mapped."""
