"""One Linux address space, by the rules of the kernel; no traces are known here."""
