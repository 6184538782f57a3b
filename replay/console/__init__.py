"""What people see on a terminal: text fit for it, widths, amounts, progress."""
