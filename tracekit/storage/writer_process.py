"""Jobs to a writer process and answers back. Run as a script it is that process.

Writer processes exist because HDF5 holds one lock a process; they import the modules for writing
alone, so that they neither import torch nor run the user's script again.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr
from numcodecs import blosc

if __name__ == "__main__":
    # the package that this file is of, wherever the parent found it
    sys.modules["tracekit"] = types.ModuleType("tracekit")
    sys.modules["tracekit"].__path__ = [str(Path(__file__).parents[1])]

from tracekit.storage.shard import Job, build, commit


def dump(job: Job, stream: BinaryIO) -> None:
    """A job onto a pipe: a JSON line, the labels as npz, the raw values."""
    labels = io.BytesIO()
    np.savez(labels, **{str(name): c.values for name, c in job.frame.coords.items()})
    header = {
        "path": str(job.path),
        "coords": {str(name): list(c.dims) for name, c in job.frame.coords.items()},
        "frame_attrs": job.frame.attrs,
        **{key: getattr(job, key) for key in ("name", "dims", "dtype", "compression", "round_to")},
        "raw": [len(job.raw), list(job.raw[0].shape), str(job.raw[0].dtype)],
        "bytes": labels.tell(),
    }
    stream.write(json.dumps(header).encode() + b"\n")
    stream.write(labels.getbuffer())
    for layer in job.raw:
        stream.write(np.ascontiguousarray(layer).view(np.uint8).reshape(-1).data)
    stream.flush()


def parse(stream: BinaryIO) -> Job | None:
    """The next job of a pipe; `None` when the pipe was closed."""
    line = stream.readline()
    if not line:
        return None
    header = json.loads(line)
    labels = np.load(io.BytesIO(stream.read(header.pop("bytes"))))
    count, shape, kind = header.pop("raw")
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = tuple(np.frombuffer(stream.read(size), kind).reshape(shape) for _ in range(count))
    coords = {name: (dims, labels[name]) for name, dims in header.pop("coords").items()}
    frame = xr.Dataset(coords=coords, attrs=header.pop("frame_attrs"))
    path, dims = Path(header.pop("path")), tuple(header.pop("dims"))
    return Job(path=path, frame=frame, dims=dims, raw=raw, **header)


def _serve() -> None:
    blosc.use_threads = False
    parent = os.getppid()
    while (job := parse(sys.stdin.buffer)) is not None:
        begun = time.perf_counter()
        try:
            content, values = build(job)
            if os.getppid() != parent:
                return  # the capture was killed, and another one may be writing this shard
            answer = commit(content, job.path, values, time.perf_counter() - begun)
        except Exception as error:  # handed to the parent, which raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                answer |= {"errno": error.errno, "error": error.strerror}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
