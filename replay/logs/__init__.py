"""From files to chunks of whole lines: finding, opening, decompressing, telling the dialect."""
