"""The heap that malloc cuts its blocks from: how it is cut up, what pins it, what leaked, what made it grow.

In go the replayed columns, the blocks and what calls ran inside; out come columns over time, a picture of any moment
and the answer to whether it is a leak or fragmentation. How that is put into words is not known here.
"""
