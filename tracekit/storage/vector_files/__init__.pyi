from tracekit.storage.vector_files.gguf_file import read_gguf, write_gguf
from tracekit.storage.vector_files.json_file import read_json, write_json
from tracekit.storage.vector_files.numpy_file import read_numpy, write_numpy
from tracekit.storage.vector_files.pt_file import read_pt, write_pt
from tracekit.storage.vector_files.safetensors_file import read_safetensors, write_safetensors

__all__ = [
    "read_gguf",
    "read_json",
    "read_numpy",
    "read_pt",
    "read_safetensors",
    "write_gguf",
    "write_json",
    "write_numpy",
    "write_pt",
    "write_safetensors",
]
