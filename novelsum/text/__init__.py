"""Text in and out: records of JSON or Parquet are found and read, embedded, and written as Parquet for all other jobs;
the chosen ones are written to a training file as they came in.
"""
