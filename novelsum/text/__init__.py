"""Text in: records of JSON or Parquet are found and read, embedded, and written as Parquet for all other jobs."""
