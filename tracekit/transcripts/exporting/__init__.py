"""What a run made, in other tools' files: zarr, parquet, lines of answers."""
