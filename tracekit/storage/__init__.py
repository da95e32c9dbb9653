"""Files: provenance, netCDF that any xarray reads, folders of sealed shards, vector files."""
