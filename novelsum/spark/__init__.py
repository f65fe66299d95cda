"""What every job needs of Spark: a session, values for all executors, the join by id or digest, progress, scratch on
their disks.

Knows nothing of what the jobs compute.
"""
