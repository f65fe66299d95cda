"""A night in Airflow (provider apache-spark): the density state takes in the new files, then the selection grows.

A task that failed is tried again as it is. That is safe: the same command goes on from what the failed one has done,
or does it again with the same result. Outputs are named by the date. For a backfill clear a day and all days after it,
which then run in their order: with --overwrite each replaces its result, the state replaces the rows that the day had
brought, and picks of days after it are not counted. The very first night has no state and no selection yet: run it by
hand, with --save-state and without --already-selected (conf/three_nights.sh shows how).
"""

from datetime import datetime, timedelta

from airflow.decorators import dag
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

BUCKET = "s3://curation"
SUBMIT = {
    "conn_id": "spark",
    "properties_file": "/opt/novelsum/conf/yarn.conf",
    "py_files": "/opt/novelsum/dist/novelsum-0.1.0.zip",
    "archives": "/opt/novelsum/dist/environment.tar.gz#environment",
    "files": "/opt/novelsum/conf/log4j2.properties",
}


@dag(
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # nights follow one another: each begins with the picks of those before
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=6),
        "depends_on_past": True,
    },
)
def novelsum_nightly() -> None:
    density = SparkSubmitOperator(
        task_id="density",
        application="/opt/novelsum/jobs/estimate_density.py",
        application_args=[
            *("--update", f"{BUCKET}/density-state"),
            *("--input", f"{BUCKET}/embeddings/date={{{{ ds }}}}"),
            *("--output", f"{BUCKET}/density/{{{{ ds }}}}"),
            "--overwrite",
        ],
        **SUBMIT,
    )
    selection = SparkSubmitOperator(
        task_id="selection",
        application="/opt/novelsum/jobs/select_subset.py",
        application_args=[
            *("--input", f"{BUCKET}/embeddings"),
            *("--density", f"{BUCKET}/density/{{{{ ds }}}}"),
            *("--already-selected", f"{BUCKET}/selected/*/selected"),
            *("--budget", "10000"),
            *("--output", f"{BUCKET}/selected/{{{{ ds }}}}"),
            "--overwrite",
        ],
        **SUBMIT,
    )
    density >> selection


novelsum_nightly()
