"""The part of the report about malloc: only logs with calls of its family import it.

In go a run's findings, out come paragraphs, sections of the report, values for JSON and words for steps.
"""
