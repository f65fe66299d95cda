"""Local folders of a run, wherever Spark has them."""

from novelsum.files.location import Location
from novelsum.spark.local import folder_of, new_run


def test_scratch_of_earlier_tries_is_removed_wherever_spark_has_left_it(tmp_path, monkeypatch):
    """In all local directories of the machine; that of other runs, of this try and of Spark itself stays."""
    work, ours = (
        Location.of("/data/out/_work/work"),
        ("blockmgr-1", "spark-1/executor-2/blockmgr-3", "other/blockmgr-4"),
    )
    run, other_run = new_run(work), new_run(Location.of("/data/other/_work/work"))
    earlier = f"novelsum-{run.split('-')[0]}-0123-4567"
    gone = [tmp_path / folder / earlier for folder in (*ours, "blockmgr-5", "spark-6/blockmgr-7", ".")]
    kept = [tmp_path / ours[0] / f"novelsum-{name}" for name in (run, other_run)] + [tmp_path / "blockmgr-5" / "0a"]
    for folder in (*gone, *kept):
        (folder / "000000-0000.parquet").mkdir(parents=True)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(str(tmp_path / folder) for folder in ours))
    assert folder_of(run) == kept[0]
    assert not [folder for folder in gone if folder.exists()]
    assert all(folder.exists() for folder in kept)
